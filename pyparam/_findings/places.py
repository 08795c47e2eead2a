"""Where and as what parameters lie: mixed devices and dtypes, and what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from pyparam._base.words import dtype_name, plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.stand_in import is_stand_in

# A part of a family this small is odd.
_MINORITY = 0.34


def devices(seen: Survey) -> Iterator[Finding]:
    """Parameters on several devices. Those on the meta device have no values, which is another finding."""
    if len({kind.device for kind in seen.layouts.kinds}) < 2:
        return
    placed = [
        (row, str(layout.device)) for row, layout in enumerate(seen.layouts) if layout.device.type != "meta"
    ]
    counts = Counter(device for _, device in placed)
    if len(counts) < 2:
        return
    most = counts.most_common(1)[0][0]
    rows = [row for row, device in placed if device != most]
    yield Finding(
        "mixed-devices",
        "warning",
        f"parameters lie on {len(counts)} devices: {_counted(counts)}",
        f"{plural(len(rows), 'parameter')} {'is' if len(rows) == 1 else 'are'} not on {most} with the "
        f"others. A layer "
        "whose parameters or inputs lie on another device raises, unless something moves them.",
        seen.take(rows),
        {seen.names[row]: device for row, device in placed if device != most},
        "module.to(device), unless the model is split on purpose.",
    )


def dtypes(seen: Survey) -> Iterator[Finding]:
    """Floating-point dtypes: several within a layer or among siblings are a warning, else information."""
    if len({kind.dtype for kind in seen.layouts.kinds if kind.dtype.is_floating_point}) < 2:
        return
    rows = (seen.floats & ~seen.statistic).nonzero().flatten().tolist()
    counts = Counter(seen.layouts[row].dtype for row in rows)
    if len(counts) < 2:
        return
    most = counts.most_common(1)[0][0]
    odd = _odd_ones(seen, rows)
    if odd:
        listed = sorted(odd)
        yield Finding(
            "mixed-dtypes",
            "warning",
            f"{plural(len(listed), 'parameter')} {'has' if len(listed) == 1 else 'have'} another dtype than "
            f"{'its' if len(listed) == 1 else 'their'} siblings",
            "Weights and biases of one layer, and the same parameter of alike blocks, should have one "
            "dtype: mixed, they "
            "raise in most operations, or are converted without a word.",
            seen.take(listed),
            {seen.names[row]: odd[row] for row in listed},
            "Convert them with the rest: module.to(dtype).",
        )
    others = [row for row in rows if seen.layouts[row].dtype != most and row not in odd]
    if not others:
        return
    names = seen.names
    yield Finding(
        "mixed-dtypes",
        "info",
        f"parameters have {len(counts)} floating-point dtypes: "
        f"{_counted({dtype_name(d): n for d, n in counts.items()})}",
        (
            f"{plural(len(others), 'parameter')} {'is' if len(others) == 1 else 'are'} not "
            f"{dtype_name(most)} "
            "as most are. "
            if 2 * counts[most] > len(rows)
            else "None of them is that of most. "
        )
        + "Norms and scales are often kept in a wider type on purpose.",
        seen.take(others),
        {names[row]: dtype_name(seen.layouts[row].dtype) for row in others},
        "Nothing, if it was meant; model.to(dtype) makes them one.",
    )


def _odd_ones(seen: Survey, rows: list[int]) -> dict[int, str]:
    odd: dict[int, str] = {}
    # Weight and bias of one layer. Quantised weights have scales of a wider type beside them.
    layers: dict[str, dict[str, int]] = {}
    names = seen.names
    for row in rows:
        layer, _, attribute = names[row].rpartition(".")
        if attribute in ("weight", "bias"):
            layers.setdefault(layer, {})[attribute] = row
    for pair in layers.values():
        if len(pair) == 2:
            weight, bias = (seen.layouts[pair[key]].dtype for key in ("weight", "bias"))
            if weight != bias and weight.itemsize > 1:
                odd[pair["bias"]] = f"{dtype_name(bias)}, beside a weight of {dtype_name(weight)}"
    dtype_of = seen.layouts.numbered(lambda kind: kind.dtype)
    for family in seen.families:
        if len(family.rows) < 2 or bool((dtype_of[family.rows] == dtype_of[family.rows[0]]).all()):
            continue
        counts = Counter(seen.layouts[row].dtype for row in family.rows if seen.is_float(row))
        if len(counts) < 2:
            continue
        (most, _), *rest = counts.most_common()
        few = {dtype for dtype, count in rest if count <= _MINORITY * len(family.rows)}
        for row in family.rows:
            if seen.layouts[row].dtype in few:
                odd[row] = f"{dtype_name(seen.layouts[row].dtype)}, where its siblings are {dtype_name(most)}"
    return odd


def unreadable(seen: Survey) -> Iterator[Finding]:
    """Tensors whose values could not be looked at; those without values are told elsewhere."""
    if not seen.unreadable:
        return
    rows = [row for row, name in enumerate(seen.names) if name in seen.unreadable and not _empty(seen, row)]
    names = seen.names
    if isinstance(seen.source, DistributedCheckpoint):
        damaged = [row for row in rows if is_stand_in(seen.tensors[row])]
        rows = [row for row in rows if not is_stand_in(seen.tensors[row])]
        if damaged:
            yield Finding(
                "unreadable",
                "error",
                f"{plural(len(damaged), 'parameter')} cannot be read from the checkpoint",
                "Pieces of them are missing or damaged, so nothing else here is said of them.",
                seen.take(damaged),
                {names[row]: seen.unreadable[names[row]] for row in damaged},
                "Copy the files once more, or go back to a checkpoint that is whole.",
            )
    if not rows:
        return
    yield Finding(
        "unreadable",
        "info",
        f"{plural(len(rows), 'parameter')} {'was' if len(rows) == 1 else 'were'} not looked into",
        "Their values are not in plain numbers in this process's memory, so nothing else here is said of "
        "them.",
        seen.take(rows),
        {names[row]: seen.unreadable[names[row]] for row in rows},
        "Pass the plain tensors that they stand for (to_dense, dequantize, full_tensor).",
    )


def _empty(seen: Survey, row: int) -> bool:
    tensor = seen.tensors[row]
    return bool(seen.layouts[row].device.type == "meta" or torch.nn.parameter.is_lazy(tensor))


def _counted(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {what}" for what, count in ordered)
