"""What a report holds, as columns and a header: everything the page's code draws from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyparam._base.words import dtype_name, shape_text
from pyparam._compare.comparison import Comparison
from pyparam._findings import Finding, Survey
from pyparam._findings.layouts import Shape
from pyparam._findings.survey import QUANTILES
from pyparam._inspect.inspector import inspect
from pyparam._inspect.nodes import ModuleNode
from pyparam._measure.bins import entries_of, steps_of
from pyparam._measure.columns import COUNTS as STAT_COUNTS
from pyparam._measure.columns import VALUES
from pyparam._measure.rows import finite_or_none
from pyparam._measure.spectra import Spectrum
from pyparam._sources.checkpoint import Checkpoint
from pyparam._view.about import NOT_LISTED, About, about, about_table
from pyparam._view.html.pack import Packer
from pyparam._view.html.roles import add_roles
from pyparam._view.html.strips import add_strips
from pyparam._view.html.training import add_training
from pyparam._watch.records import Record

# What the page tells of smaller types, in this order.
PRECISIONS = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
STATISTICS = ("min", "max", "mean", "std", "rms", "l1", "l2")
COUNTS = ("zeros", "nans", "posinfs", "neginfs", "subnormals", "finite")
DIFFERENCES = ("max_abs", "mean_abs", "l2", "rel_l2", "cosine")
_NONE = 0xFFFF_FFFF

# Bins of the histograms keep fewer bits of mantissa the more of them there are: bins, and bits dropped of 7.
_MANTISSAS = ((200_000, 3), (1_500_000, 4), (6_000_000, 5), (math.inf, 7))


def packed(
    seen: Survey,
    found: list[Finding],
    *,
    title: str,
    made: str,
    against: tuple[str, Comparison, list[str]] | None,
    history: Sequence[Record] = (),
    spectrum: Spectrum | None = None,
) -> Iterator[str]:
    """The data of a report as text for the page, piece by piece: of ``seen`` nothing is held by then.

    ``against`` is what the source was compared with: its name, the comparison (other first), and the names
    that could not be compared. ``history`` is what a Monitor measured, ``spectrum`` of the source's matrices.
    """
    packer = Packer()
    header: dict[str, Any] = {"title": title, "made": made, "quantiles": list(QUANTILES)}
    header["precisions"] = [dtype_name(dtype) for dtype in PRECISIONS]
    for add in (_add_names, _add_rows, _add_statistics):
        add(packer, header, seen)
        seen.let_go()
    add_strips(packer, seen)
    seen.let_go()
    header["roles"] = add_roles(packer, seen, spectrum)
    if history:
        header["training"] = add_training(packer, seen.names, history)
    header["findings"] = _findings(seen, found)
    if against is not None:
        header["against"] = _add_comparison(packer, seen, *against)
    unreadable = seen.unreadable
    header["unreadable"] = {
        str(i): unreadable[n] for i, n in enumerate(seen.names if unreadable else ()) if n in unreadable
    }
    header["total"] = finite_or_none(seen.stats.total.to_dict())
    return packer.text(header)


class Strings:
    """Numbers strings in the order in which they are first asked for, behind those that it is given."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values = list(values)
        self._index = {text: index for index, text in enumerate(self.values)}

    def __call__(self, text: str) -> int:
        index = self._index.get(text)
        if index is None:
            index = self._index[text] = len(self.values)
            self.values.append(text)
        return index


