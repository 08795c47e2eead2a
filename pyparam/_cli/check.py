"""``pyparam check``."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pyparam._base.words import plural
from pyparam._cli.mistake import mistakes
from pyparam._cli.options import Arguments, Exclude, Meta, Select, Source, choice
from pyparam._cli.source import load
from pyparam._cli.terminal import working
from pyparam._cli.told import lines_of
from pyparam._findings import SEVERITIES, findings
from pyparam._sources import table_of


class FailOn(str, enum.Enum):
    error = "error"
    warning = "warning"
    info = "info"
    never = "never"


def check(
    source: Source,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="The least severity that makes the exit status 1.")
    ] = FailOn.warning,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="KIND|GLOB",
            help="Leave out a kind of finding, or the parameters that a glob matches; several times.",
            show_default=False,
        ),
    ] = None,
    select: Select = None,
    exclude: Exclude = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    meta: Meta = False,
    arguments: Arguments = None,
) -> None:
    """Says what is wrong with a source's parameters, why, and what to do next.

    Exit status: 0 when nothing of the severity of --fail-on or above was found, 1 when something was, 2 after
    a mistake. Needs neither a browser nor the packages of the report.

    JSON: findings (a list, the gravest first, each with kind, severity, title, reason, names, details, advice
    and confidence) and counts (by severity).

    \b
    Examples:
      pyparam check model.safetensors
      pyparam check checkpoint.pt --fail-on error --ignore tied
      pyparam check mypackage.models:build --ignore scale --ignore "*.lora_B.*"
      pyparam check model.pt --json | jq -r '.findings[] | .kind + ": " + .title'
    """
    with mistakes():
        model = load(source, meta=meta, arguments=arguments)
        if isinstance(model, Iterator):
            model = list(model)
        with working(f"reading {source}"):
            found = findings(model, ignore=ignore or (), select=choice(select, exclude))
        counts = {severity: sum(f.severity == severity for f in found) for severity in SEVERITIES}
        if as_json:
            typer.echo(json.dumps({"findings": [f.to_dict() for f in found], "counts": counts}, indent=2))
        else:
            for finding in found:
                for line in lines_of(finding, advice=True):
                    typer.echo(line)
            told = ", ".join(
                plural(counts[s], w) for s, w in zip(SEVERITIES, _WORDS, strict=True) if counts[s]
            )
            typer.echo(told or "nothing was found")
            if not found and not _has_any(model):
                typer.echo("there was nothing to look at: it has no parameters and no tensors")
    limit = -1 if fail_on is FailOn.never else SEVERITIES.index(fail_on.value)
    if any(SEVERITIES.index(finding.severity) <= limit for finding in found):
        raise typer.Exit(1)


def _has_any(source: Any) -> bool:
    """Whether a source has a tensor. Asked where nothing was found alone: it walks once more."""
    return len(table_of(source, buffers=True, values=False)) > 0


_WORDS = ("error", "warning", "note")
