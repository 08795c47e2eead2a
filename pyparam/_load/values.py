"""What a source gives to load: values by name, the ties and strides its file records, the files under it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from pyparam._base.native import _C
from pyparam._base.rename import Rule, renamed
from pyparam._base.words import a_kind
from pyparam._parts.place import dtensor_type
from pyparam._share.save import STRIDES_KEY
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.mapped import MappedFile
from pyparam._sources.part import part_of
from pyparam._sources.tied import TIES_KEY, Tie, ties_from_text


class Given(NamedTuple):
    """What to load."""

    values: dict[str, Any]
    """A plain dict, or an OrderedDict with ``_metadata``. Tensors, and extra states of any kind."""
    ties: list[Tie]
    strides: Mapping[str, list[int]]
    files: list[MappedFile]
    """Files whose pages may be given back behind the copy."""
    from_file: bool
    repeats: frozenset[str] = frozenset()
    """Names that the file has in its metadata alone, for a tensor under another name."""
    beside: Mapping[str, Any] = MappingProxyType({})
    """What a file holds besides tensors: of a model that saves such things, part of its state."""
    others: Mapping[str, Any] = MappingProxyType({})
    """What a mapping has by name that is no tensor, and is left out of the values."""
    pieces: Mapping[str, str] = MappingProxyType({})
    """Of values that only stand for a checkpoint's tensors in pieces, their names there: a rank reads its own
    part of them."""


def opened(verb: str, source: Any, part: str | None = None) -> Any:
    """What a path leads to, or the source as it is; of either the part that is asked for.

    Raises ValueError for a file that cannot be read, or a part that is not there.
    """
    if part is None and not path.accepts(source):
        return source
    if part is not None and not isinstance(part, str):
        raise TypeError(f"{verb}: part is {a_kind(part)}; expected a prefix of names")
    try:
        return path.open(source) if part is None else part_of(source, part)
    except ValueError as error:
        raise ValueError(f"{verb}: {error}") from None


def table_alone(source: Any) -> Checkpoint | None:
    """A checkpoint whose table is all that it gives: no extra states, no ties and strides of ours."""
    if not isinstance(source, Checkpoint) or not {TIES_KEY, STRIDES_KEY}.isdisjoint(source.metadata):
        return None
    return None if any(_is_extra_state(name) for name in source.extras) else source


def _is_extra_state(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"


def given_by(verb: str, source: Any, rename: Rule, *, sharded: bool = False) -> Given:
    """Reads names, and no tensor's bytes, of what was ``opened``; but for a checkpoint in pieces, whose
    tensors are put together unless they are for a ``sharded`` model.

    Raises ValueError for a file that is damaged, TypeError for what is no source.
    """
    if isinstance(source, Checkpoint):
        given = _of_file(verb, source, sharded)
    elif isinstance(source, nn.Module):
        given = Given(state_of(source, keep_vars=False), [], {}, [], False)
    elif _is_state_dict(source):
        given = Given(_copied(source), [], {}, [], False)
    else:
        given = Given(dict(table_of(source, buffers=True, remove_duplicate=False)), [], {}, [], False)
        if isinstance(source, Mapping):
            others = {n: v for n, v in source.items() if isinstance(n, str) and not isinstance(v, Tensor)}
            given = given._replace(others=others)
    if rename is None:
        return given
    names = renamed(list(given.values), rename, verb=verb)
    others = dict(zip(renamed(list(given.others), rename, verb=verb), given.others.values(), strict=True))
    new = dict(zip(given.values, names, strict=True))
    strides = {new[name]: stride for name, stride in given.strides.items() if name in new}
    ties = [tie for tie in (_renamed_tie(tie, new) for tie in given.ties) if tie is not None]
    values = dict(zip(names, given.values.values(), strict=True))
    repeats = frozenset(new[name] for name in given.repeats)
    pieces = {new[name]: stored for name, stored in given.pieces.items()}
    return given._replace(
        values=values, ties=ties, strides=strides, repeats=repeats, others=others, pieces=pieces
    )


def state_of(module: nn.Module, *, keep_vars: bool) -> Any:
    """The module's state dict, natively where it has no ``state_dict`` of its own."""
    state = _C.state_dict(module, None, "", keep_vars, True)
    return module.state_dict(keep_vars=keep_vars) if state is None else state


