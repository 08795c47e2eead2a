"""Saving shared memory once, and having it shared again after loading."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.extent import require_extent
from pyparam._base.files import replacing, writable
from pyparam._share.keep import keep_ties
from pyparam._share.parts import as_parts
from pyparam._share.shared_memory import overlaps_itself, same_values, write_over
from pyparam._share.tie import retie_
from pyparam._share.ties import is_wrapper, ties, ties_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import TIES_KEY, Tie, ties_from_text, ties_to_text

STRIDES_KEY = "pyparam.strides"

_DTYPES = frozenset(
    getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
) | {
    # Which of the narrow ones it writes depends on the version of safetensors.
    dtype
    for dtype in getattr(safetensors.torch, "_SIZE", ())
    if dtype.itemsize == 1
}


class IncompatibleKeys(NamedTuple):
    """What ``load_file_(strict=False)`` could not pair up, as ``nn.Module.load_state_dict`` gives it."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def with_shared(state: dict[str, Any], shared: Literal["keep", "once"]) -> dict[str, Any]:
    """A state dict as ``state_dict(model, shared=...)`` gives it.

    ``"keep"`` changes nothing. ``"once"`` keeps one name of those that have the same bytes under the same
    layout, the first, and gives names that overlap otherwise memory of their own, so that no two values
    share a byte. The order, what is no tensor, and ``_metadata`` stay.

    Raises:
        ValueError: ``shared`` is something else.
    """
    if shared == "keep":
        return state
    if shared != "once":
        raise ValueError(f"state_dict: shared must be 'keep' or 'once', got {shared!r}")
    return _once(state, _ties_of_state(state))


def _ties_of_state(state: Mapping[str, Any]) -> list[Tie]:
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return ties_of(ParamTable(list(tensors), list(tensors.values())))


def _once(state: dict[str, Any], found: list[Tie]) -> dict[str, Any]:
    once = state.copy()
    if hasattr(state, "_metadata"):
        once._metadata = state._metadata  # type: ignore[attr-defined]
    for tie in found:
        for i, group in enumerate(tie.classes("storage")):
            if i > 0:
                require_extent(f"state_dict: {group[0]!r}", once[group[0]])
                once[group[0]] = once[group[0]].detach().clone()
            for name in group[1:]:
                del once[name]
    return once


def save_file(
    source: Any, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Saves a module's state, or a mapping of tensors, as a safetensors file that remembers its ties.

    Names that have the same bytes under the same layout are written once, under the first name; other
    overlapping names are each written whole, so that any reader finds them. The ties stand in the file's
    metadata, as JSON under ``"pyparam.ties"``, and the strides of what was not contiguous under
    ``"pyparam.strides"``; :func:`load_file_` restores both. The file appears under its name when it is
    complete, or not at all.

    Args:
        source: an ``nn.Module`` (its ``state_dict()``, so hooks run and persistent buffers are in), a
            state dict, or another source of tensors.
        path: the file to write; one that exists is replaced.
        metadata: more text entries for the file's header. ``"format"`` is ``"pt"`` unless given.

    Raises:
        TypeError: a value is no tensor, or no dense tensor with data (meta, sparse, quantized, nested,
            wrapper).
        ValueError: the format has no such dtype, or a metadata key is one of ours.
        ValueError: what stands there is no regular file: a device, a pipe or a directory.
        OSError: the file cannot be written.

    Nothing is left behind, and a file that was there is as it was.
    """
    state = _state_of(source)
    for name, value in state.items():
        _check_savable(name, value)
    header = {"format": "pt", **(metadata or {})}
    for key in (TIES_KEY, STRIDES_KEY):
        if key in header:
            raise ValueError(f"save_file: the metadata key {key!r} is written by save_file itself")
    for key, text in header.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"save_file: metadata must map str to str, got {key!r}: {text!r}")
    path = writable("save_file", path)
    found = _ties_of_state(state)
    once = _once(state, found)
    strides = {name: value.stride() for name, value in once.items() if not value.is_contiguous()}
    if found:
        header[TIES_KEY] = ties_to_text(found)
    if strides:
        header[STRIDES_KEY] = json.dumps(strides, separators=(",", ":"))
    tensors = {name: value.detach().resolve_conj().resolve_neg().contiguous() for name, value in once.items()}
    _write_whole(tensors, path, header)


def _state_of(source: Any) -> dict[str, Any]:
    if isinstance(source, nn.Module):
        return dict(source.state_dict(keep_vars=True))
    if isinstance(source, Mapping):
        return dict(source)
    return dict(table_of(source, remove_duplicate=False))


def _check_savable(name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"save_file: expected names that are str, got {name!r}")
    if not isinstance(value, Tensor):
        raise TypeError(
            f"save_file: {name!r} is {type(value).__name__}; a safetensors file holds tensors only"
        )
    require_extent(f"save_file: {name!r}", value)
    what = None
    if is_lazy(value):
        what = "not initialised yet; run a forward pass first"
    elif is_wrapper(value):
        what = (
            f"a {type(value).__name__}; save the plain tensor that it stands for (full_tensor() of a DTensor)"
        )
    elif value.is_nested:
        what = "nested; save its parts (unbind())"
    elif value.layout != torch.strided:
        what = f"sparse ({value.layout}); save to_dense(), or its indices and values"
    elif value.is_quantized:
        what = "quantized; save int_repr(), scale and zero point"
    elif value.is_meta or type(value).__name__ == "FakeTensor":
        what = "on the meta device and has no data"
    if what is not None:
        raise TypeError(f"save_file: {name!r} is {what}")
    if value.dtype not in _DTYPES:
        hint = "; save view_as_real() of it" if value.dtype.is_complex else ""
        raise ValueError(
            f"save_file: {name!r} has dtype {value.dtype}, which safetensors does not have{hint}"
        )


def _write_whole(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    try:
        with replacing("save_file", path) as partial:
            safetensors.torch.save_file(tensors, partial, metadata=header)
    except safetensors.SafetensorError as error:
        raise OSError(f"save_file: {str(path)!r} could not be written: {error}") from None


def load_file_(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    assign: bool = False,
    device: str | torch.device = "cpu",
) -> IncompatibleKeys:
    """Loads a safetensors file into a module and restores the ties that the file records.

    Any safetensors file will do. A name that is not in it, but that the file or the model ties to one that
    is, gets that one's values.

    Args:
        model: the module to fill.
        path: what :func:`save_file` wrote, or another safetensors file.
        strict: whether names that only one side has are an error.
        assign: makes the file's tensors the model's own, with the file's dtype and strides, where the
            default is to copy values into the model's tensors. For a model on the meta device this must
            be set.
        device: where an assigned tensor shall live.

    Returns:
        ``(missing_keys, unexpected_keys)``; both empty where ``strict``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, names are missing or unexpected, shapes differ, or the file gives
            other values to two names that the model ties.

    Of a DTensor each rank takes its own part, without communication, and it stays placed as it was.

    The model is as it was where this raises.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"load_file_: expected an nn.Module, got {type(model).__name__}")
    values, recorded = _read(Path(path), str(device))
    wanted = model.state_dict(keep_vars=True)
    own = ties(model, buffers=True)
    _check_agreement(own, values, wanted)
    for tie in (*recorded, *own):
        for group in tie.classes("storage"):
            value = next((values[name] for name in group if name in values), None)
            if value is not None:
                values |= {name: value for name in group if name not in values and name in wanted}
    missing = [name for name in wanted if name not in values]
    unexpected = [name for name in values if name not in wanted]
    if strict:
        for names, text in ((missing, "the file lacks"), (unexpected, "the model lacks")):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                raise ValueError(f"load_file_: {text} {', '.join(map(repr, names[:5]))}{more}")
    for name in wanted:
        if name in values:
            _check_fits(name, values[name], wanted[name], assign)
    values = as_parts("load_file_", values, wanted)
    present = [part for tie in recorded if (part := _restrict(tie, wanted)) is not None]
    if not any(is_lazy(wanted[name]) for tie in present for name in tie.names):
        retie_(model, present)  # before the values: it refuses before anything is written
    values = {name: value for name, value in values.items() if name in wanted}
    if not assign:
        for name in [n for n in values if not is_lazy(wanted[n]) and overlaps_itself(wanted[n])]:
            write_over(wanted[name].detach(), values.pop(name))
    with keep_ties(model) if assign else contextlib.nullcontext():
        model.load_state_dict(values, strict=False, assign=assign)
    retie_(model, present)
    return IncompatibleKeys(missing, unexpected)


