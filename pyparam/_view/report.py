"""report: everything about a source's parameters in one HTML file."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from pyparam._base.files import replacing, writable
from pyparam._base.modes import require_memory
from pyparam._base.words import a_kind
from pyparam._compare.compare import compare
from pyparam._compare.comparison import Comparison
from pyparam._findings import Finding, Survey, findings_of, survey
from pyparam._measure.spectrum import spectrum
from pyparam._sources import path as paths
from pyparam._sources.table import Pattern
from pyparam._view.html.content import packed
from pyparam._view.html.page import check_installed, page
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import Record


@dataclass(frozen=True)
class Report:
    """What ``report`` wrote, and what it found."""

    path: Path
    """The HTML file."""

    findings: tuple[Finding, ...]
    """The gravest first; see ``Finding``."""

    comparison: Comparison | None = None
    """What changed, where it was asked for: ``compare(against, source)``."""

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are errors or warnings, without what is told for information."""
        return tuple(finding for finding in self.findings if finding.is_fault)

    def __repr__(self) -> str:
        lines = [f"Report at {self.path}: " + ("no findings" if not self.findings else "")]
        return "\n".join([lines[0].rstrip(": ") if self.findings else lines[0], *map(str, self.findings)])


def report(
    source: Any,
    path: str | os.PathLike[str],
    *,
    against: Any = None,
    title: str | None = None,
    select: Pattern | None = None,
    history: Any = None,
    spectra: bool = False,
) -> Report:
    """Writes one HTML file about a source's parameters and buffers, to be opened in a browser.

    The file stands alone: its data, code and styles are inside, and it asks no network. It lists what was
    found (values that are not finite, dead, constant and never-initialised tensors, repeated rows, odd
    scales, dtypes that lose range, ties, mixed devices and dtypes), draws where the parameters and bytes are,
    and has a table of all parameters and a page for each: its values, quantiles and what smaller dtypes would
    lose.

    Values are read in one pass, as by ``measure``. Tensors without values that can be read (on the meta
    device, sparse, quantized, ...) are listed without statistics.

    Args:
        source: whatever has parameters: a module, a TorchScript module, a state dict, a checkpoint's path; a
            Monitor stands for its model, with its history.
        path: where to write; an existing file is replaced, once the new one is complete.
        against: another source; the report then shows what changed from it to ``source``, as
            ``compare(against, source)``.
        select: only what ``ParamTable.select`` takes with this pattern, of both sources.
        history: a :class:`Monitor`, or its ``history``: the report then shows where training stands, layers
            over steps, and in words what left its course (:func:`departures`).
        spectra: shows the largest singular value and the stable rank of each matrix beside those of other
            layers, as :func:`spectrum` finds them without condition: products of each matrix with a few
            vectors, some tens of times.
        title: the report's heading; by default the file's name or the model's class.

    Returns:
        A :class:`Report` with ``path``, ``findings`` and ``comparison``.

    Raises:
        ImportError: jinja2 or plotly is not installed (``pip install "pyparam[report]"``).
        TypeError, ValueError: for what is no source, as ``measure`` and ``compare``; for a Monitor whose
            model is gone, or a history of anything else than records.
        ValueError: where the path is no regular file, such as a device or a pipe.
        OSError: where the file cannot be written.
    """
    require_memory("report")
    check_installed()
    where = Path(os.fsdecode(os.fspath(path)))
    writable("report", where)
    if isinstance(source, Monitor):
        source, history = _model_of(source), source if history is None else history
    records = _records(history)
    label = _label(source)
    seen = survey(source, select)
    found = findings_of(seen)
    seen.let_go()
    compared: tuple[str, Comparison, list[str]] | None = None
    if against is not None:
        other = _label(against)
        compared = (other if other != label else f"the other {other}", *_compared(against, seen, select))
    singular = spectrum(seen.table, condition=False) if spectra else None
    heading = title if title is not None else label
    data = packed(
        seen, found, title=heading, made=_made(), against=compared, history=records, spectrum=singular
    )
    del seen, singular  # of very many rows they take more than the file
    with replacing("report", where) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(title=heading, data=data))
    return Report(where, tuple(found), None if compared is None else compared[1])


def _model_of(monitor: Monitor) -> Any:
    if monitor.model is None:
        raise ValueError(
            "report: the Monitor's model is gone; pass the model itself, and history=monitor.history"
        )
    return monitor.model


def _records(history: Any) -> list[Record]:
    if history is None:
        return []
    records = history.history if isinstance(history, Monitor) else history
    if not isinstance(records, (list, tuple)) or not all(isinstance(one, Record) for one in records):
        raise TypeError(
            f"report: history is {a_kind(history)}; expected a Monitor or its history, a list of Records"
        )
    return [record for record in records if len(record.weights)]


def _label(source: Any) -> str:
    if paths.accepts(source):
        return Path(os.fsdecode(os.fspath(source))).name or str(source)
    kind = getattr(source, "original_name", None) if isinstance(source, nn.Module) else None
    if isinstance(kind, str) and kind:
        return kind
    return type(source).__name__


def _compared(against: Any, seen: Survey, select: Pattern | None) -> tuple[Comparison, list[str]]:
    """The comparison, without what either side has no plain values of; and the names left out."""
    found = compare(against, seen.source, select=select)
    return found, list(found.unread)


def _made() -> str:
    try:
        version = f" {metadata.version('pyparam')}"
    except metadata.PackageNotFoundError:
        version = ""
    now = time.strftime("%Y-%m-%d at %H:%M")
    return f"Made by pyparam{version} on {now}. Nothing here was loaded from a network."
