"""The command line: one command a file, registered below."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated, Any

import typer
import typer.core

from pyparam._base.words import plain, plural
from pyparam._cli import check, compare, report, show, spectrum, stats, ties
from pyparam._cli.mistake import INTERRUPTED, READER_GONE, discard_output

_EPILOG = (
    "Exit status: 0 when all is well, 1 when a command found what it looks for (stats and spectrum: a value "
    "that is not finite; compare: a difference; check and report: an error or a warning), 2 after a mistake, "
    "130 when interrupted, 141 when the reader of the output went away."
)

app = typer.Typer(
    name="pyparam",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(typer.core.TyperCommand):
    """A command that says of a glob what to do, and does not repeat all that it stood for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        left = super().parse_args(ctx, args)
        if left and not ctx.resilient_parsing:
            shown = ", ".join(map(plain, left[:3])) + (", ..." if len(left) > 3 else "")
            ctx.fail(
                f"Got {plural(len(left), 'argument')} too many: {shown}. A command takes one path for each "
                "source; of a checkpoint in several files that is their folder."
            )
        return left


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            version = metadata.version("pyparam")
        except metadata.PackageNotFoundError:  # run from a source tree
            version = "(not installed)"
        typer.echo(f"pyparam {version}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Looks into the parameters of a model or a checkpoint.

    \b
    Examples:
      pyparam show demo
      pyparam stats model.safetensors
      pyparam check model.safetensors
      pyparam compare before.pt after.pt
      pyparam report model.safetensors --open
    """
    del version


for _command in (
    show.show,
    stats.stats,
    spectrum.spectrum,
    check.check,
    compare.compare,
    ties.ties,
    report.report,
):
    app.command(_command.__name__, cls=_Command)(_command)


def main() -> None:
    """Runs the command line; exits with 2 after a user's mistake."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed (`>&-`): what is printed goes nowhere, and the exit status still tells.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
    try:
        try:
            app(prog_name="pyparam")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough (`| head`).
        discard_output()
        sys.exit(READER_GONE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
