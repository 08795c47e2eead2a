"""``log``: Stats and records into the logs of a training run."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

from pyparam._base.words import a_kind
from pyparam._measure.bins import Histogram
from pyparam._measure.labels import By
from pyparam._measure.rows import Row
from pyparam._measure.stats import Stats
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import Record

_FIGURES = ("l2", "mean", "std", "max_abs")
# An octave in 8 bins is about what TensorBoard's own bins are (a tenth wide).
_PER_OCTAVE = 8
_LONGEST = 512  # bins of a wandb.Histogram


def log(
    what: Stats | Record | Monitor,
    writer: Any,
    step: int | None = None,
    *,
    prefix: str = "",
    by: By | None = "role",
) -> None:
    """Writes Stats, or what a Monitor measured, to the log of a run, without another look at the values.

    Of a Record, and of the records of a Monitor that this writer has not had yet, the scalars of
    ``record.scalars(by)``: a chart a role, and not one a parameter.

    Of Stats, for every parameter, and for all together under the name "total": the scalars ``norm/<name>``,
    ``mean/<name>``, ``std/<name>``, ``max_abs/<name>`` and ``nonfinite/<name>`` (a count), and where
    histograms were counted ``values/<name>``. Counts are exact: bins of ``measure`` are added up, 8 to an
    octave for TensorBoard, and for wandb, which takes 512, as many to an octave as fit.

    ::

        writer = torch.utils.tensorboard.SummaryWriter()  # or run = wandb.init()
        pyparam.log(pyparam.measure(model, histogram=True), writer, step)
        pyparam.log(pyparam.measure(model, grad=True), writer, step, prefix="gradients")
        pyparam.log(pyparam.measure(model).by("role"), writer, step)
        monitor = pyparam.Monitor(model, on_record=lambda record: pyparam.log(record, writer))

    Args:
        what: what ``measure`` or ``stats.by`` gave, a Record, or a Monitor.
        writer: a ``SummaryWriter`` (of ``torch.utils.tensorboard``, or any with its ``add_scalar`` and
            ``add_histogram_raw``), or the run that ``wandb.init`` gave. For records also anything with
            ``log_metrics(metrics, step=...)``: the ``mlflow`` module, a logger of Lightning.
        step: the number of the step; of a record its own where it is left out.
        prefix: put before every tag, with a slash.
        by: what the scalars of a record are united by, as of ``Stats.by``; None for each parameter.

    Raises:
        TypeError: for anything else to log, for Stats without a step, or for any other writer.
    """
    start = f"{prefix}/" if prefix else ""
    if isinstance(what, Monitor):
        for record in what._not_yet_in(writer):
            log(record, writer, step, prefix=prefix, by=by)
        return
    if isinstance(what, Record):
        told = {start + tag: value for tag, value in what.scalars(by).items()}
        _metrics(told, writer, what.step if step is None else step)
        return
    if not isinstance(what, Stats):
        raise TypeError(
            f"log: got {a_kind(what)}; expected what pyparam.measure gives, a Record or a Monitor"
        )
    if step is None:
        raise TypeError("log: Stats have no step of their own; pass the number of the step")
    stats = what
    if _is_wandb(writer):
        _to_wandb(stats, writer, step, start)
    elif all(callable(getattr(writer, name, None)) for name in ("add_scalar", "add_histogram_raw")):
        _to_tensorboard(stats, writer, step, start)
    else:
        raise _no_writer(writer)


def _no_writer(writer: Any) -> TypeError:
    hint = " (pass the run that wandb.init gave)" if isinstance(writer, ModuleType) else ""
    return TypeError(
        f"log: expected a TensorBoard SummaryWriter or a wandb run to write to, got {a_kind(writer)}{hint}"
    )


def _metrics(told: dict[str, float], writer: Any, step: int) -> None:
    if _is_wandb(writer):
        writer.log(told, step=step)
    elif callable(getattr(writer, "add_scalar", None)):
        for tag, value in told.items():
            writer.add_scalar(tag, value, step)
    elif callable(getattr(writer, "log_metrics", None)):
        writer.log_metrics(told, step=step)
    else:
        raise _no_writer(writer)


def _is_wandb(writer: Any) -> bool:
    ours = any(base.__module__.partition(".")[0] == "wandb" for base in type(writer).__mro__)
    return ours and callable(getattr(writer, "log", None))


def _to_tensorboard(stats: Stats, writer: Any, step: int, start: str) -> None:
    for logged in _rows(stats):
        row, histogram = logged.row, logged.histogram(stats)
        for tag, value in _scalars(row):
            writer.add_scalar(start + tag, value, step)
        if histogram is None:
            continue
        edges, counts = _contiguous(histogram)
        finite = sum(counts)
        writer.add_histogram_raw(
            f"{start}values/{row.name}",
            min=row.min,
            max=row.max,
            num=finite,
            sum=row.mean * finite,
            sum_squares=row.rms**2 * finite if row.rms < 1e150 else sys.float_info.max,
            # A bucket ends at its limit and begins at that of the one before: an empty one opens the first.
            bucket_limits=edges,
            bucket_counts=[0, *counts],
            global_step=step,
        )


def _to_wandb(stats: Stats, run: Any, step: int, start: str) -> None:
    made: dict[str, Any] = {}
    histogram_class = sys.modules["wandb"].Histogram
    for logged in _rows(stats):
        made |= {start + tag: value for tag, value in _scalars(logged.row)}
        for bins_per_octave in (8, 4, 2, 1):  # with one, all of float32 fits
            histogram = logged.histogram(stats, bins_per_octave)
            if histogram is None:
                break
            edges, counts = _contiguous(histogram)
            if len(counts) <= _LONGEST:
                made[f"{start}values/{logged.row.name}"] = histogram_class(np_histogram=(counts, edges))
                break
    run.log(made, step=step)


class _Logged(NamedTuple):
    row: Row
    name: str | None  # None for the total

    def histogram(self, stats: Stats, bins_per_octave: int = _PER_OCTAVE) -> Histogram | None:
        """None where none was counted, or there is no finite value."""
        if stats._columns.bins is None:
            return None
        found = stats.histogram(self.name, bins_per_octave=bins_per_octave)
        return found if len(found.counts) else None


def _rows(stats: Stats) -> Iterator[_Logged]:
    for row in stats:
        yield _Logged(row, row.name)
    yield _Logged(stats.total, None)


def _scalars(row: Row) -> Iterator[tuple[str, float]]:
    for name in _FIGURES:
        value = getattr(row, name)
        if math.isfinite(value):
            yield f"{'norm' if name == 'l2' else name}/{row.name}", value
    yield f"nonfinite/{row.name}", row.nonfinite


def _contiguous(histogram: Histogram) -> tuple[list[float], list[int]]:
    """Edges and counts, one edge more than counts, with an empty bin where there are none."""
    edges: list[float] = [float(histogram.lower[0])]
    counts: list[int] = []
    columns = (column.tolist() for column in histogram)
    for lower, upper, count in zip(*columns, strict=True):
        if lower != edges[-1]:
            edges.append(lower)
            counts.append(0)
        edges.append(upper)
        counts.append(count)
    return edges, counts
