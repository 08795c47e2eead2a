"""An extension of griffe, which reads the package for the reference.

Public functions of the compiled module have their signature from its stub, and their docstring from where
they are defined, in C++. What docstrings borrow from reStructuredText becomes Markdown.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import griffe

DEFINED_IN = Path(__file__).resolve().parent.parent / "csrc" / "walk" / "access.cpp"


def docstrings() -> dict[str, str]:
    """Of functions whose text is a signature, the line ``--`` and a docstring, as CPython reads it."""
    found = {}
    for literals in re.findall(r'(?:"(?:[^"\\]|\\.)*"\s*)+', DEFINED_IN.read_text(encoding="utf-8")):
        # Literals of C++ that stand side by side are one, as in Python.
        text = ast.literal_eval(f"({literals.strip()})")
        signature, dashes, told = text.partition("\n--\n\n")
        if dashes:
            found[signature.partition("(")[0]] = told
    return found


SECTION = re.compile(r"^( *)(?:Args|Attributes|Raises):\n(?:\1 +\S.*\n?|\n)*", re.MULTILINE)
TOGETHER = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)


def one_by_one(section: re.Match[str]) -> str:
    """What is said of several names together is said of each: a parser takes one name for one item."""

    def each(item: re.Match[str]) -> str:
        return "\n".join(f"{item[1]}{name}: {item[3]}" for name in item[2].split(", "))

    return TOGETHER.sub(each, section[0])


def markdown(docstring: str) -> str:
    named = SECTION.sub(one_by_one, docstring)
    named = re.sub(r":(?:class|func|meth|attr|mod):`~?([^`]*)`", r"`\1`", named)
    # An indented block is code in both; a line of colons alone begins one without a word.
    return re.sub(r"::$", ":", re.sub(r"^ *::$", "", named, flags=re.M), flags=re.M)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        stub = pkg["_C"]
        for name, told in docstrings().items():
            home = pkg["_access.access"]
            if name not in home.members:
                continue
            function = stub[name]
            shown = griffe.Function(
                name,
                parameters=function.parameters,
                returns=function.returns,
                docstring=griffe.Docstring(told, parser="google"),
            )
            home.set_member(name, shown)
