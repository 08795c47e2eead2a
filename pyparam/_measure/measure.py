"""measure: every statistic of every parameter in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from pyparam._base.errors import MISTAKES, Kinds, Reworded, named_errors
from pyparam._base.modes import require_memory
from pyparam._base.native import _C
from pyparam._base.pending import Pending, made
from pyparam._measure.bins import Bins, unpacked
from pyparam._measure.columns import Columns
from pyparam._measure.distinct import Distinct, distinct
from pyparam._measure.rows import PickedLayouts
from pyparam._measure.stats import Stats
from pyparam._measure.united import united
from pyparam._measure.whole import local_entries, measure_whole
from pyparam._parts.parts import has_parts, refuse_flat
from pyparam._share.readable import REFUSALS, read_of, refused_by, without_frames
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.stand_in import Untold
from pyparam._sources.table import ParamTable

_BATCH = 128 << 20
"""Bytes of tensors at a time, where each takes memory of its own: those of a GGUF file, or in pieces."""


def measure(
    source: Any,
    *,
    grad: bool = False,
    histogram: bool = False,
    quantiles: Sequence[float] = (),
    local: bool = False,
    group: Any = None,
) -> Stats:
    """Measures every parameter of a source, reading each element once.

    A row a parameter and ``stats.total`` for all together: numel, nbytes, dtype, device, shape; min, max,
    mean, std (with Bessel's correction, as ``torch.std``), rms, l1, l2, max_abs; zeros, nans, posinfs,
    neginfs, subnormals. Extremes and moments are over the finite elements, so that one NaN does not blank a
    row; they are NaN where there is no finite element (l1 and l2 are 0), and std is NaN for fewer than two.

    On the CPU nothing is rounded from a sum: mean, std, rms, l1 and l2 are those of the exact sums of x, |x|
    and x^2, rounded once, so they are the same bits for any number of threads, any vector unit and any way a
    parameter is cut among ranks. On a device sums are in float64, centred on the mean of a few thousand
    values at a time. Complex elements count as two values, real and imaginary; bool as 0 and 1; integers
    beyond 2**53 as the nearest float64. Subnormals are those of the parameter's own dtype.

    Parameters that share memory have a row each, marked by ``shared_with``, and are read once where they are
    the same bytes under the same layout. The total counts every byte once, also of slices that overlap in
    part (where an overlap can only be assumed, or strided slices more than 1 GiB apart overlap, both count).

    Args:
        source: anything with parameters (see ``table_of``). A checkpoint streams: pages of the file are
            given back as they are done with, so memory stays small for a file of any size.
        grad: measures the gradients instead. Parameters without one have no row; ``stats.missing`` lists
            them.
        histogram: counts each value by the upper 16 bits of its float32 (sign, exponent, 7 bits of mantissa)
            too, for ``stats.histogram``, ``stats.quantile`` and ``stats.underflow``. On a CUDA device this
            waits once, for the number of bins; all else waits for nothing until someone reads from the Stats.
        quantiles: numbers in [0, 1], for ``stats.quantiles``; counts the histogram as well.
        local: of DTensors, measures this rank's parts, each as if it were all. Nothing is communicated.
        group: a process group whose ranks hold different parameters, such as the stages of a pipeline; each
            of them must call. The rows of all are united by name; a name that several ranks have counts once,
            as the first of them has it.

    DTensors are measured as wholes: every rank gets the same bits, those of the parameter before it was
    distributed. All ranks that hold parts must call; they are asked first whether they do, in the store of
    their process group, and then reduce once to a minimum and once to a sum for all parameters together. What
    is replicated is read where it is. Parts on a device are copied to host memory.

    A parameter without values that can be read (sparse, quantized, nested, of a dtype without single numbers,
    a tensor subclass with its values elsewhere, on the meta device, with a storage that was freed or shrunk)
    has no row and no part in the total: ``stats.unread`` says why, and so does the printed table.

    Raises:
        TypeError: for what is no source; naming a parameter where none can be read, and among DTensors, where
            ranks have to agree, wherever one cannot be; naming a DTensor placed ``Partial`` or with no one
            block on a rank, or a piece of a parameter that FullyShardedDataParallel flattened.
        ValueError: likewise for the meta device and freed storages; a quantile outside [0, 1]; where ranks
            call with different parameters.
        RuntimeError: for ranks that did not call within the group's timeout. What is wrong on one rank is
            raised on all.
        KeyboardInterrupt: Ctrl-C ends the pass.
    """
    options: dict[str, Any] = {
        "grad": grad,
        "histogram": histogram,
        "quantiles": _points(quantiles),
        "local": local,
    }
    if group is not None:
        return measure_strictly(source, group=group, **options)
    found, refusal = measure_some(source, **options)
    if refusal is not None and not len(found):
        try:
            raise refusal
        finally:
            refusal = None  # or the error would hold this frame, and this frame the error
    return found


def measure_some(source: Any, **options: Any) -> tuple[Stats, Exception | None]:
    """``measure`` that may be left with no row; with what was raised for the first it could not read."""
    require_memory("measure")  # before a file is opened for it
    if path.accepts(source):
        source = path.open(source)
    maps = source.spare_maps() if isinstance(source, Checkpoint) else []
    # A checkpoint is read in a stream: nobody holds a tensor of it meanwhile.
    given = source if isinstance(source, Checkpoint) else table_of(source)
    try:
        return measure_strictly(given, **options), None
    except REFUSALS as error:
        table = table_of(given)
        if (has_parts(table) and not options.get("local")) or not refused_by(error, table):
            raise
        refusal = without_frames(error)
    found, read = read_of(table, lambda part: measure_strictly(part, maps=maps, **options))
    found._unread = read.left_out
    return found, refusal


def measure_strictly(
    source: Any,
    *,
    grad: bool = False,
    histogram: bool = False,
    quantiles: Sequence[float] = (),
    local: bool = False,
    group: Any = None,
    maps: Sequence[tuple[int, int]] = (),
) -> Stats:
    """``measure`` that raises for the first parameter it cannot read. ``maps`` are mapped files, whose pages
    are given back as they are read."""
    require_memory("measure")
    points = _points(quantiles)
    if path.accepts(source):
        source = path.open(source)
    if isinstance(source, Checkpoint) and not grad and group is None:
        batches = source.batches(_BATCH)
        if batches is not None:
            return _measure_batches(source, batches, histogram or bool(points), quantiles)
    maps = source.spare_maps() if isinstance(source, Checkpoint) else list(maps)
    table = table_of(source)
    histogram = histogram or bool(points)
    if group is not None:
        return united(
            group, lambda: measure_strictly(table, grad=grad, quantiles=points, histogram=histogram)
        )
    if not local:
        refuse_flat("measure", table)
    if has_parts(table):
        if not local:
            return measure_whole(table, grad, histogram, points)
        table, grad = local_entries(table, grad), False
    found = None if grad else table._measured(histogram, maps)
    read = table._native if found is None else None
    if read is not None:
        with row_errors(table, grad):
            found = _C.measure(read, grad, histogram, maps, True)
    if found is None:
        return _measure_shared(table, grad, histogram, maps, points)
    absent = set(found.missing)
    names: list[str] | _C.NameColumn = read.name_column if read is not None else list(table.names)
    if absent:
        names = [name for i, name in enumerate(table.names) if i not in absent]
    return Stats(
        names=names,
        columns=_columns(found),
        layouts=found.layouts,
        points=points,
        missing=[table.names[i] for i in found.missing],
    )


def _measure_batches(
    source: Checkpoint, batches: Iterator[list[str]], histogram: bool, quantiles: Sequence[float]
) -> Stats:
    """Measures a checkpoint whose tensors take memory of their own, some of them at a time."""
    found: list[tuple[int, Stats]] = []
    untold: dict[str, Untold] = {}
    for names in batches:
        made: dict[str, Tensor] = {}
        for name in names:
            try:
                made[name] = source[name]
            except Untold as error:
                untold[name] = error
        table = ParamTable(list(made), list(made.values()))
        del made
        found.append((1, measure_strictly(table, histogram=histogram, quantiles=quantiles)))
        del table
        # Halves of about one size are joined, so that each row is copied a logarithm of times.
        while len(found) > 1 and found[-1][0] >= found[-2][0]:
            (n, first), (m, second) = found[-2:]
            found[-2:] = [(n + m, first + second)]
    empty = measure_strictly(ParamTable([], []), histogram=histogram, quantiles=quantiles)
    whole = sum((stats for _, stats in found[1:]), found[0][1]) if found else empty
    if untold and not len(whole):
        raise next(iter(untold.values()))
    whole._unread = {name: str(error) for name, error in untold.items()}
    return whole


def _measure_shared(
    table: ParamTable, grad: bool, histogram: bool, maps: list[tuple[int, int]], points: tuple[float, ...]
) -> Stats:
    """Measures a table in which some entries may share memory."""
    missing: list[str] = []
    if grad:
        pairs = [(name, tensor.grad) for name, tensor in table]
        missing = [name for name, gradient in pairs if gradient is None]
        there = [(name, gradient) for name, gradient in pairs if gradient is not None]
        table = ParamTable([name for name, _ in there], [gradient for _, gradient in there])

    def measured(part: ParamTable) -> _C.Measurement:
        with named_errors(part):
            found = _C.measure(part._native, False, histogram, maps, False)
        assert found is not None
        return found

    cut = distinct(table)
    if cut is None:
        cut = Distinct(table, ParamTable([], []), list(range(len(table))), {})
    once, again = measured(cut.once), measured(cut.again)
    whole = len(cut.once)
    # The rows of the table, and at last the total: that of what is there once.
    rows = torch.tensor([*(row + (row >= whole) for row in cut.row), whole], dtype=torch.int64, device="cpu")

    def joined(*tensors: Tensor) -> Columns:
        half = len(tensors) // 2
        a, b = Columns.of(*tensors[:half]), Columns.of(*tensors[half:])
        bins = None
        if isinstance(a.bins, Bins) and isinstance(b.bins, Bins):
            in_a = torch.where(rows <= whole, rows, -1)
            in_b = torch.where(rows <= whole, -1, rows - whole - 1)
            merged = _C.merge_histograms(*a.bins[1:], in_a, *b.bins[1:], in_b)
            bins = Bins(torch.cat((a.bins.below, b.bins.below))[rows], *merged)
        return Columns(torch.cat((a.values, b.values))[rows], torch.cat((a.counts, b.counts))[rows], bins)

    return Stats(
        names=list(table.names),
        columns=made([*_tensors(once), *_tensors(again)], joined),
        layouts=PickedLayouts(once.layouts, again.layouts, cut.row),
        points=points,
        missing=missing,
        shared=cut.first,
    )


def _columns(found: _C.Measurement) -> Columns | Pending[Columns]:
    values = found.values
    if not values.is_cpu:
        return Pending(_tensors(found), Columns.of)
    bins = found.bins
    return Columns(values, found.counts, Bins(*bins) if isinstance(bins, tuple) else bins)


def _tensors(found: _C.Measurement) -> list[Tensor]:
    bins = found.bins
    return [found.values, found.counts, *(unpacked(bins) if isinstance(bins, _C.PackedBins) else bins or ())]


@torch.library.register_fake("pyparam::measure_histogram")  # type: ignore[untyped-decorator]
def _measure_histogram_shapes(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """In Python, since how many bins have values depends on the data."""
    rows = len(tensors) + 1
    like = tensors[0] if tensors else torch.empty(0, dtype=torch.float32, device="cpu")
    entries = torch.library.get_ctx().new_dynamic_size()

    def make(dtype: torch.dtype, *shape: int | torch.SymInt) -> Tensor:
        return like.new_empty(shape, dtype=dtype)

    return (
        make(torch.float64, rows, 11),
        make(torch.int64, rows, 8),
        make(torch.int64, rows, 21),
        make(torch.int64, rows + 1),
        make(torch.int32, entries),
        make(torch.int64, entries),
    )


def row_errors(table: ParamTable, grad: bool, kinds: Kinds = MISTAKES) -> Reworded:
    """``named_errors``; with ``grad`` for ops over the gradients that are there."""
    return named_errors(cast(ParamTable, _WithGradients(table)) if grad else table, kinds)


class _WithGradients:
    """The names of a table's parameters that have a gradient, found when someone asks."""

    def __init__(self, table: ParamTable) -> None:
        self._table = table

    @property
    def names(self) -> list[str]:
        return [name for name, tensor in self._table if tensor.grad is not None]


def _points(quantiles: Sequence[float]) -> tuple[float, ...]:
    points = tuple(float(q) for q in quantiles)
    for q in points:
        if not 0 <= q <= 1:
            raise ValueError(f"measure: quantiles must lie in [0, 1], got {q}")
    return points
