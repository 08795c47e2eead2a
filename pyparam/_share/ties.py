"""Which names of a model share memory: ``ties`` and what it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pyparam._base.native import _C
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import Kind, Layout, Tie


def is_wrapper(tensor: Any) -> bool:
    """Whether a tensor keeps its data in other tensors, as DTensor does."""
    return bool(is_traceable_wrapper_subclass(tensor))


def _layout(tensor: Tensor, offset: int) -> Layout | None:
    if is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        return None
    shape, stride = tuple(tensor.shape), tensor.stride()
    if is_wrapper(tensor) or not all(type(n) is int for n in (*shape, *stride)):
        return None
    return Layout(offset, shape, stride, tensor.dtype, tensor.is_conj(), tensor.is_neg())


def _inner(tensor: Any) -> list[Tensor]:
    """The tensors whose memory a wrapper's is, through any number of wrappers."""
    if not is_wrapper(tensor):
        return [tensor]
    attributes, _ = tensor.__tensor_flatten__()
    held = (getattr(tensor, attribute) for attribute in attributes)
    return [inner for part in held if isinstance(part, Tensor) for inner in _inner(part)]


def tie_sets(table: ParamTable) -> _C.TieSets:
    """Which entries of a table share memory, as columns; the native answer behind ``ties``.

    ``.group`` (int64 ``[len(table)]``) has the index of the first entry that an entry shares with, its own
    where it is the first or alone; ``.layout`` (likewise) the first entry that has the very same bytes
    under the same layout, so that entries with ``layout[i] != i`` hold no value that is not there already.
    ``.bytes`` (int64 ``[len(table)]``) has the bytes of an entry that no entry before it has, so that every
    sum over them counts shared memory once; ``.total_bytes`` is the whole.
    """
    apart = table._apart_sets()
    if apart is not None:
        return apart
    native = table._native
    odd = _C.python_tensors(native)
    if not odd:
        return _C.tie_sets(native)
    tensors = table.tensors
    held = []
    for i in odd:
        tensor: Any = tensors[i]
        # Of a DTensor without its protocol, of which there may be tens of thousands.
        local = getattr(tensor, "_local_tensor", None)
        if type(local) is Tensor:
            held.append((i, [local]))
        elif is_wrapper(tensor):
            held.append((i, _inner(tensor)))
    return _C.tie_sets(native, held)


def unique_bytes(source: Any, *, buffers: bool = False) -> int:
    """The bytes that a source's parameters occupy, shared memory counted once.

    A strided view counts for the bytes of its elements, not for the buffer around them. Where a tie is not
    exact the answer is an upper bound.
    """
    return tie_sets(table_of(source, buffers=buffers, remove_duplicate=False, values=False)).total_bytes


def ties(source: Any, *, buffers: bool = False) -> list[Tie]:
    """Finds the names that share memory.

    Looks at bytes, not at objects alone: one Parameter under several names, several Parameters over one
    storage, overlapping slices of one buffer, and storages over the same memory (``from_blob``,
    ``frombuffer``, memory mapped files) are all seen. Strided layouts are compared exactly, so that
    interleaved columns of one buffer are no tie. On CPU and CUDA memory is compared by address, on the meta
    device and others by storage. A tensor without elements is tied to itself alone, as the same object.

    The cost is a walk and a sort: linear memory, some milliseconds for 50,000 parameters.

    Args:
        source: a module, a state dict, a checkpoint's path, or whatever else has parameters.
        buffers: whether a module's buffers count.

    Returns:
        One :class:`Tie` for each set of names that hangs together by common bytes, ordered by first name.

    Raises:
        TypeError: for what is no source.
        FileNotFoundError, ValueError: for a path that is not there, or that cannot be read.

    Examples:
        >>> shared = nn.Linear(8, 8)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared)
        >>> [tie.names for tie in pyparam.ties(net)]
        [('2.weight', '4.weight'), ('2.bias', '4.bias')]
    """
    return ties_of(table_of(source, buffers=buffers, remove_duplicate=False, values=False))


def ties_of(table: ParamTable, sets: _C.TieSets | None = None) -> list[Tie]:
    """``ties`` of a table, whose ``tie_sets`` may be known."""
    known = tie_sets(table) if sets is None else sets
    if known.apart:  # and then a file's tensors need not be made
        return []
    return [_tie(members, not vague) for vague, members in known.members(table._native)]


class _Member(NamedTuple):
    name: str
    tensor: Tensor
    object: int
    """The first member that is the same object."""
    layout: int
    """The first member that has the same bytes under the same layout."""
    offset: int


def _tie(entries: Sequence[tuple[str, Tensor, int, int, int]], exact: bool) -> Tie:
    group = [_Member(*entry) for entry in entries]
    by_layout = _classes(group, "layout")
    if len(by_layout) == 1:
        return _storage(group)
    subgroups = tuple(_storage(members) for members in by_layout if len(members) > 1)
    return _of(group, "overlap", subgroups, exact)


def _storage(members: Sequence[_Member]) -> Tie:
    """A tie of one layout, which may be one object."""
    by_object = _classes(members, "object")
    if len(by_object) == 1:
        return _of(members, "parameter")
    return _of(members, "storage", tuple(_of(same, "parameter") for same in by_object if len(same) > 1))


def _of(members: Sequence[_Member], kind: Kind, subgroups: tuple[Tie, ...] = (), exact: bool = True) -> Tie:
    names = tuple([member.name for member in members])
    if kind == "parameter":
        return Tie(names, kind)
    if kind == "storage":
        layout = _layout(members[0].tensor, members[0].offset)
        return Tie(names, kind, True, subgroups, (layout,) * len(names))
    layouts = tuple([_layout(member.tensor, member.offset) for member in members])
    return Tie(names, kind, exact, subgroups, layouts)


def _classes(members: Sequence[_Member], by: Literal["object", "layout"]) -> list[list[_Member]]:
    classes: dict[int, list[_Member]] = {}
    for member in members:
        classes.setdefault(getattr(member, by), []).append(member)
    return list(classes.values())
