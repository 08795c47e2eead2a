"""Tensors of one value: dead layers, and weights that were never told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pyparam._base.words import plural
from pyparam._findings.families import NORM, SHIFT, WEIGHT, Family
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey

# The half of an adapter that starts at zero, so that the adapted model starts as the one it adapts.
_ADAPTER = re.compile(r"(^|[._])(lora_B|lora_up|lora_embedding_B|zero_convs?|oft_R|hada_w2_a)([._]|$)", re.I)
# Scales of norms, biases, tables of positions start out constant. A part of those of one role this small that
# is zero, or of one value, where the others are not, is odd: training moves all or none of them.
_MINORITY = 0.34
_FEWEST = 3


def constant(seen: Survey) -> Iterator[Finding]:
    """All-zero and constant tensors.

    A matrix that is the weight of a layer ought never to be constant. Where every one of its role is, two or
    more, a scheme of initialisation did it, which is information. Vectors and other tables start out constant
    everywhere, so only what stands out among those of its role counts; of biases as information, since a zero
    bias harms nothing.
    """
    low, high = seen.column("min"), seen.column("max")
    one_value = set(
        seen.those(
            seen.floats
            & (seen.figure("numel") > 1)
            & (seen.figure("nans") + seen.figure("posinfs") + seen.figure("neginfs") == 0)
            & (seen.figure("min") == seen.figure("max"))
        )
    )
    zeros: list[int] = []
    others: list[int] = []
    shifts: list[int] = []
    design: list[Family] = []
    adapters: list[int] = []
    for family in seen.roles if one_value else ():
        same = [row for row in family.rows if row in one_value]
        if not same:
            continue
        rows = [row for row in family.rows if seen.is_float(row)]
        zero = [row for row in same if low[row] == 0]
        if _ADAPTER.search(family.key):
            # All of them are at the start, and in a file that somebody saved it has not begun.
            if len(zero) < len(rows) or seen.is_file:
                adapters += zero
            continue
        # A layer with one output has a matrix of one row; one value in it is told only where it is zero.
        is_weight = WEIGHT.search(family.key) is not None
        if is_weight and (seen.is_matrix(same[0]) or (len(seen.sizes(same[0])) == 2 and bool(zero))):
            if len(same) == len(rows) and len(rows) > 1 and _others_vary(seen, family):
                design.append(family)
            else:
                zeros += zero
                others += [row for row in same if low[row] != 0]
            continue
        odd = _minority(zero, rows) or _minority(same, rows)
        if SHIFT.search(family.key):
            shifts += odd
        else:
            zeros += [row for row in odd if low[row] == 0]
            # A gain of 1 is as it was made: see ``untrained``.
            others += [
                row for row in odd if low[row] != 0 and not (NORM.search(family.key) and low[row] == 1)
            ]
    zeros += _last_norms(seen, low, high)
    dead = _with_biases(seen, zeros)
    if dead:
        yield Finding(
            "all-zero",
            "warning",
            f"{plural(len(dead), 'parameter')} {_are(dead)} zero throughout",
            "A layer whose weights are all zero gives nothing but its bias, and where the layers around it "
            "are zero too it gets no gradient either: it is dead.",
            seen.take(dead),
            {},
            "Initialise it again (pyparam.init), or load it from a good checkpoint.",
        )
    if adapters:
        adapters.sort()
        yield Finding(
            "all-zero",
            "warning",
            f"{plural(len(adapters), 'half', 'halves')} of an adapter {_are(adapters)} zero",
            "An adapter's second factor starts at zero and leaves the model as it was; training moves it. "
            "This one adapts nothing.",
            seen.take(adapters),
            {},
            "Look whether the adapter was in the optimizer and active in training, and under which names it "
            "was saved.",
            "likely",
        )
    if others:
        others.sort()
        yield Finding(
            "constant",
            "warning",
            f"{plural(len(others), 'parameter')} {'holds' if len(others) == 1 else 'hold'} one value "
            f"throughout",
            "Units with the same weights compute the same and get the same gradient, so that they never "
            "part.",
            seen.take(others),
            {seen.names[row]: f"{low[row]:.4g} everywhere" for row in others},
            "Initialise it again (pyparam.init), unless a constant was meant.",
        )
    shifts = sorted(set(shifts).difference(dead))
    if shifts:
        yield Finding(
            "constant",
            "info",
            f"{plural(len(shifts), 'bias', 'biases')} {'has' if len(shifts) == 1 else 'have'} one value, and "
            "others of the same role have not",
            "Training moves the biases of all layers that it reaches. These may be frozen, or new.",
            seen.take(shifts),
            {seen.names[row]: f"{low[row]:.4g} everywhere" for row in shifts},
            "Look whether its layer is trained.",
            "possible",
        )
    for family in design:
        value = low[family.rows[0]]
        yield Finding(
            "all-zero" if value == 0 else "constant",
            "info",
            f"every {family.key} is {'zero' if value == 0 else 'constant'}",
            f"All {len(family.rows):,} of them are, which an initialisation does on purpose: a branch that "
            f"starts "
            "at zero leaves its block the identity. In a trained model it would be a fault.",
            seen.take(family.rows),
            {},
            "Nothing before training; after it, look whether the branch gets a gradient.",
            "likely",
        )


def _last_norms(seen: Survey, low: Sequence[float], high: Sequence[float]) -> list[int]:
    """Gains of norms outside the blocks that are zero, where those of others are not: nothing gets past them.

    Inside blocks a zero gain may begin a branch, and a norm that adds 1 to its gain starts all of them at 0.
    """
    gains = seen.those(seen.named_like(NORM) & ~seen.statistic)
    zero = [row for row in gains if low[row] == high[row] == 0]
    if len(zero) == len(gains):
        return []
    return [row for row in zero if seen.role_of(row) == seen.names[row]]


def _minority(some: list[int], rows: list[int]) -> list[int]:
    """The same rows, where they are few enough among enough to be odd."""
    return some if len(rows) >= _FEWEST and len(some) <= _MINORITY * len(rows) else []


def _others_vary(seen: Survey, family: Family) -> bool:
    """Whether some other matrix is not constant: else nothing was initialised, and that is no scheme."""
    varies = seen.measured & seen.matrices & (seen.figure("min") < seen.figure("max"))
    return bool(varies.sum() > varies[family.rows].sum())


def _with_biases(seen: Survey, rows: list[int]) -> list[int]:
    """Adds the other parameters of each dead layer that are zero as well."""
    if not rows:
        return []
    layers = {seen.names[row].rpartition(".")[0] for row in rows if seen.is_matrix(row)}
    also = {
        row
        for row in seen.those(~seen.statistic & (seen.figure("min") == 0) & (seen.figure("max") == 0))
        if seen.names[row].rpartition(".")[0] in layers and "." in seen.names[row]
    }
    return sorted(also.union(rows))


def _are(rows: list[int]) -> str:
    return "is" if len(rows) == 1 else "are"
