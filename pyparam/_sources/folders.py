"""Folders that a run or a library leaves: what lies in them, and which path to open."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from pyparam._base.words import size
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.order import natural_key
from pyparam._sources.plain_json import parsed_json

_LONGEST = 1 << 20
_LONGEST_STATE = 64 << 20
_MOST = 4  # paths in a message
_MOST_BESIDE = 8
# Of what transformers' Trainer writes into trainer_state.json.
_TOLD = ("epoch", "global_step", "max_steps", "num_train_epochs", "best_metric", "total_flos")
# Of what peft writes into adapter_config.json.
_ADAPTER = (
    "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "modules_to_save",
    "base_model_name_or_path",
)  # fmt: skip
_LONGEST_SETTING = 100
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pt2", ".gguf")

# The names transformers, diffusers and peft give a single file, looked for in this order.
WHOLE = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "adapter_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "adapter_model.bin",
)

# What Accelerate and transformers' Trainer write beside a model, with the number of a rank or of its kind.
_BESIDE = re.compile(
    r"(optimizer|scheduler|sampler|scaler|dl_state_dict|random_states|rng_state|training_args|custom_checkpoint)"
    r"(_\d+)*\.\w+"
)

PIPELINE = "model_index.json"
"""Names the components of a diffusers pipeline, each a folder."""


def open_pipeline(path: Path, opener: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Opens a diffusers pipeline: the tensors of all its components, each name below its component's.

    Components without weights (a scheduler, a tokenizer) are left out.

    Raises ValueError for an index that is none, and for a component that has weights and cannot be opened.
    """
    index = path / PIPELINE
    if index.stat().st_size > _LONGEST:
        raise ValueError(f"{index} is too large for an index of components ({index.stat().st_size} bytes)")
    try:
        parsed = parsed_json(index.read_bytes())
    except ValueError as error:
        raise ValueError(f"{index} is not an index of components: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{index} is not an index of components: it is no object")
    found: dict[str, Checkpoint] = {}
    for name, what in parsed.items():
        is_component = (
            isinstance(what, list) and not name.startswith("_") and "/" not in name and ".." not in name
        )
        if is_component and any(_weights(path / name)):
            found[name] = opener(path / name)
    if not found:
        raise ValueError(
            f"{path} is a diffusers pipeline without weights: {PIPELINE} names {', '.join(parsed)}"
        )
    return _joined(path, found)


def _joined(path: Path, components: dict[str, Checkpoint]) -> Checkpoint:
    parts: list[Any] = []
    places: dict[str, int] = {}
    extras: dict[str, Any] = {}
    count = sum(len(opened._parts) for opened in components.values())
    for component, opened in components.items():
        for name, place in opened._places.items():
            position, part = divmod(place, len(opened._parts))
            places[f"{component}.{name}"] = position * count + len(parts) + part
        extras |= {f"{component}.{name}": value for name, value in opened.extras.items()}
        parts += opened._parts
    return Checkpoint(path, parts, places=places, extras=extras).over(components.values())


def beside(path: Path, files: Collection[Path]) -> list[tuple[str, str]]:
    """What lies in a checkpoint's folder besides its files, as facts: other states, the run's steps, and of a
    peft adapter its settings.
    """
    if path.is_file() and path.name not in WHOLE:
        return []
    path = path if path.is_dir() else path.parent
    here = {file.name for file in files}
    others = sorted(
        file
        for file in path.iterdir()
        if file.suffix in (*_WEIGHTS, ".pkl") and file.name not in here and file.is_file()
    )
    facts = []
    if others:
        shown = [f"{file.name} ({size(file.stat().st_size)})" for file in others[:_MOST_BESIDE]]
        more = f" and {len(others) - _MOST_BESIDE} more" if len(others) > _MOST_BESIDE else ""
        facts.append(("beside it", f"{', '.join(shown)}{more}"))
    state = _object(path / "trainer_state.json", _LONGEST_STATE)
    told = [f"{k} {state[k]}" for k in _TOLD if isinstance(state.get(k), (int, float))]
    facts += [("progress", ", ".join(told))] if told else []
    if any(name.startswith("adapter_model.") for name in here):
        adapter = _object(path / "adapter_config.json", _LONGEST)
        settings = [f"{k} {said}" for k in _ADAPTER if (said := _in_words(adapter.get(k)))]
        facts += [("adapter", ", ".join(settings))] if settings else []
    return facts


