"""``pyparam compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any

import typer

from pyparam._base.rename import Rule, parse_rule
from pyparam._cli.fit import Columns, fitting
from pyparam._cli.mistake import Mistake, mistakes
from pyparam._cli.options import Exclude, Part, Select, choice, complete_source
from pyparam._cli.source import load
from pyparam._cli.terminal import working
from pyparam._compare.compare import compare as compare_sources
from pyparam._compare.comparison import Comparison
from pyparam._compare.fingerprint import Fingerprint
from pyparam._compare.fingerprint import fingerprint as fingerprint_source
from pyparam._compare.printed import Fit
from pyparam._measure.rows import finite_or_none
from pyparam._sources.chosen import chosen_of

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
    select: Select = None,
    exclude: Exclude = None,
    map_names: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="RULE",
            help="Change names first: PREFIX removes it, GLOB=REPLACEMENT, /EXPRESSION/=REPLACEMENT; "
            "a: or b: before it names a side.",
            show_default=False,
        ),
    ] = None,
    cast: Annotated[
        bool, typer.Option("--cast", help="What is the other side rounded to its dtype is no difference.")
    ] = False,
    atol: Annotated[
        float | None,
        typer.Option(
            "--atol", metavar="X", help="As torch.allclose: |a-b| <= X + rtol |b|.", show_default=False
        ),
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(
            "--rtol", metavar="X", help="As torch.allclose: |a-b| <= atol + X |b|.", show_default=False
        ),
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Compare quantized parameters by the values they stand for.")
    ] = False,
    columns: Columns = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compares two models or checkpoints, parameter by parameter.

    Exit status: 0 if both hold the same names, shapes, dtypes and bits (but for what --cast, --atol and
    --rtol accept), 1 if they differ or something could not be looked at, 2 after a mistake.

    JSON: equal, missing and unexpected (names), shape_changed and dtype_changed (name to the two), changed
    (names), recognised and accepted (name to words), structure (kind, a, b, rel_l2, note, equal), roles
    (name, count, changed, least and most rel_l2), unread and unseen (name to reason), values_changed,
    suggestion (remove, from, matched), parameters (a list with the figures of each), worst (names). With
    --fingerprint: equal, differing (names), and a and b, each with its total and its parameters'
    fingerprints.

    \b
    Examples:
      pyparam compare before.safetensors after.safetensors
      pyparam compare model.pt mypackage.models:build --worst 3 --by max_abs
      pyparam compare net.pt ddp.pt --map module.
      pyparam compare a.pt b.safetensors --map 'b:*.gamma=*.weight' --cast
      pyparam compare before.ckpt after.ckpt --part model
      pyparam compare a.safetensors b/ --fingerprint
      pyparam compare a.pt b.pt --json | jq .changed
    """
    with mistakes():
        source_a, source_b = load(a, part=part), load(b, part=part)
        chosen = choice(select, exclude)
        if fingerprint:
            if map_names or cast or atol is not None or rtol is not None:
                raise Mistake("--fingerprint tells bits alone: leave out --map, --cast, --atol and --rtol")
            with working(f"fingerprints of {a} and {b}"):
                if chosen is not None:
                    source_a, source_b = chosen_of(source_a, chosen), chosen_of(source_b, chosen)
                prints = fingerprint_source(source_a), fingerprint_source(source_b)
            same = _by_fingerprint(*prints, as_json)
        else:
            rules = _rules(map_names or ())
            with working(f"comparing {a} with {b}"):
                found = compare_sources(
                    source_a,
                    source_b,
                    rename=rules["rename"],
                    rename_a=rules["rename_a"],
                    rename_b=rules["rename_b"],
                    cast=cast,
                    atol=atol,
                    rtol=rtol,
                    dequantize=dequantize,
                    select=chosen,
                )
            fit = fitting(columns, _KEYS, _DROPPED)
            same = _by_value(found, worst, by.value, as_json, fit)
    raise typer.Exit(0 if same else 1)


_KEYS = ("parameter", "shape", "max_abs", "mean_abs", "rel_l2", "cosine", "differing", "nonfinite", "first")
# The least telling first.
_DROPPED = ("mean_abs", "first", "cosine", "shape", "nonfinite", "differing", "max_abs")


def _rules(texts: Sequence[str]) -> dict[str, list[Rule]]:
    rules: dict[str, list[Rule]] = {"rename": [], "rename_a": [], "rename_b": []}
    for text in texts:
        side, colon, rest = text.partition(":")
        sided = bool(colon) and side in ("a", "b")
        rules[f"rename_{side}" if sided else "rename"].append(parse_rule(rest if sided else text))
    return rules


def _by_value(found: Comparison, worst: int, by: str, as_json: bool, fit: Fit) -> bool:
    if as_json:
        rows = [row.name for row in found.worst(worst, by)]
        typer.echo(_json(finite_or_none({**found.to_dict(), "worst": rows})))
    else:
        typer.echo(found.to_text(worst, by, fit))
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