def _is_state_dict(source: Any) -> TypeGuard[Mapping[str, Any]]:
    """A module's state whole, as its own loading code takes it, where one can tell it from other mappings.

    ``_metadata`` says that a module made it; then its modules may have put anything in it (a quantized layer
    its dtype).
    """
    return isinstance(source, Mapping) and all(
        isinstance(name, str)
        and (isinstance(value, Tensor) or hasattr(source, "_metadata") or name.endswith("_extra_state"))
        for name, value in source.items()
    )


def _copied(source: Mapping[str, Any]) -> Any:
    copied: Any = source.copy() if hasattr(source, "_metadata") else dict(source)  # type: ignore[attr-defined]
    if hasattr(source, "_metadata"):
        copied._metadata = source._metadata
    return copied


def _renamed_tie(tie: Tie, new: Mapping[str, str]) -> Tie | None:
    if any(name not in new for name in tie.names):
        return None
    subgroups = tuple(sub for sub in (_renamed_tie(sub, new) for sub in tie.subgroups) if sub is not None)
    return Tie(tuple(new[name] for name in tie.names), tie.kind, tie.exact, subgroups, tie.layouts)


def shaped(source: DistributedCheckpoint, name: str) -> Tensor:
    """A tensor of the shape and dtype of the whole, with memory for one element."""
    info = source.tensor_info(name)
    return torch.zeros((), dtype=info.dtype, device="cpu").expand(info.shape)


def read_wholes(
    given: Given, source: DistributedCheckpoint, wanted: Mapping[str, Any], tied: Collection[str]
) -> Given:
    """Puts values together that only stand for what is in pieces, but for those of DTensors without ties."""
    kind = dtensor_type()
    kept = {}
    for name, stored in given.pieces.items():
        target = wanted.get(name)
        if target is None or (name not in tied and kind is not None and isinstance(target, kind)):
            kept[name] = stored
        else:
            given.values[name] = source[stored]
    return given._replace(pieces=kept)


def _of_file(verb: str, source: Checkpoint, sharded: bool) -> Given:
    values: dict[str, Any]
    pieces: dict[str, str] = {}
    if sharded and isinstance(source, DistributedCheckpoint):
        values = OrderedDict((name, shaped(source, name)) for name in source)
        pieces = {name: name for name in values}
    else:
        values = OrderedDict(source.table())
    values |= {name: value for name, value in source.extras.items() if _is_extra_state(name)}
    try:
        ties = ties_from_text(source.metadata.get(TIES_KEY, "[]"))
        strides = json.loads(source.metadata.get(STRIDES_KEY, "{}"))
        for name, stride in strides.items():
            if not isinstance(stride, list) or len(stride) != values[name].dim():
                raise ValueError(f"strides {stride!r} of {name!r}")
            if not all(type(step) is int for step in stride):
                raise ValueError(f"strides {stride!r} of {name!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{verb}: the metadata of {str(source.path)!r} is damaged: {error!r}") from None
    if "" in source._versions:
        values._metadata = source._versions[""]  # type: ignore[attr-defined]
    repeats = frozenset(source.aliases())
    return Given(values, ties, strides, source.mapped_files(), True, repeats, source.extras, {}, pieces)


def without_repeats(given: Given, wanted: Mapping[str, Any]) -> None:
    """Takes out names that the file only repeats: the model may lack them."""
    for name in given.repeats:
        if name not in wanted:
            given.values.pop(name, None)
    for group in (group for tie in given.ties for group in tie.classes("storage")):
        for name in group[1:]:
            if name not in wanted:
                given.values.pop(name, None)


def add_beside(given: Given, wanted: Mapping[str, Any]) -> None:
    """Adds to the values what else of the model's state the file holds: a quantized layer's dtype and tuple.

    A file lists the entries of a tuple each under a name of its own; they become the tuple again.
    """
    values, beside = given.values, given.beside
    for name, value in wanted.items():
        if name in values or isinstance(value, Tensor):
            continue
        if name in beside:
            values[name] = beside[name]
        elif isinstance(value, (tuple, list)):
            entries = [f"{name}.{i}" for i in range(len(value))]
            if all(entry in values or entry in beside for entry in entries):
                values[name] = type(value)(values.pop(e) if e in values else beside[e] for e in entries)
