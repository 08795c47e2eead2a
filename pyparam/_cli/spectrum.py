"""``pyparam spectrum``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pyparam._base.words import plain, plural
from pyparam._cli.fit import Columns, fitting
from pyparam._cli.mistake import mistakes
from pyparam._cli.options import ROWS, Arguments, Exclude, Limit, Meta, Part, Select, Sort, Source, choice
from pyparam._cli.source import load
from pyparam._cli.terminal import working
from pyparam._measure.rows import finite_or_none
from pyparam._measure.spectra import Spectrum
from pyparam._measure.spectrum import spectrum as spectrum_of
from pyparam._measure.told import aligned

_DROPPED = ("dtype", "error", "effective_rank", "condition", "matrix", "stable_rank")


def spectrum(
    source: Source,
    k: Annotated[int, typer.Option("-k", min=1, metavar="K", help="How many singular values of each.")] = 1,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Of the residuals, relative to the largest singular value.")
    ] = 1e-4,
    condition: Annotated[
        bool, typer.Option(help="Estimate condition and effective rank too: most of the time.")
    ] = True,
    sort: Sort = None,
    limit: Limit = None,
    part: Part = None,
    arguments: Arguments = None,
    select: Select = None,
    exclude: Exclude = None,
    columns: Columns = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with null for NaN.")] = False,
    meta: Meta = False,
) -> None:
    """Prints the largest singular values, stable and effective rank and condition of every matrix.

    A tensor of more than two dimensions is the matrix (first, the rest). Up to a side of 128 all singular
    values are calculated; beyond, the K largest by block Lanczos iteration: "error" is the largest residual,
    within which of each value there is a singular value. A matrix that cannot be read costs its row.

    Exit status: 0 when all matrices could be read and are finite, 1 when one could not or is not, 2 after a
    mistake.

    JSON: parameters (a list, in the order shown: name, shape, matrix, dtype, sigma_max, singular_values, l2,
    stable_rank, effective_rank, condition, error, exact, nonfinite, shared_with), nonfinite (names) and
    left_out (name to reason).

    \b
    Examples:
      pyparam spectrum model.safetensors
      pyparam spectrum model.safetensors -k 8 --sort condition --limit 20
      pyparam spectrum model.safetensors --no-condition --select "*.q_proj.weight"
      pyparam spectrum model.pt --json | jq '.parameters[].stable_rank'
    """
    with mistakes():
        loaded = load(source, meta=meta, arguments=arguments, part=part)
        chosen = choice(select, exclude)
        with working(f"reading {source}"):
            found = spectrum_of(loaded, k, tolerance=tolerance, condition=condition, select=chosen)
        shown = found.sort(sort) if sort is not None else found
        if as_json:
            made = {**shown.to_dict(), "parameters": [row.to_dict() for row in shown[:limit]]}
            typer.echo(json.dumps(finite_or_none(made), indent=2))
        else:
            _print(shown, ROWS if limit is None else limit, columns)
    if found.nonfinite() or found.left_out:
        raise typer.Exit(1)


def _print(shown: Spectrum, limit: int, columns: str | None) -> None:
    header, rows = shown.cells(limit)
    kept = fitting(columns, header, [name for name in _DROPPED if name in header])([header, *rows])
    left = {place for place, column in enumerate(kept) if column < 3}
    typer.echo(aligned([[line[column] for column in kept] for line in (header, *rows)], left=left))
    lines = [f"the first {limit} of {plural(len(shown), 'row')}"] if limit < len(shown) else []
    lines.append(plural(len(shown), "matrix", "matrices"))
    bad = shown.nonfinite()
    if bad:
        lines.append(f"not finite: {', '.join(map(plain, bad[:10]))}{', …' if len(bad) > 10 else ''}")
    for line in [*lines, *shown.notes()]:
        typer.echo(line)
