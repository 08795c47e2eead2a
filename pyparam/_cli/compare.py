"""``pyparam compare``."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any

import typer

from pyparam._cli.source import Part, complete_source, load, mistakes
from pyparam._cli.terminal import working
from pyparam._compare.compare import Comparison
from pyparam._compare.compare import compare as compare_sources
from pyparam._compare.fingerprint import Fingerprint
from pyparam._compare.fingerprint import fingerprint as fingerprint_source

_HELP = "A checkpoint's path (or a directory of shards), package.module:factory, or 'demo'."


class Figure(str, Enum):
    """What rows can be sorted by."""

    max_abs = "max_abs"
    mean_abs = "mean_abs"
    l2 = "l2"
    rel_l2 = "rel_l2"
    cosine = "cosine"
    differing = "differing"
    nonfinite = "nonfinite"


def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help=_HELP, show_default=False, autocompletion=complete_source),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="What to compare A with.", show_default=False, autocompletion=complete_source
        ),
    ],
    worst: Annotated[int, typer.Option("--worst", min=0, metavar="N", help="Rows to print.")] = 10,
    by: Annotated[Figure, typer.Option("--by", help="What the printed rows differ most by.")] = Figure.rel_l2,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Tell by fingerprints alone which parameters differ.")
    ] = False,
    part: Part = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compares two models or checkpoints, parameter by parameter.

    Exit status: 0 if both hold the same names, shapes, dtypes and bits, 1 if they differ, 2 after a mistake.

    JSON: equal, missing and unexpected (names), shape_changed and dtype_changed (name to the two), changed
    (names), parameters (a list with the figures of each), worst (names). With --fingerprint: equal,
    differing (names), and a and b, each with its total and its parameters' fingerprints.

    \b
    Examples:
      pyparam compare before.safetensors after.safetensors
      pyparam compare model.pt mypackage.models:build --worst 3 --by max_abs
      pyparam compare a.safetensors b/ --fingerprint
      pyparam compare a.pt b.pt --json | jq .changed
    """
    with mistakes():
        source_a, source_b = load(a, part=part), load(b, part=part)
        if fingerprint:
            with working(f"fingerprints of {a} and {b}"):
                prints = fingerprint_source(source_a), fingerprint_source(source_b)
            same = _by_fingerprint(*prints, as_json)
        else:
            with working(f"comparing {a} with {b}"):
                found = compare_sources(source_a, source_b)
            same = _by_value(found, worst, by.value, as_json)
    raise typer.Exit(0 if same else 1)


def _by_value(found: Comparison, worst: int, by: str, as_json: bool) -> bool:
    if as_json:
        rows = [row.name for row in found.worst(worst, by)]
        typer.echo(_json({**found.to_dict(), "worst": rows}))
    else:
        typer.echo(found.to_text(worst, by))
    return found.equal


def _by_fingerprint(a: Fingerprint, b: Fingerprint, as_json: bool) -> bool:
    differing = a.diff(b)
    if as_json:
        typer.echo(_json({"equal": a == b, "differing": differing, "a": a.to_dict(), "b": b.to_dict()}))
        return a == b
    typer.echo(f"A  {a.total}  {_parameters(len(a))}")
    typer.echo(f"B  {b.total}  {_parameters(len(b))}")
    for name in differing:
        side = "" if name in a and name in b else ("  only in A" if name in a else "  only in B")
        typer.echo(f"  {name}{side}")
    typer.echo("the same" if a == b else f"{len(differing):,} differ")
    return a == b


def _parameters(count: int) -> str:
    return f"{count:,} parameter{'' if count == 1 else 's'}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
