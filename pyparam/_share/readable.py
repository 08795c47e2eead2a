"""Entries whose values cannot be read: they cost their row, and the reason is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch.nn.parameter import is_lazy

from pyparam._base.native import _C
from pyparam._base.words import a_kind
from pyparam._parts.place import dtensor_type
from pyparam._share.ties import is_wrapper
from pyparam._sources.stand_in import is_stand_in
from pyparam._sources.table import ParamTable

T = TypeVar("T")

_AT = re.compile(r"parameter ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
REFUSALS = (TypeError, ValueError)


class Read(NamedTuple):
    """What ``read_of`` gives: rows of the table that were read, and the reason of each name that was not."""

    rows: Sequence[int]
    left_out: dict[str, str]


def read_of(table: ParamTable, verb: Callable[[ParamTable], T]) -> tuple[T, Read]:
    """What a bulk verb gives of those entries of a table that it takes.

    Everything is checked before the first value is read, so trying again without what is refused costs
    little. Raises what the verb raises that is about no entry.
    """
    part, read = table, Read(range(len(table)), {})
    while True:
        try:
            return verb(part), read
        except REFUSALS as error:
            refused = refused_by(error, part)
            if not refused:
                raise
            names = table.names
            read = Read([row for row in read.rows if names[row] not in refused], read.left_out | refused)
            part = table._take(read.rows)


def without_frames(error: Exception) -> Exception:
    """The error without the frames that it came through, which hold the tensors, and itself."""
    error.__context__ = None
    return error.with_traceback(None)


def refused_by(error: Exception, table: ParamTable) -> dict[str, str]:
    """The entries that an error of a bulk verb is about, with reasons; empty for another error.

    Together with the one that it names, all others of which it is plain that they cannot be read either.
    """
    name = refused_name(error)
    if name is None or name not in table:
        return {}
    reasons = unreadable_in(table)
    reasons.setdefault(name, _reason(error))
    place = table[name].device
    if place.type not in ("cpu", "meta") and not (place.type == "cuda" and _C.BUILT_FOR_CUDA):
        # No kernels for it here: all that lies there is refused for the same reason.
        alike = [other for other, tensor in table if tensor.device == place]
        reasons = dict.fromkeys(alike, reasons[name]) | reasons
    return reasons


def refused_name(error: Exception) -> str | None:
    """The parameter that an error of a bulk verb is about."""
    found = _AT.search(str(error))
    return None if found is None else str(ast.literal_eval(found[1]))


def _reason(error: Exception) -> str:
    """ "it is sparse" from "measure: parameter 'a' is sparse (layout ...); expected ..."."""
    found = _AT.search(str(error))
    rest = str(error)[found.end() :] if found else f" was refused: {error}"
    return f"it{rest.partition(';')[0]}"


def unreadable_in(table: ParamTable) -> dict[str, str]:
    """The common kinds of tensors that have no values to measure, told without trying."""
    reasons: dict[str, str] = {}
    suspects = table._layout_kinds().odd
    odd = set(table._python_tensors()) if suspects else set()
    sharded = dtensor_type() or ()
    for row in suspects:
        name, tensor = table.names[row], table._tensor(row)
        if is_lazy(tensor):
            reasons[name] = "its lazy module has not run"
        elif tensor.is_meta and not is_stand_in(tensor):
            reasons[name] = "it is on the meta device"
        elif tensor.is_nested:
            reasons[name] = "it is a nested tensor"
        elif tensor.layout != torch.strided:
            reasons[name] = f"it is sparse ({str(tensor.layout).removeprefix('torch.')})"
        elif tensor.is_quantized:
            reasons[name] = "it is quantized"
        elif row in odd and isinstance(tensor, sharded):
            continue  # a whole of which each rank has a part
        elif row in odd and is_wrapper(tensor):
            reasons[name] = f"it is {a_kind(tensor)}, whose values are elsewhere"
        elif not tensor.is_meta and _C.extent_error(tensor) is not None:
            reasons[name] = "it is a zero tensor" if tensor._is_zerotensor() else "its memory was freed"
    return reasons
