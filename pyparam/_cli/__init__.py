"""The command line: one command a file, registered below."""

from __future__ import annotations

import os
import sys

import typer

from pyparam._cli import compare, report, show, stats, ties

app = typer.Typer(
    name="pyparam",
    help="Looks into the parameters of a model or a checkpoint.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _version_holder() -> None:
    """Looks into the parameters of a model or a checkpoint."""


app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("show")(show.show)
app.command("stats")(stats.stats)
app.command("ties")(ties.ties)


def main() -> None:
    """Runs the command line; exits with 2 after a user's mistake."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough (`| head`). What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
