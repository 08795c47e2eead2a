"""``pyparam stats``."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import torch
import typer

from pyparam._base.native import _C
from pyparam._base.words import dtype_name, plain, plural, size
from pyparam._cli.source import Part, Source, load, mistakes
from pyparam._measure.measure import measure
from pyparam._measure.rows import Row, finite_or_none, marked, number
from pyparam._measure.stats import Stats

_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_SMALLER = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
_ROWS = 200
_FIGURES = ("mean", "std", "min", "max", "l2", "zeros", "nans", "infs", "subnormals")


def stats(
    source: Source,
    grad: Annotated[bool, typer.Option("--grad", help="Measure the gradients instead.")] = False,
    histogram: Annotated[
        bool, typer.Option("--histogram", help="Add quantiles, and what smaller dtypes would lose.")
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", metavar="COLUMN", help="Order by a column, largest first.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=0, metavar="N", help="Show N rows; else 200, in JSON all.", show_default=False
        ),
    ] = None,
    part: Part = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with null for NaN.")] = False,
) -> None:
    """Prints statistics of every parameter, from one pass over the values.

    Exit status: 0 when all values are finite, 1 when a parameter has a NaN or an infinity, 2 after a
    mistake.

    JSON: parameters (a list, in the order shown: name, shape, dtype, device and every figure), total,
    nonfinite and missing (names); with --histogram quantiles in each, and underflow (dtype to the fractions
    that become zero or subnormal, or overflow).

    \b
    Examples:
      pyparam stats model.safetensors
      pyparam stats model.safetensors --sort max_abs --limit 20
      pyparam stats checkpoints/ --histogram --json | jq .total
      pyparam stats model.safetensors > /dev/null || echo "not finite"
    """
    with mistakes():
        with _progress():
            found = measure(load(source, part=part), grad=grad, quantiles=_QUANTILES if histogram else ())
        shown = found.sort(sort) if sort is not None else found
        if as_json:
            typer.echo(json.dumps(_summary(shown, limit, histogram), indent=2))
        else:
            _print(shown, _ROWS if limit is None else limit, histogram)
    if found.nonfinite():
        raise typer.Exit(1)


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """A bar on a terminal's standard error, while the native code, which counts as it goes, measures."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        finished = threading.Event()

        def follow() -> None:
            while not finished.wait(0.1):
                done, total = _C.measure_progress()
                bar.update(task, completed=done, total=total or None)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            finished.set()
            follower.join()


def _summary(shown: Stats, limit: int | None, histogram: bool) -> dict[str, Any]:
    """``Stats.to_dict`` with parameters as a list in their order, and what smaller dtypes would lose."""
    made = {
        "parameters": [row.to_dict() for row in islice(shown, limit)],
        "total": shown.total.to_dict(),
        "nonfinite": shown.nonfinite(),
        "missing": shown.missing,
    }
    if histogram:
        made["underflow"] = {dtype_name(dtype): shown.underflow(dtype).total._asdict() for dtype in _SMALLER}
    out: dict[str, Any] = finite_or_none(made)
    return out


def _print(shown: Stats, limit: int, histogram: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pyparam._base.console import console

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    total = shown.total
    footer = ["total", plural(total.numel, "value"), "", *_figures(total), *_quantiles(total)]
    header = ["name", "shape", "dtype", *_FIGURES, *(f"q{q:g}" for q in _QUANTILES if histogram)]
    for i, (head, foot) in enumerate(zip(header, footer, strict=True)):
        table.add_column(
            head, Text(foot), justify="left" if i < 3 else "right", no_wrap=True, overflow="fold"
        )
    for row in islice(shown, limit):
        style = "red" if row.nonfinite else ""
        name = marked(plain(row.name), None if row.shared_with is None else plain(row.shared_with))
        cells = [name, _shape(row), dtype_name(row.dtype) if row.dtype else "", *_figures(row)]
        table.add_row(*(Text(cell, style) for cell in (*cells, *_quantiles(row))))
    # As wide as its rows: a name cut off is of no use to whoever reads the output with another program.
    console(width=10_000).print(table, soft_wrap=True, crop=False)
    lines = []
    if limit < len(shown):
        lines.append(f"the first {limit} of {plural(len(shown), 'row')}")
    lines.append(f"{plural(len(shown), 'parameter')}, {size(total.nbytes)}")
    shared = len(shown) - shown.shared_with.count(None)
    if shared:
        lines.append(f"shared storage is counted once in the total: {plural(shared, 'name')} share theirs")
    if shown.missing:
        lines.append(f"{len(shown.missing)} without a gradient")
    bad = shown.nonfinite()
    if bad:
        lines.append(f"not finite: {', '.join(map(plain, bad[:10]))}{', …' if len(bad) > 10 else ''}")
    if histogram:
        for dtype in _SMALLER:
            fates = shown.underflow(dtype).total
            lines.append(
                f"in {dtype_name(dtype)}: {fates.zero:.3%} would become zero, "
                f"{fates.subnormal:.3%} subnormal, {fates.overflow:.3%} overflow"
            )
    for line in lines:
        typer.echo(line)


def _shape(row: Row) -> str:
    return "" if row.shape is None else "[" + ", ".join(map(str, row.shape)) + "]"


def _figures(row: Row) -> list[str]:
    values = (row.mean, row.std, row.min, row.max, row.l2)
    counts = (row.zeros, row.nans, row.posinfs + row.neginfs, row.subnormals)
    return [*map(number, values), *(f"{count:,}" for count in counts)]


def _quantiles(row: Row) -> list[str]:
    return [number(value) for value in row.quantiles.values()]
