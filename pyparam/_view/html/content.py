"""What a report holds, as columns and a header: everything the page's code draws from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from pyparam._base.words import dtype_name, shape_text
from pyparam._compare.comparison import Comparison
from pyparam._findings import Finding, Survey
from pyparam._findings.survey import QUANTILES
from pyparam._inspect.inspector import inspect
from pyparam._measure.columns import COUNTS as STAT_COUNTS
from pyparam._measure.columns import VALUES
from pyparam._measure.rows import finite_or_none
from pyparam._view.html.pack import Packer
from pyparam._view.html.strips import add_strips

# What the page tells of smaller types, in this order.
PRECISIONS = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
STATISTICS = ("min", "max", "mean", "std", "rms", "l1", "l2")
COUNTS = ("zeros", "nans", "posinfs", "neginfs", "subnormals", "finite")
DIFFERENCES = ("max_abs", "mean_abs", "l2", "rel_l2", "cosine")
_NONE = 0xFFFF_FFFF

# Bins of the histograms keep all 7 bits of mantissa only in small reports.
_FULL = 200_000
_MANY = 1_500_000


def packed(
    seen: Survey,
    found: list[Finding],
    *,
    title: str,
    made: str,
    against: tuple[str, Comparison, list[str]] | None,
) -> str:
    """The data of a report as text for the page.

    ``against`` is what the source was compared with: its name, the comparison (other first), and the names
    that could not be compared.
    """
    packer = Packer()
    strings = Strings()
    header: dict[str, Any] = {"title": title, "made": made, "quantiles": list(QUANTILES)}
    header["precisions"] = [dtype_name(dtype) for dtype in PRECISIONS]
    nodes = _add_tree(packer, strings, seen)
    _add_rows(packer, header, seen)
    _add_statistics(packer, header, seen)
    add_strips(packer, seen)
    header["modules"] = nodes
    header["findings"] = _findings(seen, found)
    if against is not None:
        header["against"] = _add_comparison(packer, seen, *against)
    header["strings"] = strings.values
    header["unreadable"] = {
        str(i): seen.unreadable[n] for i, n in enumerate(seen.names) if n in seen.unreadable
    }
    header["total"] = finite_or_none(seen.stats.total.to_dict())
    return packer.text(header)


class Strings:
    """Numbers strings in the order in which they are first asked for."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._index: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        index = self._index.get(text)
        if index is None:
            index = self._index[text] = len(self.values)
            self.values.append(text)
        return index


def _add_tree(packer: Packer, strings: Strings, seen: Survey) -> int:
    """Names as a tree: a node a module, with its parent, key and class; a row's node and attribute.

    Node 0 is the source itself. A parent comes before its children.
    """
    parents, keys = [0], [strings("")]
    paths = [""]
    children: dict[tuple[int, str], int] = {}
    owners: dict[str, int] = {}
    nodes, attributes = [], []
    for name in seen.names:
        path, dot, attribute = name.rpartition(".")
        node = owners.get(path) if dot else 0
        if node is None:
            node = 0
            for part in path.split("."):
                below = children.get((node, part))
                if below is None:
                    below = children[node, part] = len(parents)
                    parents.append(node)
                    keys.append(strings(part))
                    paths.append(f"{paths[node]}.{part}" if node else part)
                node = below
            owners[path] = node
        nodes.append(node)
        attributes.append(strings(attribute))
    known = _classes(seen)
    types = [strings(known.get(path, "")) for path in paths]
    for name, column in (("node_parent", parents), ("node_key", keys), ("node_type", types)):
        packer.add(name, torch.tensor(column, dtype=torch.int64, device="cpu"))
    packer.add("row_node", torch.tensor(nodes, dtype=torch.int64, device="cpu"))
    packer.add("row_attribute", torch.tensor(attributes, dtype=torch.int64, device="cpu"))
    return len(parents)


def _classes(seen: Survey) -> dict[str, str]:
    """Class names by path, where the source has modules."""
    outline, node = inspect(seen.source).__pyparam_outline__()
    labels = {outline.name(i): outline.label(i) for i in range(len(outline))}
    labels[""] = outline.label(0) or node.label
    return labels


