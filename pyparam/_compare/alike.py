"""What a pair that differs may still be: one side rounded, transposed, reshaped, or close to the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyparam._base.words import dtype_name, shape_text
from pyparam._sources.stand_in import Values

if TYPE_CHECKING:
    from pyparam._compare.comparison import Comparison

# Elements that are converted at once: what this costs in memory.
_PIECE = 1 << 22
_DIMENSIONS = 5
_SAMPLE = 4096


def recognised(found: Comparison, a: Values, b: Values) -> tuple[dict[str, str], dict[str, str]]:
    """What is recognised of pairs that differ, by name; and of those the ones that are casts."""
    casts = {}
    for name, dtypes in found.dtype_changed.items():
        if name in found and (words := _cast(a[name], b[name], *dtypes)):
            casts[name] = words
    told = dict(casts)
    for name in found.shape_changed:
        if may_move(a.layout(name), b.layout(name)) and (words := moved(a[name], b[name])):
            told[name] = words
    # What lies on a device is not waited for.
    for name in found._names_of(_may_be_transposed(found)) if found.is_read else ():
        if name not in told and same(a[name].t(), b[name]):
            told[name] = "a transposed"
    return told, casts


def _may_be_transposed(found: Comparison) -> Tensor:
    """Rows of square matrices that differ, but for those that differ in their first element, which stays
    where it is: of two checkpoints of one training run nearly all do, and no tensor is made of them."""
    ends = found._ends
    two = ends.diff(prepend=ends.new_zeros(1)) == 2
    last = (ends - 1).clamp(min=1)  # of no other row where there are two
    square = torch.zeros_like(two)
    if len(found._sizes) > 1:
        square = two & (found._sizes[last] == found._sizes[last - 1])
    changed = found._changed()
    return changed[square[changed] & (found.first[changed] != 0)]


def _cast(a: Tensor, b: Tensor, one: torch.dtype, other: torch.dtype) -> str:
    return cast_words(one, other, lambda: rounds_to(a, b), lambda: rounds_to(b, a))


def cast_words(
    one: torch.dtype, other: torch.dtype, forth: Callable[[], bool], back: Callable[[], bool]
) -> str:
    """What of two dtypes is the other rounded; ``forth`` says whether ``a`` rounds to ``b``, ``back`` whether
    ``b`` to ``a``. Empty where neither is."""
    wider = one.is_floating_point and other.is_floating_point and one.itemsize < other.itemsize
    if wider:
        # Exact one way; the rounding was the other way round where b has more bits than a can hold.
        if forth():
            return f"a as {dtype_name(other)}, exactly"
        return f"b rounded to {dtype_name(one)}" if back() else ""
    if forth():
        return f"a rounded to {dtype_name(other)}"
    return f"b rounded to {dtype_name(one)}" if back() else ""


def rounds_to(a: Tensor, b: Tensor) -> bool:
    """Whether ``b`` is ``a`` rounded to its dtype."""
    return all(_same_bits(x.to(b.dtype), y) for x, y in pieces(a, b))


def pieces(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both in pieces of the same elements, as contiguous vectors on one device."""
    a, b = a.detach(), b.detach()
    if a.is_contiguous() and b.is_contiguous() and a.dim():
        a, b = a.view(-1), b.view(-1)
    rows = a.numel() // max(1, len(a)) if a.dim() else 1
    step = max(1, _PIECE // max(1, rows))
    for begin in range(0, len(a) if a.dim() else 1, step):
        x, y = (t[begin : begin + step] if t.dim() else t for t in (a, b))
        yield x.reshape(-1), y.reshape(-1).to(x.device)


def _same_bits(x: Tensor, y: Tensor) -> bool:
    if x.dtype != y.dtype:
        return False
    if x.is_complex():
        x, y = torch.view_as_real(x.resolve_conj()), torch.view_as_real(y.resolve_conj())
    x, y = x.resolve_neg().contiguous(), y.resolve_neg().contiguous()
    if torch.equal(x.view(torch.uint8), y.view(torch.uint8)):
        return True
    if not x.dtype.is_floating_point:
        return False
    # Conversions keep no NaN's payload.
    if x.dtype.itemsize == 1:
        x, y = x.float(), y.float()
    return bool(((x == y) | (x.isnan() & y.isnan())).all())


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one dtype and shape hold the same values, NaNs too; the start decides first."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.numel() > _SAMPLE:
        # A few values of the first row: most pairs end here, with a few pages of a file read.
        x, y = a.detach(), b.detach()
        while x.dim() > 1:
            x, y = x[0], y[0]
        x, y = x[:64], y[:64].to(a.device)
        if not _same_bits(x, y):
            return False
    return all(_same_bits(x, y) for x, y in pieces(a, b))


def may_move(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.numel() == b.numel()


def moved(a: Tensor, b: Tensor) -> str:
    """Whether b is a with its dimensions in another order, or the same elements under another shape."""
    if a.dim() == b.dim() and 2 <= a.dim() <= _DIMENSIONS:
        for order in itertools.permutations(range(a.dim())):
            # Equal shapes are what a row of figures is for.
            if [a.shape[i] for i in order] == list(b.shape) and same(a.permute(order), b):
                return "a transposed" if a.dim() == 2 else f"a permuted by {list(order)}"
    if same(a.detach().reshape(b.shape), b):
        return f"a reshaped to {shape_text(tuple(b.shape))}"
    return ""


def within(found: Comparison, a: Values, b: Values, atol: float, rtol: float) -> dict[str, str]:
    """Of the pairs of one dtype that differ, those of which ``torch.allclose`` is true."""
    words = within_words(atol, rtol)
    return {
        name: words
        for name in found.changed()
        if name in found and name not in found.dtype_changed and is_close(a[name], b[name], atol, rtol)
    }


def within_words(atol: float, rtol: float) -> str:
    return f"within atol {atol:g} and rtol {rtol:g}"


def is_close(a: Tensor, b: Tensor, atol: float, rtol: float) -> bool:
    """``torch.allclose`` of two tensors of one dtype."""
    for x, y in pieces(a, b):
        if x.dtype.is_floating_point and x.dtype.itemsize < 4:
            x, y = x.float(), y.float()
        elif x.dtype == torch.bool:
            x, y = x.to(torch.uint8), y.to(torch.uint8)
        if not torch.allclose(x, y, rtol=rtol, atol=atol):
            return False
    return True
