"""``pyparam stats``."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import torch
import typer

from pyparam._base.native import _C
from pyparam._base.words import dtype_name, plain, plural, size
from pyparam._cli.fit import Columns, fitting
from pyparam._cli.mistake import mistakes
from pyparam._cli.options import ROWS, Arguments, Exclude, Limit, Part, Select, Sort, Source, choice
from pyparam._cli.source import load
from pyparam._measure.json_rows import json_rows
from pyparam._measure.readable import measure_dequantized, measure_readable
from pyparam._measure.rows import Row, finite_or_none, marked, number
from pyparam._measure.stats import Stats
from pyparam._measure.told import reasons_told
from pyparam._sources.quantized import Logical

_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_SMALLER = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
_FIGURES = ("mean", "std", "min", "max", "l2", "zeros", "nans", "infs", "subnormals")


def stats(
    source: Source,
    grad: Annotated[bool, typer.Option("--grad", help="Measure the gradients instead.")] = False,
    histogram: Annotated[
        bool, typer.Option("--histogram", help="Add quantiles, and what smaller dtypes would lose.")
    ] = False,
    sort: Sort = None,
    limit: Limit = None,
    part: Part = None,
    arguments: Arguments = None,
    select: Select = None,
    exclude: Exclude = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Measure quantized parameters by the values they stand for.")
    ] = False,
    columns: Columns = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with null for NaN.")] = False,
) -> None:
    """Prints statistics of every parameter, from one pass over the values.

    A parameter that cannot be read (sparse, quantized, on the meta device, ...) costs its row. Packed weights
    of bitsandbytes, GPTQ, AWQ, compressed-tensors, fp8, MXFP4 and NVFP4 are measured as stored, and with
    --dequantize as one parameter each, by its values.

    Exit status: 0 when all values are finite, 1 when a parameter has a NaN or an infinity or could not be
    read, 2 after a mistake.

    JSON: parameters (a list, in the order shown: name, shape, dtype, device and every figure), total,
    nonfinite and missing (names), unread (name to reason), quantized (with --dequantize: name, scheme,
    shape, bits a value); with --histogram quantiles in each, and underflow (dtype to the fractions
    that become zero or subnormal, or overflow).

    \b
    Examples:
      pyparam stats model.safetensors
      pyparam stats model.safetensors --sort max_abs --limit 20
      pyparam stats model.safetensors --select "layers.*" --exclude "*.bias"
      pyparam stats checkpoints/ --histogram --json | jq .total
      pyparam stats model.safetensors > /dev/null || echo "not finite"
    """
    with mistakes():
        with _progress():
            loaded = load(source, part=part, arguments=arguments)
            options: dict[str, Any] = {"grad": grad, "quantiles": _QUANTILES if histogram else ()}
            logical: list[Logical] = []
            chosen = choice(select, exclude)
            if dequantize:
                found, unread, logical, raw = measure_dequantized(loaded, select=chosen, **options)
            else:
                found, unread = measure_readable(loaded, select=chosen, **options)
                raw = []
        shown = found.sort(sort) if sort is not None else found
        if as_json:
            made = _summary(shown, histogram)
            told = [_logical(one) for one in logical]
            for text in json_text(shown, limit, {**made, "unread": unread, "quantized": told}):
                typer.echo(text, nl=False)
        else:
            _print(shown, ROWS if limit is None else limit, histogram, columns)
            for line in _notes(unread, logical, raw):
                typer.echo(line)
    if found.nonfinite() or unread:
        raise typer.Exit(1)


def _logical(one: Logical) -> dict[str, Any]:
    return {"name": one.name, "scheme": one.scheme, "shape": list(one.shape), "bits": one.bits}


def _notes(unread: dict[str, str], logical: list[Logical], raw: list[str]) -> Iterator[str]:
    yield from reasons_told("not read", unread)
    for scheme in dict.fromkeys(one.scheme for one in logical):
        alike = [one for one in logical if one.scheme == scheme]
        values, stored = sum(one.numel for one in alike), sum(one.nbytes for one in alike)
        yield (
            f"{plural(len(alike), 'parameter')} of {scheme}: {plural(values, 'value')} at "
            f"{8 * stored / max(values, 1):.3g} bits each"
        )
    if raw:
        more = ", …" if len(raw) > 5 else ""
        yield f"raw values, of no scheme that is known: {', '.join(map(plain, raw[:5]))}{more}"


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


def json_text(shown: Stats, limit: int | None, rest: Mapping[str, Any]) -> Iterator[str]:
    """An object of ``parameters``, a line each, and the rest, in pieces: there may be half a million rows."""
    yield '{\n  "parameters": ['
    some = False
    for text in json_rows(shown, limit, ",\n    "):
        yield text if some else f"\n    {text}"
        some = True
    yield "\n  ]" if some else "]"
    for key, value in rest.items():
        text = json.dumps(value, indent=2).replace("\n", "\n  ")
        yield f",\n  {json.dumps(key)}: {text}"
    yield "\n}\n"


def _summary(shown: Stats, histogram: bool) -> dict[str, Any]:
    """What ``Stats.to_dict`` has beside the rows, and what smaller dtypes would lose."""
    made = {
        "total": shown.total.to_dict(),
        "nonfinite": shown.nonfinite(),
        "missing": shown.missing,
    }
    if histogram:
        made["underflow"] = {dtype_name(dtype): shown.underflow(dtype).total._asdict() for dtype in _SMALLER}
    out: dict[str, Any] = finite_or_none(made)
    return out


def _print(shown: Stats, limit: int, histogram: bool, columns: str | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pyparam._base.console import console

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    total = shown.total
    footer = ["total", plural(total.numel, "value"), "", *_figures(total), *_quantiles(total)]
    header = ["name", "shape", "dtype", *_FIGURES, *(f"q{q:g}" for q in _QUANTILES if histogram)]
    rows = []
    for row in islice(shown, limit):
        name = marked(plain(row.name), None if row.shared_with is None else plain(row.shared_with))
        cells = [name, _shape(row), dtype_name(row.dtype) if row.dtype else "", *_figures(row)]
        rows.append([*cells, *_quantiles(row)])
    kept = fitting(columns, header, _dropped(header))([header, footer, *rows])
    for i in kept:
        table.add_column(
            header[i], Text(footer[i]), justify="left" if i < 3 else "right", no_wrap=True, overflow="fold"
        )
    for row, cells in zip(shown, rows, strict=False):
        style = "red" if row.nonfinite else ""
        table.add_row(*(Text(cells[i], style) for i in kept))
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


def _dropped(header: list[str]) -> list[str]:
    """The columns a narrow terminal does without, the least telling first."""
    order = ("subnormals", "zeros", "l2", "infs", "nans", "min", "max", "dtype", "shape")
    return [*reversed([name for name in header if name.startswith("q")]), *order]


def _shape(row: Row) -> str:
    return "" if row.shape is None else "[" + ", ".join(map(str, row.shape)) + "]"


def _figures(row: Row) -> list[str]:
    values = (row.mean, row.std, row.min, row.max, row.l2)
    counts = (row.zeros, row.nans, row.posinfs + row.neginfs, row.subnormals)
    return [*map(number, values), *(f"{count:,}" for count in counts)]


def _quantiles(row: Row) -> list[str]:
    return [number(value) for value in row.quantiles.values()]
