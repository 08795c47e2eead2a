"""Saving shared memory once, with what it takes to share it again after loading."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.extent import require_extent
from pyparam._base.files import replacing, writable
from pyparam._base.modes import require_memory
from pyparam._base.words import a_kind
from pyparam._share.ties import is_wrapper, ties_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import TIES_KEY, Tie, ties_to_text

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
        ValueError: the format has no such dtype, a name is no Unicode text (half a surrogate pair), or a
            metadata key is one of ours.
        ValueError: what stands there is no regular file: a device, a pipe or a directory.
        OSError: the file cannot be written.

    Nothing is left behind, and a file that was there is as it was.
    """
    require_memory("save_file")
    state = _state_of(source)
    for name, value in state.items():
        _check_savable(name, value)
        if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
            raise ValueError(f"save_file: the name {name!r} is no text that the format can hold")
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
        what = f"{a_kind(value)}; save the plain tensor that it stands for (full_tensor() of a DTensor)"
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
