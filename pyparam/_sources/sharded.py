"""Checkpoints in several files: a directory, or an index that says which file holds which name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pyparam._base.words import a_kind
from pyparam._sources import distributed, folders
from pyparam._sources.checkpoint import Checkpoint, CheckpointWarning
from pyparam._sources.order import is_sorted, natural_key
from pyparam._sources.plain_json import parsed_json

LONGEST_INDEX = 500_000_000

_SUFFIXES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pt2", "*.gguf")
_INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")
_PART = re.compile(r"(.*)-(\d+)-of-(\d+)(\.[a-z]+)")

Opener = Callable[[Path], Any]


def open_directory(path: Path, opener: Opener) -> Any:
    """Opens what a directory holds: an index, else a checkpoint by its usual name, else the only one.

    Raises:
        ValueError: for a directory with no checkpoint, with several, or with parts of one missing.
    """
    if distributed.is_distributed(path):
        return distributed.open_directory(path)
    pieces = _in_pieces(path, opener)
    if pieces is not None:
        return pieces
    if (path / folders.PIPELINE).is_file():
        return folders.open_pipeline(path, lambda part: open_directory(part, opener))
    for suffix in ("safetensors", "bin"):
        single = _single(path, suffix)
        if single is not None:
            return opener(single)
        index = _index(path, suffix)
        if index is not None:
            return open_index(index, opener, opened=path)
    for name in folders.WHOLE:
        if (path / name).is_file():
            return opener(path / name)
    for pattern in _SUFFIXES:
        files = sorted(file for file in path.glob(pattern) if file.is_file())
        parts = [(file, part) for file in files if (part := _PART.fullmatch(file.name))]
        if parts and len(parts) == len(files):
            return _open_parts(path, parts, opener)
        if len(files) > 1:
            raise ValueError(
                f"{path} holds several checkpoints ({_listed(files)}): open one of them{folders.advice(path)}"
            )
        if files and not (folders.is_beside(files[0]) and folders.advice(path)):
            return opener(files[0])
    raise ValueError(
        f"{path} is a directory without a checkpoint (looked for an index, for .metadata and for "
        f"{', '.join(_SUFFIXES)}){folders.advice(path)}"
    )


def is_index(path: Path) -> bool:
    """Whether a file's name is that of an index, of a variant as well (model.safetensors.index.fp16.json)."""
    return _INDEX.search(path.name) is not None


