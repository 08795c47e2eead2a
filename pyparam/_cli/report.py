"""``pyparam report``."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from pyparam._base.words import plain, plural, size
from pyparam._cli.mistake import mistakes
from pyparam._cli.options import Arguments, Exclude, Meta, Part, Select, Source, choice, complete_source
from pyparam._cli.source import load
from pyparam._cli.terminal import working
from pyparam._cli.told import lines_of
from pyparam._measure.rows import finite_or_none
from pyparam._view.report import Report
from pyparam._view.report import report as write_report


def report(
    source: Source,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the report.")
    ] = Path("report.html"),
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="OTHER",
            help="Show what changed since OTHER.",
            show_default=False,
            autocompletion=complete_source,
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="The heading.", show_default=False)
    ] = None,
    part: Part = None,
    select: Select = None,
    exclude: Exclude = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    meta: Meta = False,
    arguments: Arguments = None,
) -> None:
    """Writes an HTML report: findings, a map of the modules, and every parameter with its values.

    The file stands alone and asks no network. Exit status: 0 when nothing wrong was found, 1 when a finding
    is an error or a warning, 2 after a mistake; notes, such as ties, are neither.

    JSON: path, bytes, findings (a list, each with kind, severity, title, reason, names and their details);
    with --against comparison, as pyparam compare --json has it.

    \b
    Examples:
      pyparam report model.safetensors
      pyparam report mypackage.models:build -o model.html --open
      pyparam report after.pt --against before.pt -o changes.html
      pyparam report model.pt --json | jq '.findings[].title'
    """
    with mistakes():
        model = load(source, meta=meta, arguments=arguments, part=part)
        other = None if against is None else load(against, part=part)
        chosen = choice(select, exclude)
        heading = title if title is not None else source if ":" in source or source == "demo" else None
        try:
            with working(f"reading {source}"):
                made = write_report(model, output, against=other, title=heading, select=chosen)
        except ImportError as error:
            typer.echo(f"pyparam: {error}", err=True)
            raise typer.Exit(2) from None
        if as_json:
            typer.echo(json.dumps(_told(made), indent=2))
        else:
            for line in _lines(made):
                typer.echo(line)
        if open_it and not webbrowser.open(made.path.absolute().as_uri()):
            typer.echo("pyparam: no browser was found to open it", err=True)
    if made.faults:
        raise typer.Exit(1)


def _told(made: Report) -> dict[str, Any]:
    out: dict[str, Any] = {
        "path": str(made.path),
        "bytes": made.path.stat().st_size,
        "findings": [finding.to_dict() for finding in made.findings],
    }
    if made.comparison is not None:
        out["comparison"] = finite_or_none(made.comparison.to_dict())
    return out


def _lines(made: Report) -> list[str]:
    lines = [f"{plain(str(made.path))}  {size(made.path.stat().st_size)}"]
    if made.comparison is not None:
        found = made.comparison
        lines.append(
            "nothing changed" if found.equal else f"{plural(len(found.changed()), 'parameter')} changed"
        )
    if not made.faults:
        lines.append("nothing wrong was found")
    for finding in made.findings:
        lines += lines_of(finding, advice=False)
    return lines
