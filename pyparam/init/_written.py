"""Which parameters nothing has written to since they were given memory, and how we can know."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from pyparam._base.extent import require_shape
from pyparam._base.modes import lasting, require_fake, require_memory, require_untransformed
from pyparam._base.native import _C
from pyparam._parts.parts import has_parts, split
from pyparam._parts.place import dtensor_type
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam.init._owners import Owners, kind_of
from pyparam.init._parts import held

# A NaN with a payload no arithmetic makes by itself, by element size; anything drawn, loaded or computed from
# good numbers differs. "e5 0d 1e" are its last bytes where there is room.
_MARKS: dict[torch.dtype, tuple[torch.dtype, int]] = {
    torch.float64: (torch.int64, 0x7FF8_0000_00E5_0D1E),
    torch.float32: (torch.int32, 0x7FE5_0D1E),
    torch.float16: (torch.int16, 0x7EE5),
    torch.bfloat16: (torch.int16, 0x7FE5),
    torch.complex64: (torch.int32, 0x7FE5_0D1E),
    torch.complex128: (torch.int64, 0x7FF8_0000_00E5_0D1E),
}

# What memory that was never written to looks like: a share of subnormal numbers (pointers and small integers,
# read as floats), or numbers beyond anything a model has.
STALE_SUBNORMAL = 0.01
STALE_HUGE = 1e10

# Modules that to_empty of this module gave memory to.
_MARKED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Uninitialized(list[str]):
    """Names of unwritten parameters;

    ``reasons`` says of each how we know, ``certain`` lists those beyond doubt.
    """

    def __init__(self, reasons: dict[str, str], certain: list[str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons
        self.certain = certain

    def __repr__(self) -> str:
        if not self:
            return "Uninitialized: none"
        return "\n".join(
            ["Uninitialized:", *(f"  {name}: {reason}" for name, reason in self.reasons.items())]
        )


def to_empty(model: nn.Module, *, device: torch.device | str | None, recurse: bool = True) -> nn.Module:
    """``model.to_empty`` that marks the memory, so that :func:`uninitialized` knows for certain.

    Every element of every floating-point parameter and buffer gets one NaN with a payload of its own.

    Args:
        model: whose parameters and buffers get new memory, mostly from the meta device.
        device: where; None: where they are.
        recurse: whether the modules in it, too.

    Returns:
        The model.

    Raises:
        TypeError: no module; a parameter that is lazy or fake.
        ValueError: a device that is none.
    """
    require_untransformed("to_empty")
    if not isinstance(model, nn.Module):
        raise TypeError(f"to_empty: expected an nn.Module, got {type(model).__name__}")
    try:
        device = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"to_empty: no device {device!r}: {str(error).splitlines()[0]}") from None
    for name, tensor in table_of(model, buffers=True):
        if nn.parameter.is_lazy(tensor):
            require_shape(f"to_empty: {name!r}", tensor)
    require_fake("to_empty", table_of(model, buffers=True))
    with lasting():
        model.to_empty(device=device, recurse=recurse)
    modules = model.modules() if recurse else [model]
    with torch.no_grad():
        for module in modules:
            _MARKED.add(module)
            for parameter in (*module._parameters.values(), *module._buffers.values()):
                if parameter is not None and not parameter.is_meta and _has_bits(held(parameter)):
                    _bits(held(parameter)).fill_(_MARKS[parameter.dtype][1])
                    torch._C._increment_version([parameter])
    return model


def _has_bits(parameter: Tensor) -> bool:
    """Whether the mark can be written to a tensor, and looked for in it: in plain memory of its own."""
    return (
        parameter.dtype in _MARKS
        and parameter.layout == torch.strided
        and not parameter.is_nested
        and type(parameter).__torch_dispatch__ is Tensor.__torch_dispatch__
    )


def _bits(parameter: Tensor) -> Tensor:
    """The words in memory, whatever view conjugates or negates them."""
    parameter = parameter.conj() if parameter.is_conj() else parameter
    parameter = torch._neg_view(parameter) if parameter.is_neg() else parameter
    real = torch.view_as_real(parameter.detach()) if parameter.is_complex() else parameter.detach()
    return real.view(_MARKS[parameter.dtype][0])


def uninitialized(model: Any) -> Uninitialized:
    """The parameters and buffers nothing has written to since they got memory, after ``to_empty`` or a
    partial load.

    How it knows, strongest evidence first:

    - A parameter on the meta device, or of a lazy module that has not run, has no values.
    - :func:`to_empty` of this module marks memory; elements that still hold the mark are unwritten, also
      where only a slice was filled and whichever way the rest was written (``.data``, NumPy, a view).
    - Otherwise PyTorch's version counter: a Parameter nothing has written to in place has version 0.
      ``torch.nn``'s own layers, ``load_state_dict``, ``torch.nn.init``, optimizers and this module all
      write in place.

    When it cannot know: version 0 is also what a Parameter made around finished data has
    (``nn.Parameter(torch.zeros(3))``, ``load_state_dict(assign=True)``, ``copy.deepcopy``, with which
    ``nn.TransformerEncoder`` makes its layers), so such a parameter is listed though it is good; and writes
    through ``.data`` or NumPy leave the version alone. Only what the first two say is in ``.certain``. Of
    integer parameters, which have no NaN, only the version speaks. Buffers mostly are finished data, so of
    them the version counts only where the values are what stale memory looks like too (NaNs, subnormal or
    absurd numbers): memory that happened to hold zeros or plausible numbers is not known to be unwritten. In
    a loaded TorchScript model every parameter was made around finished data, so there the version says
    nothing and is not asked; so was every DTensor, of which each rank looks at its own part, without
    communication.

    Args:
        model: a module, or any other source.

    Returns:
        The names with a reason each: a mapping that is empty, and false, where everything was written.

    Raises:
        TypeError: for what is no source.
    """
    require_memory("uninitialized")
    reasons: dict[str, str] = {}
    certain: list[str] = []
    owners = Owners(model)
    script = isinstance(kind_of(model), str)
    table = table_of(model, buffers=True)
    parameters = len(table_of(model))
    whole = dtensor_type() or ()
    marked, locals = _marked(table)
    for row, (name, parameter, count) in enumerate(zip(table.names, table.tensors, marked, strict=True)):
        reason = _certain_reason(parameter, locals, row, count)
        if reason is not None:
            certain.append(name)
        elif isinstance(parameter, whole):
            continue
        elif row >= parameters:
            if not script and _untouched(parameter) and looks_stale(parameter):
                reason = "nothing has written to it in place, and its values are what stale memory looks like"
        elif not script and _untouched(parameter) and owners.of(name) not in _MARKED:
            reason = "nothing has written to it in place; a false alarm if it was made around finished data"
        if reason is not None:
            reasons[name] = reason
    return Uninitialized(reasons, certain)


def _marked(table: ParamTable) -> tuple[list[int], ParamTable]:
    """How many words of what is held of each entry are the mark, -1 where that is not known by one pass; and
    what is held of them."""
    locals = ParamTable.from_native(split(table)[0]) if has_parts(table) else table
    words = [
        (dtype, dtype.itemsize // (2 if dtype.is_complex else 1), mark) for dtype, (_, mark) in _MARKS.items()
    ]
    found: list[int] = _C.count_words(locals._native, words).tolist()
    return found, locals


def _certain_reason(parameter: Tensor, locals: ParamTable, row: int, marked: int) -> str | None:
    if nn.parameter.is_lazy(parameter):
        return "its lazy module has not run, so it has no shape"
    if marked == 0:
        return None
    if parameter.is_meta:
        return "it is on the meta device"
    parameter = locals[row]
    if marked < 0:
        if not _has_bits(parameter) or parameter.numel() == 0:
            return None
        gone = _C.extent_error(parameter)
        if gone is not None:
            return f"it {gone}"
        marked = int((_bits(parameter) == _MARKS[parameter.dtype][1]).sum())
    if marked == 0:
        return None
    total = parameter.numel() * (2 if parameter.is_complex() else 1)
    return f"{marked:,} of {total:,} elements hold the mark of to_empty"


def looks_stale(tensor: Tensor) -> bool:
    """Whether a floating-point tensor's values are what memory holds that was something else before: pointers
    and small integers read as numbers are subnormal, others NaN or beyond anything a model has."""
    tensor = held(tensor)
    if not tensor.is_floating_point() or not _has_bits(tensor) or tensor.numel() == 0:
        return False
    values = tensor.detach().double().abs()
    tiny = torch.finfo(tensor.dtype).smallest_normal
    subnormal = int(((values > 0) & (values < tiny)).sum())
    return bool(
        values.isnan().any()
        or subnormal > STALE_SUBNORMAL * values.numel()
        or values.isfinite().logical_and(values > STALE_HUGE).any()
    )


def _untouched(parameter: Tensor) -> bool:
    return parameter.numel() > 0 and not parameter.is_inference() and parameter._version == 0
