"""Parameters that nothing ever wrote to."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pyparam._base.words import plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam.init._written import uninitialized

# What memory that was never written to looks like: subnormal numbers (pointers and small integers, read as
# floats), or numbers beyond anything a model has.
_SUBNORMAL = 0.01
_HUGE = 1e10


def unwritten(seen: Survey) -> Iterator[Finding]:
    """Parameters without values, with the mark of ``to_empty``, or unwritten with values like raw memory.

    The version counter alone says too little (see ``uninitialized``), so it is asked only about parameters
    whose values look wrong.
    """
    lazy = [row for row, tensor in enumerate(seen.tensors) if nn.parameter.is_lazy(tensor)]
    meta = [
        row
        for row, tensor in enumerate(seen.tensors)
        if tensor.is_meta and row not in set(lazy) and not seen.is_buffer[row]
    ]
    if lazy:
        yield Finding(
            "never-initialised",
            "warning",
            f"{plural(len(lazy), 'parameter')} {'belongs' if len(lazy) == 1 else 'belong'} to lazy modules "
            f"that have not run",
            "A lazy module learns its shapes from the first input; until then it has no parameters to train "
            "or save.",
            seen.take(lazy),
        )
    if meta:
        whole = len(meta) == seen.is_buffer.count(False)
        yield Finding(
            "never-initialised",
            "info" if whole else "error",
            f"{plural(len(meta), 'parameter')} {'is' if len(meta) == 1 else 'are'} on the meta device",
            "The whole model is on the meta device, which has shapes and no values: nothing could be "
            "measured."
            if whole
            else "The meta device has shapes and no values: loading or initialising forgot these.",
            seen.take(meta),
        )
    yield from _raw(seen)


def _raw(seen: Survey) -> Iterator[Finding]:
    nans, subnormals, largest, numel = (
        seen.column(name) for name in ("nans", "subnormals", "max_abs", "numel")
    )
    suspects = [
        row
        for row in seen.rows
        if not seen.is_buffer[row]
        and (nans[row] or subnormals[row] > _SUBNORMAL * numel[row] or largest[row] > _HUGE)
    ]
    if not suspects:
        return
    found = uninitialized(seen.table._take(suspects))
    certain = [name for name in found if name in set(found.certain)]
    if certain:
        yield Finding(
            "never-initialised",
            "error",
            f"{plural(len(certain), 'parameter')} {'was' if len(certain) == 1 else 'were'} given memory and "
            f"never written",
            "They hold the mark that pyparam.init.to_empty leaves: loading or initialising forgot them.",
            tuple(certain),
            {name: found.reasons[name] for name in certain},
        )
    if not isinstance(seen.source, nn.Module):
        return  # a version says something of a module's parameters alone
    doubtful = tuple(name for name in found if name not in set(found.certain))
    if doubtful:
        yield Finding(
            "never-initialised",
            "warning",
            f"{plural(len(doubtful), 'parameter')} {'looks' if len(doubtful) == 1 else 'look'} like memory "
            f"that was never written",
            "Nothing has written to them in place since they were made, and their values are what stale "
            "memory looks "
            "like when it is read as numbers.",
            doubtful,
        )
