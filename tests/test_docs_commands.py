"""What the documentation says of the command line is what the command line does."""

from __future__ import annotations

import html
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from documents import ROOT

from pyparam._cli import app

DOCS = ROOT / "docs"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
# A line of code, or code within one, as far as it is the program's.
CALL = re.compile(r"(?:^(?: {2,}|\$ )|`)pyparam ((?:" + "|".join(COMMANDS) + r") [^`|>\n]*)", re.MULTILINE)


def options(command: Any) -> set[str]:
    names = (name for one in command.params for name in (*one.opts, *one.secondary_opts))
    return {name for name in names if name.startswith("-")}


def parsed(call: str) -> None:
    """Has a command read its arguments, and runs nothing."""
    name, *arguments = shlex.split(call, comments=True)
    COMMANDS[name].make_context(name, arguments)


def pages() -> list[Path]:
    return [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]


def test_commands_on_the_pages_are_ones_that_the_program_takes() -> None:
    calls = [call for page in pages() for call in CALL.findall(page.read_text(encoding="utf-8"))]
    assert len(calls) > 20
    for call in calls:
        parsed(call)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_are_ones_that_the_program_takes(name: str) -> None:
    told = (COMMANDS[name].help or "").split("Examples:")[1]
    calls = CALL.findall(told)
    assert calls
    for call in calls:
        parsed(call)


# Those of other programs that the pages name.
OTHERS = {"--no-build-isolation", "--tool", "--install-completion", "--show-completion", "--help"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_options_that_a_page_names_are_there(page: Path) -> None:
    known = OTHERS.union(*map(options, COMMANDS.values()))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text(encoding="utf-8")))
    assert named <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_the_command_line_has_every_option(name: str) -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    section = re.search(rf"^## pyparam {name}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section[1]))
    assert options(COMMANDS[name]) <= shown


def pictures() -> Any:
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(svg: str) -> list[str]:
    return html.unescape(" ".join(re.findall(r"<text [^>]*>([^<]*)</text>", svg))).split()


def test_the_terminals_show_what_their_commands_print(tmp_path: Path) -> None:
    made = pictures()
    made.write_files(tmp_path)
    for path, command in made.TERMINALS.items():
        now = made.printed(command, tmp_path).plain.split()
        assert words((DOCS / path).read_text(encoding="utf-8")) == now, path


def test_every_picture_is_made_and_shown() -> None:
    made = pictures()
    there = {str(path.relative_to(DOCS)) for kind in ("png", "svg") for path in DOCS.rglob(f"*.{kind}")}
    assert there == {*made.TERMINALS, *made.FIGURES, *made.PAGES}
    shown = set()
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            shown.add(str((page.parent / target).resolve().relative_to(DOCS)))
    assert shown == there