def _object(file: Path, most: int) -> dict[str, Any]:
    """A JSON file's object; an empty one where there is none of at most so many bytes."""
    with contextlib.suppress(ValueError, OSError):
        parsed = parsed_json(file.read_bytes()) if file.is_file() and file.stat().st_size <= most else None
        if isinstance(parsed, dict):
            return parsed
    return {}


def _in_words(value: Any) -> str:
    """A setting that is set and plain, cut to a line's part; a list of names in order."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = " ".join(sorted(value, key=natural_key))
    if not value or not isinstance(value, (str, int, float)):
        return ""
    return str(value) if len(str(value)) <= _LONGEST_SETTING else f"{str(value)[: _LONGEST_SETTING - 1]}…"


def is_beside(file: Path) -> bool:
    """Whether a file is called as the state of an optimizer, a schedule or a random generator is."""
    return _BESIDE.fullmatch(file.name) is not None


def advice(path: Path) -> str:
    """What a folder that is no checkpoint holds, and which path to open; "" where nothing is recognised."""
    for kind, find in _LAYOUTS:
        found = sorted({str(file) for file in find(path)}, key=natural_key)
        if found:
            # Numbers grow with the steps, so the last is the newest.
            shown = found if len(found) <= _MOST else ["...", *found[-_MOST:]]
            return f". It is {kind}; open {' or '.join(shown[-2:])}" + (
                f" (there are {len(found)}: {', '.join(shown)})" if len(found) > 2 else ""
            )
    return without_weights(_object(path / "config.json", _LONGEST))


def without_weights(config: Any) -> str:
    """What to do with a config of transformers that lies alone; "" for what is none."""
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        return ""
    return ". A config.json describes a model without its weights: pyparam show --meta builds that"


def _weights(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.iterdir() if file.suffix in _WEIGHTS and file.is_file())


def _deepspeed(path: Path) -> Iterator[Path]:
    for folder in (
        path,
        *path.glob("global_step*"),
        *path.glob("checkpoint-*/global_step*"),
        *path.glob("pytorch_model*"),  # as Accelerate has it written
    ):
        yield from folder.glob("mp_rank_*_model_states.pt")
        yield from folder.glob("zero_pp_rank_*_mp_rank_*_model_states.pt")


def _megatron(path: Path) -> Iterator[Path]:
    for folder in (path, *path.glob("iter_*"), *path.glob("release")):
        if folder.is_dir() and (folder / ".metadata").is_file():
            yield folder
        yield from folder.glob("mp_rank_*/model_optim_rng.pt")
        yield from folder.glob("mp_rank_*/distrib_optim.pt")


def _lightning(path: Path) -> Iterator[Path]:
    for pattern in (
        "checkpoints/*.ckpt",
        "version_*/checkpoints/*.ckpt",
        "lightning_logs/version_*/checkpoints/*.ckpt",
    ):
        yield from path.glob(pattern)


def _cache(path: Path) -> Iterator[Path]:
    for folder in (path, *path.glob("models--*"), *path.glob("hub/models--*")):
        yield from (entry for entry in folder.glob("snapshots/*") if entry.is_dir())


def _trainer(path: Path) -> Iterator[Path]:
    for folder in path.glob("checkpoint-*"):
        if any(_weights(folder)):
            yield folder


def _accelerate(path: Path) -> Iterator[Path]:
    for folder in (*path.glob("*"), *path.glob("checkpoints/checkpoint_*")):
        if any(folder.glob("random_states_*.pkl")) and any(_weights(folder)):
            yield folder


def _sharded(path: Path) -> Iterator[Path]:
    yield from (file.parent for file in path.glob("pytorch_model_fsdp*/.metadata"))


def _distributed(path: Path) -> Iterator[Path]:
    yield from (file.parent for file in path.glob("*/.metadata"))


_LAYOUTS: tuple[tuple[str, Callable[[Path], Iterator[Path]]], ...] = (
    ("a DeepSpeed run, whose ranks' files are checkpoints by themselves", _deepspeed),
    ("a Megatron run", _megatron),
    ("a Lightning run", _lightning),
    ("a cache of the Hugging Face hub", _cache),
    ("a transformers Trainer's run", _trainer),
    ("a folder of Accelerate's states", _accelerate),
    ("a state that Accelerate saved in shards", _sharded),
    ("a folder of distributed checkpoints", _distributed),
)