def _single(path: Path, suffix: str) -> Path | None:
    """The whole model in one file, which transformers reads even where there is an index too."""
    file = path / {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[suffix]
    if not file.is_file():
        return None
    index = path / f"{file.name}.index.json"
    if index.is_file():
        warnings.warn(
            f"{path} holds both {file.name} and {index.name}: {file.name} is read, as transformers does",
            CheckpointWarning,
            stacklevel=2,
        )
    return file


def _index(path: Path, suffix: str) -> Path | None:
    """The index of a directory; that of a variant where there is no other."""
    found = sorted(file for file in path.glob(f"*.{suffix}.index*.json") if is_index(file) and file.is_file())
    plain = [file for file in found if file.name.endswith(".index.json")]
    if len(plain or found) > 1:
        raise ValueError(f"{path} holds several indices ({_listed(plain or found)}): open one of them")
    return next(iter(plain or found), None)


def _in_pieces(path: Path, opener: Opener) -> Checkpoint | None:
    """The safetensors flavour of a distributed checkpoint, where each file says which pieces it holds."""
    files = sorted(file for file in path.glob("shard-*.safetensors") if file.is_file())
    if not files:
        return None
    shards = [_as_checkpoint(file, opener(file)) for file in files]
    return distributed.open_shards(path, shards) if any(map(distributed.is_sharded, shards)) else None


def open_index(path: Path, opener: Opener, *, opened: Path | None = None) -> Checkpoint:
    """Opens the files an index names.

    The index decides what the checkpoint has: what a file holds and the index does not list is left out.

    Raises:
        ValueError: for an index that is not one, that names a file outside its directory, a file that is
            missing, or an entry that the file does not hold.
    """
    weight_map, metadata = _read_index(path)
    shards: dict[str, Checkpoint] = {}
    found: list[tuple[str, str]] = []
    for name, file_name in weight_map.items():
        shard = shards.get(file_name) if isinstance(file_name, str) else None
        if shard is None:
            shard = shards[file_name] = _open_shard(path, name, file_name, opener)
        if name not in shard:
            raise ValueError(f"{path} lists entry {name!r} in {file_name}, which does not hold it")
        found.append((name, file_name))
    _tell_left_out(path, shards, weight_map)
    if is_sorted(list(weight_map)):
        # A JSON object that was written with sorted keys: nobody chose that order.
        found.sort(key=lambda entry: natural_key(entry[0]))
    return _combined(opened or path, shards, found, metadata)


def _tell_left_out(index: Path, shards: dict[str, Checkpoint], weight_map: dict[str, Any]) -> None:
    left_out = [
        f"{name!r} in {file}"
        for file, shard in shards.items()
        for name in shard._parts[0].names
        if name not in weight_map
    ]
    if left_out:
        shown = ", ".join(left_out[:4]) + (f" and {len(left_out) - 4} more" if len(left_out) > 4 else "")
        warnings.warn(
            f"{index} leaves out what its files hold, so it is not read: {shown}",
            CheckpointWarning,
            stacklevel=2,
        )


def _read_index(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if path.stat().st_size > LONGEST_INDEX:
        raise ValueError(f"{path} is too large for an index of a checkpoint ({path.stat().st_size} bytes)")
    try:
        parsed = parsed_json(path.read_bytes(), _distinct)
    except ValueError as error:
        raise ValueError(f"{path} is not an index of a checkpoint: {error}") from None
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if not isinstance(weight_map, dict):
        raise ValueError(
            f"{path} is not an index of a checkpoint: it has no weight_map from names to files"
            f"{folders.without_weights(parsed)}"
        )
    metadata = parsed.get("metadata")
    return weight_map, metadata if isinstance(metadata, dict) else {}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"two entries are named {key!r}")
            seen.add(key)
    return made


def _open_shard(index: Path, name: str, file_name: Any, opener: Opener) -> Checkpoint:
    where = f"{index} puts entry {name!r} in"
    if not isinstance(file_name, str) or not file_name or "\0" in file_name:
        raise ValueError(f"{where} {file_name!r}, which is no file name")
    # By the text alone, as caches keep shards as links to elsewhere.
    posix, windows = PurePosixPath(file_name), PureWindowsPath(file_name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts or ".." in windows.parts:
        raise ValueError(f"{where} {file_name!r}, which is outside the directory of the index")
    shard = index.parent / file_name
    if shard.suffix == ".json":
        raise ValueError(f"{where} {file_name!r}, which is an index itself")
    if not shard.is_file():
        raise ValueError(f"{where} {file_name!r}, which is missing")
    return _as_checkpoint(shard, opener(shard))


def _as_checkpoint(path: Path, opened: Any) -> Checkpoint:
    if not isinstance(opened, Checkpoint):
        raise ValueError(f"{path} is {a_kind(opened)}, not a part of a checkpoint")
    return opened


def _open_parts(path: Path, parts: list[tuple[Path, re.Match[str]]], opener: Opener) -> Checkpoint:
    """Numbered parts, model-00001-of-00003, without an index."""
    stems = {(part[1], part[3], part[4]) for _, part in parts}
    wanted = int(parts[0][1][3])
    if len(stems) != 1 or {int(part[2]) for _, part in parts} != set(range(1, wanted + 1)):
        files = _listed(file for file, _ in parts)
        raise ValueError(f"{path} does not hold one checkpoint with all its parts; there are {files}")
    shards = {file.name: _as_checkpoint(file, opener(file)) for file, _ in parts}
    found = [(name, file_name) for file_name, shard in shards.items() for name in shard]
    names: set[str] = set()
    for name, file_name in found:
        if name in names:
            raise ValueError(f"{path}: two files hold an entry named {name!r}, one of them {file_name}")
        names.add(name)
    return _combined(path, shards, found, {})


def _combined(
    path: Path, shards: dict[str, Checkpoint], found: list[tuple[str, str]], metadata: dict[str, Any]
) -> Checkpoint:
    """One checkpoint of the entries ``found``, each with the name of its file."""
    together: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    for shard in shards.values():
        together.update(shard.metadata)
        extras.update(shard.extras)
    numbers = {file_name: number for number, file_name in enumerate(shards)}
    places = {name: shards[file]._places[name] * len(shards) + numbers[file] for name, file in found}
    parts = [shard._parts[0] for shard in shards.values()]
    made = Checkpoint(path, parts, places=places, metadata={**together, **metadata}, extras=extras)
    return made.over(shards.values())


def _listed(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
