"""``plot``: figures of a source's parameters, made with matplotlib and without its pyplot."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pyparam._base.errors import spoken_by
from pyparam._base.modes import require_memory
from pyparam._base.words import a_kind
from pyparam._measure.measure import measure
from pyparam._measure.stats import Grouped, Stats
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = ("hist", "norms", "spectrum", "tree")
_History = (Stats, Record)


def plot(
    source: Any,
    kind: Literal["hist", "norms", "spectrum", "tree", "heat"] | None = None,
    *,
    axis: Literal["log", "linear"] = "log",
) -> Figure:
    """Draws the parameters of a source, or the course of several Stats over steps.

    - ``"hist"``: the values on a signed logarithmic axis, from the bins of ``measure``: a panel a parameter,
      or of more than 12 a panel for those whose names differ in their numbers alone.
    - ``"norms"``: L2 norm and RMS of each parameter, on logarithmic axes: by name up to 40, then in the
      model's order with the names but for their numbers as colours.
    - ``"spectrum"``: singular values of matrices, tensors of more dimensions as ``[first, the rest]``; of
      more than 32, the 32 largest. They are exact where the smaller side is at most 1,024; else the largest
      128 by randomised subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4, with 16 more
      columns and two iterations, from a seed of its own).
    - ``"tree"``: where the parameters are: modules from left to right, as high as their share. Shared storage
      counts once, alike modules are one cell.
    - ``"heat"``, of ``stats.by("role")`` and other groups: the RMS of each member as a colour, a row a group.
    - Of a list of Stats, of a Monitor or its ``history``, or of a mapping of steps to Stats: the RMS of each
      layer's weights over the steps, and where there are records also that of its gradients and its update
      relative to its weights. As ``"heat"`` the same as colours, layers over steps, with how much the norm of
      each layer's gradient fluctuates from record to record (1.4826 times the median magnitude of the changes
      of its logarithm over the last 10, over the root of 2), with spectra the largest singular value, and in
      words what left its course, as :func:`departures` finds it.

    What was put together or left out stands below the figure.

    Args:
        source: any source; for "hist" and "norms" also a Stats; see above for a history.
        kind: "hist" if it is left out, "heat" of groups.
        axis: of "hist" the axis of the values: "log" is signed logarithmic, the same for all panels, and
            shows a normal as two humps; "linear" is one of each panel's own, with 0.05 % of the values on
            each side left out where they lie far from the others.

    Returns:
        A ``matplotlib.figure.Figure`` of its own: nothing pops up, and neither pyplot nor rcParams are
        touched. ``figure.savefig("weights.pdf")`` writes it.

    Raises:
        ImportError: without matplotlib (``pip install 'pyparam[plot]'``).
        ValueError: for another kind, a source with nothing to draw, a parameter on the meta device.
        TypeError: for what is no source, or a parameter without plain values.
    """
    require_memory("plot")
    if axis not in ("log", "linear"):
        raise ValueError(f"plot: axis is 'log' or 'linear', got {axis!r}")
    history = _as_history(source.history if isinstance(source, Monitor) else source)
    if isinstance(source, Grouped) and kind in (None, "heat"):
        _require_matplotlib()
        from pyparam._view import plot_heat

        return plot_heat.draw(source)
    if kind == "heat" and history is None:
        raise TypeError("plot: 'heat' draws groups, as stats.by('role') makes them, or a history")
    if axis == "linear" and (history is not None or kind not in (None, "hist")):
        raise ValueError("plot: axis='linear' is for 'hist'")
    if history is None:
        kind = "hist" if kind is None else kind
        if kind not in _KINDS:
            raise ValueError(f"plot: no kind {kind!r}; there are {', '.join(map(repr, _KINDS))}")
    elif kind not in (None, "norms", "heat"):
        raise ValueError(
            f"plot: a history is drawn by its norms or as 'heat', and has no {kind!r}; plot one of its Stats"
        )
    _require_matplotlib()
    if history is not None and kind == "heat":
        from pyparam._view import plot_course

        return plot_course.draw(*history)
    if history is not None:
        from pyparam._view import plot_history

        return plot_history.draw(*history)
    if kind in ("hist", "norms"):
        stats = _measured(source, kind)
        if len(stats) == 0:
            raise ValueError("plot: there is nothing to plot: the source has no parameters")
        if kind == "hist":
            from pyparam._view import plot_hist, plot_linear

            return plot_hist.draw(stats) if axis == "log" else plot_linear.draw(stats)
        from pyparam._view import plot_norms

        return plot_norms.draw(stats)
    if isinstance(source, Stats):
        raise TypeError(f"plot: {kind!r} needs the parameters themselves, and Stats have only their figures")
    if kind == "spectrum":
        from pyparam._view import plot_spectrum

        return plot_spectrum.draw(source)
    from pyparam._view import plot_tree

    return plot_tree.draw(source)


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib, which is not installed (pip install 'pyparam[plot]')"
        ) from error


def _measured(source: Any, kind: str) -> Stats:
    if not isinstance(source, Stats):
        with spoken_by("plot", "measure"):
            return measure(source, histogram=kind == "hist")
    if kind == "hist" and source._columns.bins is None:
        raise ValueError(
            "plot: 'hist' needs histograms, and these Stats have none; measure with histogram=True"
        )
    return source


def _as_history(source: Any) -> tuple[list[float], list[Stats | Record]] | None:
    """Steps and what was measured at them; None for what is no history.

    Raises TypeError for a mixture, ValueError for an empty list.
    """
    if isinstance(source, Mapping):
        if not isinstance(next(iter(source.values()), None), _History):
            return None
        items, steps = list(source.values()), list(source)
    elif isinstance(source, (list, tuple, deque)):
        if not source:
            raise ValueError("plot: there is nothing to plot: the list is empty")
        if not isinstance(source[0], _History):
            return None
        items = list(source)
        steps = [item.step if isinstance(item, Record) else i for i, item in enumerate(items)]
    else:
        return None
    kind = Record if isinstance(items[0], Record) else Stats
    for step, item in zip(steps, items, strict=True):
        if not isinstance(item, kind):
            raise TypeError(
                f"plot: entry {step!r} of the history is {a_kind(item)}; expected {kind.__name__}"
            )
        if not isinstance(step, (int, float)):
            raise TypeError(f"plot: the steps of a history are numbers, and {step!r} is {a_kind(step)}")
    return steps, items
