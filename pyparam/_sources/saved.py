"""What of a source a checkpoint would hold, and whether it is one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyparam._base.native import _C
from pyparam._base.words import a_kind, a_name
from pyparam._sources import checkpoint, nested, path, script, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.inert import Attributes, Kept
from pyparam._sources.programs import Program
from pyparam._sources.table import ParamTable
from pyparam._sources.unpickle import Reference

__all__ = ["Saved", "is_on_disk", "saved", "saved_table"]

_PLAIN = {
    bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size,
    PurePosixPath, PureWindowsPath, date, datetime, timedelta,
}  # fmt: skip


class Saved(NamedTuple):
    """What a checkpoint of a source would hold."""

    table: ParamTable
    """The tensors."""

    values: dict[str, Any]
    """Plain values that stand beside them (numbers, text, dtypes, and lists and dicts of these), by name."""

    unseen: dict[str, str]
    """What else there is, which nothing here looks into: name to what it is."""


def saved(source: Any, *, values: bool = True) -> Saved:
    """What ``state_dict()`` of a module lists, and of any other source all that it has.

    So a model and its checkpoint have the same names, also where hooks or methods of the model's own choose
    them: parameters and persistent buffers, tied ones under each of their names. What a module saves that is
    no tensor (extra state, the packed parameters of quantized modules) is taken apart as a checkpoint is. A
    table is taken as it is. With ``values=False`` the table may list stand-ins, as that of ``table_of``.
    """
    if isinstance(source, nn.Module) and not script.accepts(source):
        return _of_module(source)
    if path.accepts(source):
        source = path.open(source)
    if isinstance(source, Checkpoint) and not isinstance(source, Program):
        return _with_others(table_of(source, values=values), source.extras)
    if isinstance(source, Mapping) and not checkpoint.accepts(source):
        others: dict[str, Any] = {}
        table = table_of(source)
        if not all(isinstance(value, Tensor) for value in source.values()):
            nested.flatten(source, others.__setitem__)
        return _with_others(table, others)
    return Saved(_walked(source), {}, {})


def saved_table(source: Any) -> ParamTable:
    """The tensors of :func:`saved` alone."""
    return saved(source).table


def _walked(source: Any) -> ParamTable:
    """The tensors that a walk finds of what ``state_dict()`` lists by default; buffers after parameters."""
    table = table_of(source, buffers=True, remove_duplicate=False)
    if table is source or table._owners is None:
        return table
    if len(table) == len(table_of(source, remove_duplicate=False)):
        return table  # no buffers
    kept = [
        i
        for i, (owner, attribute) in enumerate(zip(table.owners, table.attributes, strict=True))
        if attribute not in getattr(owner, "_non_persistent_buffers_set", ())
    ]
    return table if len(kept) == len(table) else table._take(kept)


def _of_module(model: nn.Module) -> Saved:
    walked = _walked(model)
    if any("_fsdp_wrapped_module." in name or name.endswith("_flat_param") for name in walked.names):
        return Saved(walked, {}, {})  # gathering them is up to who asks
    # Not detached yet: of a DTensor that is Python code, and most models need no more of it than the names.
    state = _C.state_dict(model, None, "", True, True)
    if state is None:  # a method of the model's own
        state = model.state_dict()
    if not isinstance(state, Mapping):
        kind = type(state).__name__
        return Saved(walked, {}, {"state_dict()": f"the model's own state_dict gives {a_name(kind)}"})
    if state.keys() == set(walked.names) and all(isinstance(value, Tensor) for value in state.values()):
        return Saved(walked, {}, {})
    others: dict[str, Any] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in nested.flatten(state, others.__setitem__).items():
        if tensor.requires_grad:
            tensor = tensor.detach()
        if tensor.is_quantized:
            _take_apart(name, tensor, found, others)
        else:
            found[name] = tensor
    return _with_others(ParamTable(list(found), list(found.values())), others)


def _take_apart(name: str, tensor: Tensor, found: dict[str, Tensor], others: dict[str, Any]) -> None:
    """A quantized tensor, which a quantized module packs away, as its integers and its scales."""
    found[f"{name}.int_repr"] = tensor.int_repr()
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        others[f"{name}.scale"] = tensor.q_scale()
        others[f"{name}.zero_point"] = tensor.q_zero_point()
    else:
        found[f"{name}.scales"] = tensor.q_per_channel_scales()
        found[f"{name}.zero_points"] = tensor.q_per_channel_zero_points()
        others[f"{name}.axis"] = tensor.q_per_channel_axis()


def _with_others(table: ParamTable, others: Mapping[str, Any]) -> Saved:
    values: dict[str, Any] = {}
    unseen: dict[str, str] = {}
    for name, value in _unfolded(others):
        try:
            values[name] = _Plain().form(value)
        except (_NotPlainError, TypeError):  # a key or an item that has no hash as plain data
            unseen[name] = a_kind(value)
    return Saved(table, values, unseen)


_MOST_UNFOLDED = 100_000


def _unfolded(others: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of dicts under dotted names, as formats have them that keep no dicts."""
    left = [_MOST_UNFOLDED]  # dicts may share dicts: what is more stays whole

    def below(name: str, value: Any, deepest: int) -> Iterator[tuple[str, Any]]:
        left[0] -= 1
        plain = type(value) in (dict, OrderedDict) and all(type(key) in (str, int) for key in value)
        if not plain or not value or not deepest or left[0] < len(value):
            yield name, value
            return
        for key, inner in value.items():
            yield from below(f"{name}.{key}", inner, deepest - 1)

    for name, value in others.items():
        yield from below(name, value, 32)


class _NotPlainError(Exception):
    pass


class _Plain:
    """Makes values that are the same exactly where ``==`` says so, by no code of their own."""

    def __init__(self) -> None:
        # Lists that share lists unfold; what is this large is settled by nobody's ``==``.
        self._left = 200_000

    def form(self, value: Any, deepest: int = 32) -> Any:
        """Plain values as they are; objects of which class and state are known as these.

        Raises _NotPlainError.
        """
        self._left -= 1
        kind = type(value)
        if kind in _PLAIN:
            return value
        if deepest == 0 or self._left < 0:
            raise _NotPlainError

        def each(values: Any) -> list[Any]:
            return [self.form(item, deepest - 1) for item in values]

        if kind in (list, tuple, set, frozenset):
            return kind(each(value))
        if isinstance(value, Mapping) and (
            kind is Attributes or kind.__module__ in ("builtins", "collections")
        ):
            return dict(zip(each(value), each(value.values()), strict=True))
        if isinstance(value, Kept):
            return str(value.kind), *each((value.arguments, value.state, value.entries))
        if isinstance(value, Reference):
            return str(value)
        if kind.__module__ == "numpy":
            return self._of_numpy(value)
        raise _NotPlainError

    def _of_numpy(self, value: Any) -> Any:
        kind = getattr(getattr(value, "dtype", None), "kind", "O")
        if kind not in "biufcSU":
            raise _NotPlainError
        if type(value).__name__ != "ndarray":
            return value.item()
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        return f"numpy {value.dtype} {list(value.shape)}", digest


def is_on_disk(source: object) -> bool:
    """Whether the tensors lie in mapped files, whose pages can be dropped once they are read."""
    return path.accepts(source) or checkpoint.accepts(source)
