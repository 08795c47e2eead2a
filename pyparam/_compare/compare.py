"""``compare``: what two sources differ by, parameter by parameter, in one pass over both."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from pyparam._base.errors import Reworded
from pyparam._base.modes import require_memory
from pyparam._base.native import _C
from pyparam._base.rename import Rule, renamed, suggested
from pyparam._compare.alike import recognised, within, within_words
from pyparam._compare.comparison import Comparison
from pyparam._compare.stream import read_in_batches
from pyparam._compare.structure import restructured
from pyparam._compare.whole_compare import Asked, Side, compare_whole
from pyparam._compare.whole_structure import moved_whole, structure_whole
from pyparam._parts.parts import has_parts, refuse_flat
from pyparam._share.readable import REFUSALS, refused_by
from pyparam._sources import path as paths
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.quantized import dequantized
from pyparam._sources.saved import Saved, is_on_disk, saved
from pyparam._sources.stand_in import Values
from pyparam._sources.table import ParamTable, Pattern

__all__ = ["compare"]

_INDEXED = re.compile(r"\b([ab])\[(\d+)\]")


def compare(
    a: Any,
    b: Any,
    *,
    rename: Rule = None,
    rename_a: Rule = None,
    rename_b: Rule = None,
    cast: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    dequantize: bool = False,
    select: Pattern | None = None,
) -> Comparison:
    """What two sources differ by: models, state dicts, checkpoints, tables, matched by name.

    One pass reads each pair of tensors once. Nothing is copied, whatever the layouts, and checkpoints on disk
    are read in pieces that are dropped again. Differences, products and sums are calculated in float64, in an
    order that depends on the shapes alone: the figures are the same bits for any number of threads.

    Pairs of equal shape and two dtypes are compared by value, in the type both promote to. Complex numbers
    count as pairs of real ones, but ``differing`` and ``first`` count elements. Differences of integers are
    exact, of 64-bit ones where both sides have one dtype; ``l2``, ``cosine`` and differences across dtypes
    take 64-bit integers as the nearest float64.

    Pairs on two devices are compared on the CUDA one, where the other side is copied to in pieces. On a
    device nothing waits until someone reads from the Comparison.

    What is recognised of a pair that differs is told in ``recognised``: that one side is the other rounded to
    its dtype, transposed or reshaped. Names without a partner are looked at for experts stacked on one side
    and split on the other, projections fused and apart, and a LoRA adapter merged: ``structure``. A tensor
    that cannot be read (sparse, quantized, on the meta device, ...) costs its row, and what a state holds
    beside tensors is compared where it is plain: ``unread``, ``values_changed``, ``unseen``. Two sources are
    never ``equal`` while anything was not looked at.

    Args:
        a: the source that ``rel_l2`` is relative to. A module counts with what its ``state_dict()`` holds:
            parameters and persistent buffers, tied ones under each name.
        b: the other one.
        rename: how names are changed before they are matched, on both sides: a prefix to remove
            (``"module."``), a pair of a glob or a compiled regular expression and its replacement, a mapping
            of globs to replacements, a function, or a list of these.
        rename_a: the same for ``a`` alone, after ``rename``.
        rename_b: the same for ``b`` alone, after ``rename``.
        cast: a pair in which one side is the other rounded to its dtype is no difference.
        atol: a pair of one dtype with ``|a - b| <= atol + rtol * |b|`` throughout is no difference, as in
            ``torch.allclose``; the one of ``atol`` and ``rtol`` that is left out is 0.
        rtol: see ``atol``.
        dequantize: compares quantized parameters (bitsandbytes, GPTQ, AWQ, compressed-tensors, fp8 with
            scales, MXFP4, NVFP4) by the values they stand for, float32, some of them in memory at a time.
        select: only what ``ParamTable.select`` takes with this pattern, of each side once names are changed.

    DTensors count as wholes, on every rank the same; all ranks that hold parts must call, as for ``measure``.
    Each rank compares its own part: with the same part of a model that is placed alike, with a slice of a
    whole tensor or of a checkpoint (of a directory of ``torch.distributed.checkpoint`` it reads no more). Of
    two placements, the second is redistributed, one parameter after the other. What may be transposed,
    reshaped or of another structure is brought whole to each rank, one parameter at a time.

    Examples:
        >>> found = pyparam.compare(model, "before.safetensors")
        >>> found.equal, found.changed()
        (False, ['0.weight'])

    Raises:
        TypeError: for what is no source, or no rule for names; a DTensor placed ``Partial`` or without one
            block here.
        ValueError: a source has a name twice, also once names are changed; a tolerance below zero; ranks call
            with different parameters.
        RuntimeError: for ranks that did not call within the group's timeout.
    """
    require_memory("compare")
    for what, tolerance in (("atol", atol), ("rtol", rtol)):
        if tolerance is not None and not (tolerance >= 0 and math.isfinite(tolerance)):
            raise ValueError(f"compare: {what} must be a number from 0 on, got {tolerance}")
    a, b = (paths.open(source) if paths.accepts(source) else source for source in (a, b))
    rules = [rename, rename_a], [rename, rename_b]
    sides = [
        _renamed(_state(source, dequantize), own, select) for source, own in zip((a, b), rules, strict=True)
    ]
    for side in sides:
        refuse_flat("compare", side.table)
    if any(has_parts(side.table) for side in sides):
        return _of_parts(sides, cast, Asked(atol, rtol))
    tables = sides[0].table, sides[1].table
    if select is not None and not (len(tables[0]) or len(tables[1])):
        raise ValueError(f"compare: nothing matches {select!r} on either side")
    read = functools.partial(_read, disk_a=is_on_disk(a), disk_b=is_on_disk(b))
    made = dequantize or any(isinstance(source, Checkpoint) and source.makes_tensors for source in (a, b))
    (table_a, table_b), found, unread = read_in_batches(*tables, read) if made else read(*tables)
    comparison = Comparison(table_a, table_b, found)
    comparison.unread = unread
    for name in unread:
        if name not in tables[1]:
            comparison.missing.append(name)
        elif name not in tables[0]:
            comparison.unexpected.append(name)
    _compare_values(comparison, *sides)
    values = Values(table_a), Values(table_b)
    comparison.recognised, casts = recognised(comparison, *values)
    if cast:
        comparison.accepted |= casts
    if atol is not None or rtol is not None:
        comparison.accepted |= within(comparison, *values, atol or 0.0, rtol or 0.0)
    if comparison.missing or comparison.unexpected or comparison.shape_changed:
        comparison.structure = restructured(comparison.missing, comparison.unexpected, *values)
        comparison.unread |= values[0].untold | values[1].untold
    if comparison.missing and comparison.unexpected:
        comparison.suggestion = suggested(tables[0].names, tables[1].names)
    return comparison


def _of_parts(states: Sequence[Saved], cast: bool, asked: Asked) -> Comparison:
    """The comparison where parameters of a side lie on several ranks."""
    sides = [Side(state.table) for state in states]
    found = compare_whole(sides[0], sides[1], asked)
    tables = sides[0].table, sides[1].table
    comparison = Comparison(*tables, found.columns)
    comparison.unread = found.unread
    if cast:
        comparison.accepted |= found.casts
    if asked.tolerance is not None:
        changed = set(comparison.changed())
        close = [name for name in found.close if name in changed]
        comparison.accepted |= dict.fromkeys(close, within_words(*asked.tolerance))
    _compare_values(comparison, *states)
    comparison.recognised = found.casts | moved_whole(comparison, *tables, found.even)
    comparison.structure = structure_whole(comparison, *tables)
    if comparison.missing and comparison.unexpected:
        comparison.suggestion = suggested(sides[0].table.names, sides[1].table.names)
    return comparison


def _state(source: Any, dequantize: bool) -> Saved:
    state = saved(source, values=False)
    return state._replace(table=dequantized(state.table, source)) if dequantize else state


def _renamed(side: Saved, rules: list[Rule], select: Pattern | None) -> Saved:
    if select is not None:
        # A pattern is of tensors: what a state holds beside them is left out.
        return Saved(_renamed(Saved(side.table, {}, {}), rules, None).table.select(select), {}, {})
    rules = [rule for rule in rules if rule is not None and rule != []]
    if not rules:
        return side
    table = side.table
    names = renamed(table.names, rules, verb="compare")
    others = list(dict.fromkeys((*side.values, *side.unseen)))
    new = dict(zip(others, renamed(others, rules, verb="compare"), strict=True))
    return Saved(
        table._under(names),
        {new[name]: value for name, value in side.values.items()},
        {new[name]: kind for name, kind in side.unseen.items()},
    )


def _read(
    a: ParamTable, b: ParamTable, disk_a: bool, disk_b: bool
) -> tuple[tuple[ParamTable, ParamTable], dict[str, Any], dict[str, str]]:
    """What the op gives of the pairs that it takes, the tables without the others, and their reasons."""
    unread: dict[str, str] = {}
    while True:
        try:
            with _named_errors(a, b):
                return (a, b), _C.compare(a._compared(), b._compared(), disk_a, disk_b), unread
        except REFUSALS as error:
            # Everything is checked before the first value is read: trying again costs little.
            refused: dict[str, str] = {}
            for side, table in (("a", a), ("b", b)):
                if re.search(rf"parameter (?:'.*?'|\".*?\") of {side}\b", str(error)):
                    refused |= refused_by(error, table)
            if not refused:
                raise
            unread |= {name: _without_side(reason) for name, reason in refused.items()}
            a, b = (t._take([i for i, name in enumerate(t.names) if name not in refused]) for t in (a, b))


def _without_side(reason: str) -> str:
    return re.sub(r"^it of [ab] ", "it ", reason)


def _named_errors(a: ParamTable, b: ParamTable) -> Reworded:
    """The op speaks of ``a[12]``; a person wants ``parameter '0.weight' of a``."""
    sides = {"a": a, "b": b}
    return Reworded(
        lambda words: _INDEXED.sub(lambda m: f"parameter {sides[m[1]].names[int(m[2])]!r} of {m[1]}", words)
    )


def _compare_values(comparison: Comparison, a: Saved, b: Saved) -> None:
    """What a state holds beside tensors: plain values by ``==``, anything else not at all."""
    for name, value in a.values.items():
        if name in b.values:
            other = b.values[name]
            if type(value) is not type(other) or not _same(value, other):
                comparison.values_changed[name] = (value, other)
        elif name not in b.unseen:
            comparison.values_changed[name] = (value, None)
    for name, value in b.values.items():
        if name not in a.values and name not in a.unseen:
            comparison.values_changed[name] = (None, value)
    comparison.unseen = {**b.unseen, **a.unseen}


def _same(a: Any, b: Any) -> bool:
    """As ``==``, and NaN is NaN."""
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
