"""Makes the reference: a page for the public names of each part of the package, from their docstrings.

A public name without a docstring is a warning, which the strict build takes for an error. Nothing is
imported: the names are read off the source.
"""

from __future__ import annotations

import ast
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).resolve().parent.parent / "pyparam"
log = logging.getLogger("mkdocs.hooks.pyparam")


def public(front: Path) -> dict[str, str]:
    """The names of ``__all__`` in a package's front page, each with the module that it comes from."""
    tree = ast.parse(front.read_text(encoding="utf-8"))
    homes: dict[str, str] = {}
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            homes |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            names = ast.literal_eval(node.value)
    return {name: homes[name] for name in names if homes.get(name, "torch").startswith("pyparam.")}


def source_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def docstring(name: str, module: str) -> str | None:
    """The docstring of the definition; None where it is another package's, which has its own reference."""
    for node in ast.parse(source_of(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return docstring(alias.name, node.module) if node.module.startswith("pyparam") else None
    return ""


def on_files(files: Files, *, config: Any) -> Files:
    pages: dict[str, list[str]] = defaultdict(list)
    for package in ("pyparam", "pyparam.init"):
        for name, module in public(source_of(package)).items():
            told = docstring(name, module)
            if told is None:
                continue
            if not told:
                log.warning("%s.%s has no docstring", package, name)
            # A page for each room, and one for the public subpackage.
            room = "init" if package != "pyparam" else module.split(".")[1].strip("_")
            pages[room].append(f"::: {package}.{name}")
    for room, entries in pages.items():
        title = f"pyparam.{room}" if room == "init" else room.capitalize()
        text = f"# {title}\n\n" + "\n\n".join(sorted(entries)) + "\n"
        files.append(File.generated(config, f"api/{room}.md", content=text))
    return files
