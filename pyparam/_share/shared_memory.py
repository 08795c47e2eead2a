"""Puts tensors that have their own memory back into one buffer, at the offsets a Tie recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.extent import require_extent
from pyparam._share.ties import ties_of
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import Layout

Member = tuple[str, Tensor, Layout | None]


class Worth(IntEnum):
    """What a name's values are worth to those that it shares memory with."""

    NONE = 0
    """It has none: it is on the meta device."""
    FRESH = 1
    """Memory that nothing was written to."""
    HELD = 2
    """What it held before."""
    WRITTEN = 3
    """Given on purpose."""


def share_memory(members: Sequence[Member], worths: Sequence[Worth]) -> Callable[[], list[Tensor]]:
    """Checks that the members can lie where their layouts say, and returns what puts them there.

    Raises ValueError, by name, where they cannot. What is returned gives the members' tensors: the objects
    stay and their data become views of one buffer; only where that cannot be (one is on the meta device and
    others are not, a conjugate bit was lost) is an object replaced. Values come from the member that is worth
    most, of several the first, then from the next. Members that were written must agree where they overlap.
    """
    kept = [tensor for _, tensor, _ in members]
    if len(members) < 2:
        return lambda: kept
    layouts = _layouts_now(members)
    if _already(members, layouts):
        return lambda: kept
    for name, tensor, _ in members:
        require_extent(f"retie_: {name!r}", tensor)
    devices = {tensor.device for _, tensor, _ in members if not tensor.is_meta}
    if len(devices) > 1:
        raise ValueError(
            f"retie_: {_names(members)} shared memory and are on different devices: {_listed(devices)}"
        )
    device = devices.pop() if devices else torch.device("meta")
    shift = _shift(layouts)
    if shift is None:
        raise ValueError(
            f"retie_: {_names(members)} shared memory at offsets that their dtypes cannot be aligned to"
        )

    def filled() -> list[Tensor]:
        """Views of a new buffer, with the values."""
        end = max(layout.offset + _extent(layout) for layout in layouts)
        with torch.no_grad():
            buffer = torch.empty(shift + end, dtype=torch.uint8, device=device)
            views = [_view(buffer, layout, shift) for layout in layouts]
            # From the last of those that are worth least to the first of those that are worth most.
            for i in sorted(range(len(kept)), key=lambda i: (worths[i], -i)):
                if not kept[i].is_meta:
                    write_over(views[i], kept[i].detach())
        return views

    written = [i for i, worth in enumerate(worths) if worth is Worth.WRITTEN]
    # One may lose values too: where elements of it share a place, and were given several.
    doubtful = len(written) > 1 or any(_folds(layouts[i].shape, layouts[i].stride) for i in written)
    ready = filled() if doubtful else []
    for i in written if ready else ():
        if not same_values(ready[i], kept[i].detach()):
            raise ValueError(
                f"retie_: {_names([members[i] for i in written])} share memory, and were given values that "
                f"differ where they do: {members[i][0]!r} would lose some of its own"
            )

    def share() -> list[Tensor]:
        views = ready or filled()
        with torch.no_grad():
            return [_renew(tensor, view) for tensor, view in zip(kept, views, strict=True)]

    return share


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two dense tensors of one shape and dtype have the same bits."""
    if a.is_meta or b.is_meta or a.data_ptr() == b.data_ptr():
        return True
    # Of one element, torch calls any stride contiguous, and views no bytes of it.
    flat = [
        t.detach().resolve_conj().resolve_neg().contiguous().as_strided((t.numel(),), (1,)).view(torch.uint8)
        for t in (a, b)
    ]
    return torch.equal(flat[0], flat[1].to(flat[0].device))


def _renew(tensor: Tensor, view: Tensor) -> Tensor:
    if torch._has_compatible_shallow_copy_type(tensor, view):
        tensor.data = view
        return tensor
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(view, tensor.requires_grad)
    return view.requires_grad_(tensor.requires_grad)


def _names(members: Sequence[Member]) -> str:
    names = [repr(name) for name, _, _ in members]
    return ", ".join(names[:-1]) + " and " + names[-1]


def _listed(values: set[torch.device]) -> str:
    return ", ".join(sorted(str(value) for value in values))


def _layouts_now(members: Sequence[Member]) -> list[Layout]:
    """The recorded layouts, in the dtype that the tensors have now."""
    layouts: list[Layout] = []
    recorded = {layout.dtype for _, _, layout in members if layout is not None}
    now = {tensor.dtype for _, tensor, _ in members}
    one_dtype = len(recorded) == len(now) == 1
    for name, tensor, layout in members:
        if layout is None:
            raise ValueError(
                f"retie_: {name!r} shared memory under a layout that cannot be made again ({tensor.layout}, "
                f"{type(tensor).__name__}); tie the object itself with tie_"
            )
        if is_lazy(tensor):
            raise ValueError(
                f"retie_: {name!r} is not initialised yet and has no shape; run a forward pass first"
            )
        if tensor.layout != torch.strided:
            raise ValueError(
                f"retie_: {name!r} has layout {tensor.layout}, expected torch.strided, as recorded"
            )
        if tuple(tensor.shape) != layout.shape:
            raise ValueError(
                f"retie_: {name!r} has shape {list(tensor.shape)}, expected {list(layout.shape)}, as recorded"
            )
        if tensor.dtype != layout.dtype:
            if not one_dtype:
                raise ValueError(
                    f"retie_: {name!r} has dtype {tensor.dtype}, expected {layout.dtype}, as recorded; a "
                    "change of dtype can be followed only where all names that share memory have one dtype, "
                    "before and after"
                )
            offset = layout.offset // layout.dtype.itemsize * tensor.dtype.itemsize
            layout = layout._replace(dtype=tensor.dtype, offset=offset)
            if not tensor.dtype.is_complex:
                layout = layout._replace(conj=False)
        layouts.append(layout)
    return layouts


def _already(members: Sequence[Member], layouts: Sequence[Layout]) -> bool:
    """Whether the tensors share memory as recorded now."""
    found = ties_of(ParamTable([str(i) for i in range(len(members))], [tensor for _, tensor, _ in members]))
    return len(found) == 1 and len(found[0].names) == len(members) and list(found[0].layouts) == list(layouts)


def _extent(layout: Layout) -> int:
    """Bytes from the first element of a layout to the end of its last."""
    last = sum((size - 1) * stride for size, stride in zip(layout.shape, layout.stride, strict=True))
    return (last + 1) * layout.dtype.itemsize


def conflict(layouts: Sequence[Layout], values: Sequence[Tensor]) -> int | None:
    """Of values written one after the other where the layouts say, the first that does not stay whole."""
    shift = _shift(layouts)
    if shift is None:
        return None
    end = max(layout.offset + _extent(layout) for layout in layouts)
    buffer = torch.zeros(shift + end, dtype=torch.uint8, device="cpu")
    views = [_view(buffer, layout, shift) for layout in layouts]
    for view, value in zip(views, values, strict=True):
        write_over(view, value.detach())
    for i, (view, value) in enumerate(zip(views, values, strict=True)):
        if not same_values(view, value.detach().to(view.device, view.dtype)):
            return i
    return None


def _shift(layouts: Sequence[Layout]) -> int | None:
    """Where in an aligned buffer the shared memory must begin for every element to be aligned."""
    widest = max(layout.dtype.itemsize for layout in layouts)
    for shift in range(widest):
        if all((shift + layout.offset) % layout.dtype.itemsize == 0 for layout in layouts):
            return shift
    return None


def _view(buffer: Tensor, layout: Layout, shift: int) -> Tensor:
    begin = shift + layout.offset
    flat = buffer[begin : begin + _extent(layout)].view(layout.dtype)
    view = flat.as_strided(layout.shape, layout.stride, flat.storage_offset())
    if layout.conj:
        view = view.conj()
    return torch._neg_view(view) if layout.neg else view


_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements may lie in one place, so that ``copy_`` refuses to write."""
    if tensor.layout != torch.strided or tensor.is_contiguous():
        return False
    return _folds(tensor.shape, tensor.stride())


