"""Tie, what ``ties`` finds: names that share memory, and how; as a value and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from pyparam._base.words import dtype_name

Kind = Literal["parameter", "storage", "overlap"]


class Layout(NamedTuple):
    """Where one name of a tie lies in the memory that the tie shares."""

    offset: int
    """Bytes from the first byte of the shared memory."""
    shape: tuple[int, ...]
    """The tensor's."""
    stride: tuple[int, ...]
    """The tensor's, in elements."""
    dtype: torch.dtype
    """The tensor's."""
    conj: bool = False
    """Whether it is conjugated lazily."""
    neg: bool = False
    """Whether it is negated lazily."""


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


TIES_KEY = "pyparam.ties"
"""Where a safetensors file's metadata has its ties, as a JSON array."""


def ties_to_text(ties: Iterable[Tie]) -> str:
    """What stands under ``TIES_KEY``."""
    return json.dumps([tie_to_json(tie) for tie in ties], separators=(",", ":"))


def ties_from_text(text: str) -> list[Tie]:
    """What ``ties_to_text`` was given. Raises ValueError for any other text."""
    try:
        ties = json.loads(text)
        if not isinstance(ties, list):
            raise TypeError(f"{type(ties).__name__} stands there")
        return [_tie_from_json(tie) for tie in ties]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a list of ties: {error!r}") from None


def tie_to_json(tie: Tie) -> dict[str, Any]:
    """A tie as plain data."""
    out: dict[str, Any] = {"names": list(tie.names), "kind": tie.kind, "exact": tie.exact}
    if tie.subgroups:
        out["subgroups"] = [tie_to_json(part) for part in tie.subgroups]
    if tie.kind != "parameter" and None not in tie.layouts:
        out["layouts"] = [
            {
                "offset": layout.offset,
                "shape": list(layout.shape),
                "stride": list(layout.stride),
                "dtype": dtype_name(layout.dtype),
                **({"conj": True} if layout.conj else {}),
                **({"neg": True} if layout.neg else {}),
            }
            for layout in tie.layouts
            if layout is not None
        ]
    return out


def _tie_from_json(data: dict[str, Any]) -> Tie:
    if data["kind"] not in ("parameter", "storage", "overlap"):
        raise ValueError(f"unknown kind of tie {data['kind']!r}")
    listed = data["names"]
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(name, str) for name in listed):
        raise ValueError("a tie needs two names or more")
    names = tuple(listed)
    subgroups = tuple(_tie_from_json(part) for part in data.get("subgroups", ()))
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