def _add_rows(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    shapes = Strings()
    dtypes = Strings()
    devices = Strings()
    columns: dict[str, list[int]] = {"shape": [], "dtype": [], "device": [], "elements": []}
    for layout in seen.layouts:
        sizes = layout.sizes
        columns["shape"].append(shapes("?" if sizes is None else shape_text(sizes)))
        columns["dtype"].append(dtypes(dtype_name(layout.dtype)))
        columns["device"].append(devices(str(layout.device)))
        columns["elements"].append(0 if sizes is None else math.prod(max(0, size) for size in sizes))
    for name, column in columns.items():
        packer.add(f"row_{name}", torch.tensor(column, dtype=torch.int64, device="cpu"))
    header |= {"shapes": shapes.values, "dtypes": dtypes.values, "devices": devices.values}

    itemsize = torch.tensor(
        [layout.dtype.itemsize for layout in seen.layouts], dtype=torch.int64, device="cpu"
    )
    elements = torch.tensor(columns["elements"], dtype=torch.int64, device="cpu")
    own = seen.sets.bytes.clone() if len(seen) else elements
    # What is shared counts for the first name that has it.
    packer.add("row_bytes", elements * itemsize)
    packer.add("row_own_bytes", own.clamp(min=0))
    packer.add("row_first", seen.sets.layout if len(seen) else elements)
    packer.add("row_buffer", torch.tensor(seen.is_buffer, dtype=torch.uint8, device="cpu"))
    # What a module's row unites: not a layer's counters and positions beside its weights.
    weight = [
        not statistic and (layout.dtype.is_floating_point or layout.dtype.is_complex)
        for statistic, layout in zip(seen.statistic, seen.layouts, strict=True)
    ]
    packer.add("row_weight", torch.tensor(weight, dtype=torch.uint8, device="cpu"))
    packer.add("row_stats", torch.where(seen.at < 0, _NONE, seen.at))


def _add_statistics(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    """Statistics, a row a tensor and the last for everything together."""
    stats = seen.stats
    # The op's own columns, whose last row is the total.
    values, counts = stats._values.t(), stats._counts.t()
    packer.add_all([f"stat_{name}" for name in STATISTICS], values[[*map(VALUES.index, STATISTICS)]])
    packer.add_all([f"stat_{name}" for name in COUNTS], counts[[*map(STAT_COUNTS.index, COUNTS)]])
    packer.add_all([f"stat_q{point:g}" for point in QUANTILES], stats._all_quantiles().t())
    measured = [STAT_COUNTS.index(name) for name in ("finite", "nans", "posinfs", "neginfs")]
    everything = counts[measured].sum(0).double()
    for dtype in PRECISIONS:
        fates = stats.underflow(dtype)
        names = ("zero", "subnormal", "overflow")
        fractions = torch.stack([getattr(fates, name) for name in names])
        total = torch.tensor(
            [getattr(fates.total, name) for name in names], dtype=torch.float64, device="cpu"
        )
        # Counts are whole numbers: what the fractions were made of comes back exactly.
        lost = (torch.cat([fractions, total.unsqueeze(1)], 1).nan_to_num() * everything).round()
        packer.add_all([f"stat_{dtype_name(dtype)}_{name}" for name in names], lost.long().clamp(min=0))
    _add_histograms(packer, header, seen)


def _add_histograms(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    """Bins with counts, the rows one after another; bins as steps from the one before.

    A bin is the top bits of a value: ``header["mantissa_bits"]`` of mantissa are left, fewer where a report
    would grow large. All zeros are in the first bin of the positive half, with the smallest subnormals.
    """
    bins = seen.stats._counted("report")
    lengths = bins.offsets[1:] - bins.offsets[:-1]
    rows = torch.repeat_interleave(torch.arange(len(lengths), device="cpu"), lengths)
    shift = 3 if len(bins.bins) <= _FULL else 4 if len(bins.bins) <= _MANY else 5
    keys = (rows << 16) | (bins.bins.long() >> shift)
    merged, inverse = torch.unique_consecutive(keys, return_inverse=True)
    counts = torch.zeros(len(merged), dtype=torch.int64, device="cpu").index_add_(0, inverse, bins.counts)
    owners, places = merged >> 16, merged & 0xFFFF
    steps = places.clone()
    if len(places) > 1:
        within = owners[1:] == owners[:-1]
        steps[1:] -= torch.where(within, places[:-1], 0)
    packer.add("hist_length", torch.bincount(owners, minlength=len(lengths)))
    packer.add("hist_step", steps)
    packer.add("hist_count", counts)
    header["mantissa_bits"] = 7 - shift


def _findings(seen: Survey, found: list[Finding]) -> list[dict[str, Any]]:
    position = {name: i for i, name in enumerate(seen.names)}
    told = []
    for finding in found:
        rows = [position[name] for name in finding.names]
        details = {str(position[name]): words for name, words in finding.details.items()}
        told.append({**finding.to_dict(), "names": rows, "details": details})
    return told


def _add_comparison(
    packer: Packer, seen: Survey, other: str, comparison: Comparison, left_out: list[str]
) -> dict[str, Any]:
    position = {name: i for i, name in enumerate(seen.names)}
    at = torch.full((len(seen),), _NONE, dtype=torch.int64, device="cpu")
    for row, name in enumerate(comparison.names):
        if name in position:
            at[position[name]] = row
    packer.add("row_difference", at)
    for name in DIFFERENCES:
        packer.add(f"diff_{name}", getattr(comparison, name))
    for name in ("differing", "nonfinite", "numel"):
        packer.add(f"diff_{name}", getattr(comparison, name))
    packer.add("diff_equal", comparison.equal_bits.to(torch.uint8))
    return {
        "name": other,
        "equal": comparison.equal,
        "only_there": list(comparison.missing),
        "only_here": _rows(position, comparison.unexpected),
        "shape_changed": [
            [position[name], *map(shape_text, both)] for name, both in comparison.shape_changed.items()
        ],
        "dtype_changed": [
            [position[name], *map(dtype_name, both)] for name, both in comparison.dtype_changed.items()
        ],
        "left_out": list(left_out),
    }


def _rows(position: dict[str, int], names: Iterable[str]) -> list[int]:
    return [position[name] for name in names]
