"""Parameters that nothing ever wrote to."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pyparam._base.words import plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._sources.stand_in import is_stand_in
from pyparam._sources.table import ParamTable
from pyparam.init._written import STALE_HUGE, STALE_SUBNORMAL, uninitialized


def unwritten(seen: Survey) -> Iterator[Finding]:
    """Parameters without values, with the mark of ``to_empty``, or unwritten with values like raw memory.

    The version counter alone says too little (see ``uninitialized``), so it is asked only about parameters
    whose values look wrong.
    """
    suspects = [
        (row, tensor) for row in seen.layouts.odd if not is_stand_in(tensor := seen.table._tensor(row))
    ]
    lazy = [row for row, tensor in suspects if nn.parameter.is_lazy(tensor)]
    meta = [row for row, tensor in suspects if tensor.is_meta and not nn.parameter.is_lazy(tensor)]
    if lazy:
        yield Finding(
            "never-initialised",
            "warning",
            f"{plural(len(lazy), 'parameter')} {'belongs' if len(lazy) == 1 else 'belong'} to lazy modules "
            f"that have not run",
            "A lazy module learns its shapes from the first input; until then it has no parameters to train "
            "or save.",
            seen.take(lazy),
            {},
            "Run the model once on an input of the right shape.",
        )
    if meta:
        whole = sum(tensor.is_meta for _, tensor in suspects) == len(seen)
        if whole:
            meta = [row for row in meta if not seen.is_buffer[row]] or meta
        yield Finding(
            "never-initialised",
            "info" if whole else "error",
            f"{plural(len(meta), *_noun(seen, meta))} {'is' if len(meta) == 1 else 'are'} on the meta device",
            "The whole model is on the meta device, which has shapes and no values: nothing could be "
            "measured."
            if whole
            else "The meta device has shapes and no values: loading or initialising forgot these.",
            seen.take(meta),
            {},
            "pyparam.init.initialize_(model, device=...), or to_empty and load_state_dict."
            if whole
            else "Load them, or compute them as the module's __init__ does; a buffer that is not persistent "
            "is in no checkpoint.",
        )
    yield from _raw(seen)


def _raw(seen: Survey) -> Iterator[Finding]:
    stale = seen.figure("subnormals") > STALE_SUBNORMAL * seen.figure("numel").double()
    odd = (seen.figure("nans") > 0) | stale | (seen.figure("max_abs") > STALE_HUGE)
    suspects = seen.those(seen.of_part("model") & odd)
    if not suspects:
        return
    made = [row for row in suspects if is_stand_in(seen.table._tensor(row))]
    found = uninitialized(seen.table._take([row for row in suspects if row not in set(made)]))
    reasons = {name: found.reasons[name] for name in found if name in set(found.certain)}
    for row in made:
        own = uninitialized(ParamTable([seen.names[row]], [seen.values(row)]))
        reasons |= {name: own.reasons[name] for name in own if name in set(own.certain)}
    certain = list(reasons)
    if certain:
        yield Finding(
            "never-initialised",
            "error",
            f"{plural(len(certain), 'parameter')} {'was' if len(certain) == 1 else 'were'} given memory and "
            f"never written",
            "They hold the mark that pyparam.init.to_empty leaves: loading or initialising forgot them.",
            tuple(certain),
            reasons,
            "initialize_ or load them.",
        )
    if not isinstance(seen.source, nn.Module):
        return  # a version says something of a module's parameters alone
    doubtful = tuple(name for name in found if name not in set(found.certain))
    places = [row for row in suspects if seen.names[row] in set(doubtful)]
    if doubtful:
        yield Finding(
            "never-initialised",
            "warning",
            f"{plural(len(doubtful), *_noun(seen, places))} {'looks' if len(doubtful) == 1 else 'look'} like "
            f"memory "
            f"that was never written",
            "Nothing has written to them in place since they were made, and their values are what stale "
            "memory looks like when it is read as numbers. to_empty leaves buffers so that no checkpoint "
            "holds.",
            doubtful,
            {},
            "Load or initialise them; compute a buffer as the module's __init__ does.",
            "likely",
        )


def _noun(seen: Survey, rows: list[int]) -> tuple[str, str]:
    some = {seen.is_buffer[row] for row in rows}
    if some == {True}:
        return "buffer", "buffers"
    return ("parameter", "parameters") if some == {False} else ("tensor", "parameters and buffers")