def _folds(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements so laid out may share places."""
    reach = 0
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def write_over(view: Tensor, value: Tensor) -> None:
    """``view.copy_(value)``, also where elements of ``view`` share a place: there the last to be written
    stays."""
    if not overlaps_itself(view):
        view.copy_(value)
        return
    last = sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
    with torch.no_grad():
        # as_strided keeps the conjugate and negative bits, so that writing through it applies them.
        flat = view.detach().as_strided((last + 1,), (1,), view.storage_offset())
        index = torch.arange(last + 1, device=view.device).as_strided(view.shape, view.stride())
        given = value.detach().to(view.device, view.dtype).reshape(-1)
        if not flat.is_complex() and not flat.is_neg():
            # As integers, for which torch writes to places whatever dtype it is.
            word = _WORDS[flat.element_size()]
            flat, given = flat.view(word), given.resolve_neg().view(word)
        flat[index.reshape(-1)] = given


def is_held(view: Tensor, value: Tensor) -> bool:
    """Whether ``write_over`` would give ``view`` all of ``value``: elements that share a place get one."""
    if not overlaps_itself(view):
        return True
    made = torch.empty(
        1 + sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True)),
        dtype=view.dtype,
        device=view.device,
    ).as_strided(view.shape, view.stride())
    write_over(made, value)
    return same_values(made, value.detach().to(view.device, view.dtype))
