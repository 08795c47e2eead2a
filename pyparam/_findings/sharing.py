"""Names that share memory."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pyparam._base.words import plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._sources.tied import Kind, Tie

# More ties of a kind than this are one finding.
_SINGLY = 8
_REASONS: dict[Kind, str] = {
    "parameter": "They are one Parameter: an optimizer sees it once, and both places move together.",
    "storage": "They are tensors of their own over the same memory: changing one in place changes the other.",
    "overlap": "They have some bytes in common: writing one changes part of the other.",
}


def sharing(seen: Survey) -> Iterator[Finding]:
    """Ties: information, since models tie on purpose; a warning where memory overlaps in part."""
    kinds: dict[Kind, list[Tie]] = {}
    for tie in seen.ties:
        kinds.setdefault(tie.kind, []).append(tie)
    for kind, ties in kinds.items():
        # A layer that is shared with its weight and its bias is one fact.
        layers: dict[tuple[str, ...], list[Tie]] = {}
        for tie in ties:
            owners = tuple(name.rpartition(".")[0] for name in tie.names)
            layers.setdefault(owners if len(set(owners)) > 1 else tie.names, []).append(tie)
        groups = list(layers.values()) if len(layers) <= _SINGLY else [ties]
        for group in groups:
            yield _finding(seen, kind, group)


def _finding(seen: Survey, kind: Kind, ties: list[Tie]) -> Finding:
    names = tuple(dict.fromkeys(name for tie in ties for name in tie.names))
    share = "overlap in memory" if kind == "overlap" else "are tied"
    if len(ties) == 1:
        title = f"{plural(len(names), 'name')} {share}"
        details = {}
    else:
        title = f"{plural(len(ties), 'group')} of names {share}"
        details = {
            name: f"with {tie.names[0] if name != tie.names[0] else tie.names[1]}"
            for tie in ties
            for name in tie.names
        }
    reason = _REASONS[kind]
    if kind == "storage" and isinstance(seen.source, nn.Module):
        reason += " An optimizer takes each for its own, and steps twice."
    advice = {
        "parameter": "Nothing, if it was meant; keep_ties keeps it through loading and moving.",
        "storage": "pyparam.retie_ makes them one Parameter again.",
        "overlap": "Clone one of them before anything writes in place.",
    }[kind]
    return Finding("tied", "warning" if kind == "overlap" else "info", title, reason, names, details, advice)