def _add_names(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    """The tree of names, and what is told of a file; of the outline that this may take nothing is kept."""
    source = seen.source
    if isinstance(source, Checkpoint):  # whose tree is that of its names
        label, classes, told = type(source).__name__, None, about_table(seen.table, source)
    else:
        outline, root = inspect(source).__pyparam_outline__()
        label, told = outline.label(0) or root.label, about(root)
        classes = None
        if isinstance(root, ModuleNode):
            classes = {outline.name(i): outline.label(i) for i in range(1, len(outline))} | {"": label}
    header["about"] = _about(told)
    header["modules"], header["strings"] = _add_tree(packer, seen, label, classes)


def _about(told: About) -> dict[str, Any]:
    """What ``show`` says of a file in its last lines."""
    parts = [share.text().partition(": ")[::2] for share in told.shares]
    return {
        "parts": [*parts, *([told.elsewhere.partition(": ")[::2]] if told.elsewhere else [])],
        "facts": told.facts,
        "warnings": [NOT_LISTED],
    }


def _add_tree(
    packer: Packer, seen: Survey, label: str, classes: dict[str, str] | None
) -> tuple[int, list[str]]:
    """Names as a tree: a node a module, with its parent, key and class; a row's node and attribute.

    Node 0 is the source itself. A parent comes before its children. ``classes`` has the class of the module
    of a name; a tree of tensors has none. Gives how many nodes there are, and the strings that keys, classes
    and attributes are numbers of.
    """
    tree = seen.named.tree
    strings = Strings(seen.named.words)
    if classes is not None:
        types = [strings(classes.get(path, "")) for path in _paths(tree.parents, tree.keys, strings.values)]
    else:
        types = [strings(label), *[strings("")] * (len(tree.parents) - 1)]
    packer.add("node_parent", tree.parents)
    packer.add("node_key", tree.keys)
    packer.add("node_type", torch.tensor(types, dtype=torch.int64, device="cpu"))
    packer.add("row_node", tree.owners)
    packer.add("row_attribute", tree.attributes)
    return len(types), strings.values


def _paths(parents: Tensor, keys: Tensor, words: list[str]) -> list[str]:
    paths = [""]
    for parent, key in zip(parents.tolist()[1:], keys.tolist()[1:], strict=True):
        paths.append(f"{paths[parent]}.{words[key]}" if parent else words[key])
    return paths


def _add_rows(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    shapes, dtypes, devices = Strings(), Strings(), Strings()
    layouts = seen.layouts
    elements = layouts.each(_elements)
    for name, column in (
        ("shape", layouts.each(lambda kind: shapes("?" if kind.sizes is None else shape_text(kind.sizes)))),
        ("dtype", layouts.each(lambda kind: dtypes(dtype_name(kind.dtype)))),
        ("device", layouts.each(lambda kind: devices(str(kind.device)))),
        ("elements", elements),
    ):
        packer.add(f"row_{name}", column)
    header |= {"shapes": shapes.values, "dtypes": dtypes.values, "devices": devices.values}

    own, first = (seen.sets.bytes, seen.sets.layout) if len(seen) else (elements, elements)
    seen.let_go(between_checks=True)
    # What is shared counts for the first name that has it.
    packer.add("row_bytes", elements * layouts.each(lambda kind: kind.dtype.itemsize))
    packer.add("row_own_bytes", own.clamp(min=0))
    packer.add("row_first", first)
    packer.add("row_buffer", seen.buffers.to(torch.uint8))
    # What a module's row unites: not a layer's counters and positions beside its weights.
    numbers = layouts.where(lambda kind: kind.dtype.is_floating_point or kind.dtype.is_complex)
    packer.add("row_weight", (numbers & ~seen.statistic).to(torch.uint8))
    packer.add("row_stats", torch.where(seen.at < 0, _NONE, seen.at))


def _elements(kind: Shape) -> int:
    return 0 if kind.sizes is None else math.prod(max(0, size) for size in kind.sizes)


def _add_statistics(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    """Statistics, a row a tensor and the last for everything together."""
    stats = seen.stats
    # The op's own columns, whose last row is the total.
    values, counts = stats._values.t(), stats._counts.t()
    for name in STATISTICS:
        packer.add(f"stat_{name}", values[VALUES.index(name)])
    for name in COUNTS:
        packer.add(f"stat_{name}", counts[STAT_COUNTS.index(name)])
    for point, quantiles in zip(QUANTILES, stats._quantiles_at(QUANTILES).unbind(1), strict=True):
        packer.add(f"stat_q{point:g}", quantiles)
    del quantiles
    seen.let_go(between_checks=True)
    for dtype in PRECISIONS:
        for name, lost in zip(("zero", "subnormal", "overflow"), stats._fates(dtype), strict=True):
            packer.add(f"stat_{dtype_name(dtype)}_{name}", lost.clamp(min=0))
        seen.let_go(between_checks=True)
    _add_histograms(packer, header, seen)


def _add_histograms(packer: Packer, header: dict[str, Any], seen: Survey) -> None:
    """Bins with counts, the rows one after another; bins as steps from the one before.

    A bin is the top bits of a value: ``header["mantissa_bits"]`` of mantissa are left, fewer where a report
    would grow large. All zeros are in the first bin of the positive half, with the smallest subnormals.
    """
    bins = seen.stats._counted("report")
    shift = next(shift for most, shift in _MANTISSAS if entries_of(bins) <= most)
    lengths, steps, counts = steps_of(bins, shift)
    packer.add("hist_length", lengths)
    packer.add("hist_step", steps)
    packer.add("hist_count", counts)
    header["mantissa_bits"] = 7 - shift


def _findings(seen: Survey, found: list[Finding]) -> list[dict[str, Any]]:
    wanted = {name for finding in found for name in finding.names}
    position = {name: i for i, name in enumerate(seen.names) if name in wanted} if wanted else {}
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