def _check_agreement(own: list[Tie], values: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> None:
    """Names that the model ties cannot take different values."""
    for tie in own:
        for group in tie.classes("storage"):
            first, *others = [name for name in group if name in values and name in wanted] or [""]
            for name in others:
                a, b = values[first], values[name]
                if a.shape == b.shape and same_values(a, b.to(a.dtype)):
                    continue
                raise ValueError(
                    f"load_file_: the model ties {first!r} and {name!r}, and the file gives them other "
                    "values; untie_ one of them first"
                )


def _read(path: Path, device: str) -> tuple[dict[str, Tensor], list[Tie]]:
    try:
        with safetensors.safe_open(path, framework="pt", device=device) as file:
            header = file.metadata() or {}
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except safetensors.SafetensorError as error:
        raise ValueError(f"load_file_: {str(path)!r} is no whole safetensors file: {error}") from None
    try:
        recorded = ties_from_text(header.get(TIES_KEY, "[]"))
        strides = json.loads(header.get(STRIDES_KEY, "{}"))
        for name, stride in strides.items():
            values[name] = _strided(values[name], stride)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"load_file_: the metadata of {str(path)!r} is damaged: {error!r}") from None
    return values, recorded


def _strided(value: Tensor, stride: list[int]) -> Tensor:
    """The same values in dense memory whose dimensions are ordered as ``stride`` orders them."""
    if len(stride) != value.dim():
        raise ValueError(f"{len(stride)} strides for {value.dim()} dimensions")
    order = sorted(range(value.dim()), key=lambda d: -stride[d])
    return value.permute(order).contiguous().permute([order.index(d) for d in range(value.dim())])


def _check_fits(name: str, value: Tensor, target: Any, assign: bool) -> None:
    if not isinstance(target, Tensor) or is_lazy(target):
        return
    if value.shape != target.shape:
        raise ValueError(
            f"load_file_: {name!r} has shape {list(value.shape)} in the file, expected {list(target.shape)}"
        )
    if target.is_meta and not assign:
        raise ValueError(
            f"load_file_: {name!r} is on the meta device and can take no values; use assign=True"
        )
    if not assign:
        require_extent(f"load_file_: {name!r}", target)


def _restrict(tie: Tie, names: Mapping[str, Any]) -> Tie | None:
    """The tie among the names that are there."""
    kept = [i for i, name in enumerate(tie.names) if name in names]
    if len(kept) < 2:
        return None
    subgroups = tuple(part for sub in tie.subgroups if (part := _restrict(sub, names)) is not None)
    layouts = tuple(tie.layouts[i] for i in kept) if tie.layouts else ()
    own = tuple(tie.names[i] for i in kept)
    if len(subgroups) == 1 and subgroups[0].names == own:
        return subgroups[0]
    return Tie(own, tie.kind, tie.exact, subgroups, layouts)
