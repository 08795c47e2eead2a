"""Which names of a model share memory: ``ties`` and what it answers with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pyparam._native import _C
from pyparam._sources import table_of
from pyparam._table import ParamTable

Kind = Literal["parameter", "storage", "overlap"]


class Layout(NamedTuple):
    """Where one name of a tie lies in the memory that the tie shares."""

    offset: int
    """Bytes from the first byte of the shared memory."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    conj: bool = False
    neg: bool = False


@dataclass(frozen=True)
class Tie:
    """Names that share memory: everything that hangs together by common bytes.

    Two ties are equal where the same names share in the same way; ``layouts``, which ``retie_`` works from,
    does not count.
    """

    names: tuple[str, ...]
    """At least two, in table order."""

    kind: Kind
    """The strongest that holds between all names:

    - ``"parameter"``: one tensor object (one ``Parameter``, or one buffer, under several names);
    - ``"storage"``: several tensor objects over the same bytes, with one dtype, shape and strides;
    - ``"overlap"``: bytes in common, under different layouts: a slice and its whole, a matrix and its
      transpose.
    """

    exact: bool = True
    """False where some name is in the tie because its bounding interval of bytes meets another's and the
    layouts were too large to decide whether their elements do."""

    subgroups: tuple[Tie, ...] = ()
    """The ties of a stronger kind inside this one. An ``"overlap"`` of ``a``, ``b`` and a slice of them has
    the subgroup ``a``, ``b``."""

    layouts: tuple[Layout | None, ...] = field(default=(), compare=False, repr=False)
    """One a name, none at all for one object. None for a tensor without strides: sparse, nested, a wrapper
    such as a DTensor."""

    def classes(self, kind: Kind) -> Iterator[tuple[str, ...]]:
        """Splits ``names`` into those related by ``kind`` or a stronger one; a name alone comes alone."""
        if kind == self.kind or self.kind == "parameter" or kind == "overlap":
            yield self.names
            return
        within = {name: group for tie in self.subgroups for group in tie.classes(kind) for name in group}
        for name in self.names:
            group = within.get(name, (name,))
            if group[0] == name:
                yield group


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


def sharing_of(table: ParamTable) -> _C.Sharing:
    """Which entries of a table share memory, as columns; the native answer behind ``ties``.

    ``.group`` (int64 ``[len(table)]``) has the index of the first entry that an entry shares with, its own
    where it is the first or alone. ``.bytes`` (int64 ``[len(table)]``) has the bytes of a group, counted
    once, at its first entry, and 0 at the others; ``.total_bytes`` is their sum.
    """
    native = table._native
    odd = _C.python_tensors(native)
    if not odd:
        return _C.sharing(native)
    tensors = table.tensors
    held = [(i, _inner(tensors[i])) for i in odd if is_wrapper(tensors[i])]
    return _C.sharing(native, held)


def unique_bytes(source: Any, *, buffers: bool = False) -> int:
    """The bytes that a source's parameters occupy, shared memory counted once.

    A strided view counts for the bytes of its elements, not for the buffer around them. Where a tie is not
    exact the answer is an upper bound.
    """
    return sharing_of(table_of(source, buffers=buffers, remove_duplicate=False)).total_bytes


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

    Example:
        >>> shared = nn.Linear(8, 8)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared)
        >>> [tie.names for tie in pyparam.ties(net)]
        [('2.weight', '4.weight'), ('2.bias', '4.bias')]
    """
    return ties_of(table_of(source, buffers=buffers, remove_duplicate=False))


def ties_of(table: ParamTable) -> list[Tie]:
    """``ties`` of a table."""
    found = sharing_of(table).members(table._native)
    return [_tie(members, not vague) for vague, members in found]


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


def tie_to_json(tie: Tie) -> dict[str, Any]:
    """A tie as plain data; ``tie_from_json`` gives it back."""
    out: dict[str, Any] = {"names": list(tie.names), "kind": tie.kind, "exact": tie.exact}
    if tie.subgroups:
        out["subgroups"] = [tie_to_json(part) for part in tie.subgroups]
    if tie.kind != "parameter" and None not in tie.layouts:
        out["layouts"] = [
            {
                "offset": layout.offset,
                "shape": list(layout.shape),
                "stride": list(layout.stride),
                "dtype": str(layout.dtype).removeprefix("torch."),
                **({"conj": True} if layout.conj else {}),
                **({"neg": True} if layout.neg else {}),
            }
            for layout in tie.layouts
            if layout is not None
        ]
    return out


def tie_from_json(data: dict[str, Any]) -> Tie:
    """What ``tie_to_json`` was given. Raises ValueError, KeyError or TypeError for anything else."""
    if data["kind"] not in ("parameter", "storage", "overlap"):
        raise ValueError(f"unknown kind of tie {data['kind']!r}")
    names = tuple(data["names"])
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise ValueError("a tie needs two names or more")
    subgroups = tuple(tie_from_json(part) for part in data.get("subgroups", ()))
    layouts = tuple(_layout_from_json(layout) for layout in data.get("layouts", ()))
    if len(layouts) not in (0, len(names)):
        raise ValueError(f"{len(layouts)} layouts for {len(names)} names")
    return Tie(names, data["kind"], bool(data["exact"]), subgroups, layouts)


def _layout_from_json(data: dict[str, Any]) -> Layout:
    dtype = getattr(torch, data["dtype"], None)
    shape, stride = tuple(data["shape"]), tuple(data["stride"])
    numbers = (data["offset"], *shape, *stride)
    if not isinstance(dtype, torch.dtype) or len(shape) != len(stride):
        raise ValueError(f"not a layout: {data!r}")
    if not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError(f"not a layout: {data!r}")
    return Layout(data["offset"], shape, stride, dtype, bool(data.get("conj")), bool(data.get("neg")))
