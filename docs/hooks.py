"""Makes the reference: a page for the public names of each part of the package, from their docstrings.

A public name without a docstring is a warning, which the strict build takes for an error, and so is a public
attribute of a public class that its page does not show. Nothing is imported: the names are read off the
source.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
log = logging.getLogger("mkdocs.hooks.pyparam")


@cache
def package() -> griffe.Module:
    extensions = griffe.load_extensions(str(ROOT / "docs" / "docstrings.py"))
    return griffe.load("pyparam", search_paths=[ROOT], extensions=extensions, allow_inspection=False)


def public(module: griffe.Module) -> dict[str, griffe.Object]:
    """The names of ``__all__`` and what they stand for, without what is another package's, which has its own
    reference."""
    found = {}
    for name in map(str, module.exports or ()):
        member = module[name]
        try:
            found[name] = member.final_target if member.is_alias else member
        except griffe.AliasResolutionError:
            continue
    return found


def is_made_by_users(found: griffe.Class) -> bool:
    """Whether the arguments of the constructor are documented: those of what a verb returns are not."""
    constructor = found.all_members.get("__init__")
    told = found.docstring.value.splitlines() if found.docstring else []
    return "Args:" in told or bool(constructor and constructor.docstring)


# The public attributes of each public class, inherited ones too.
expected: dict[str, list[str]] = {}


def on_files(files: Files, *, config: Any) -> Files:
    pages: dict[str, list[str]] = defaultdict(list)
    for module in (package(), package()["init"]):
        for name, found in public(module).items():
            path = f"{module.path}.{name}"
            if not found.docstring:
                log.warning("%s has no docstring", path)
            entry = f"::: {path}"
            if found.is_class:
                expected[path] = [attribute for attribute in found.all_members if attribute[0] != "_"]
                if is_made_by_users(found):
                    entry += "\n    options: {merge_init_into_class: true}"
            # A page for each room, and one for the public subpackage.
            room = "init" if module.name == "init" else found.path.split(".")[1].strip("_")
            pages[room].append(entry)
    for room, entries in pages.items():
        title = f"pyparam.{room}" if room == "init" else room.capitalize()
        text = f"# {title}\n\n" + "\n\n".join(sorted(entries)) + "\n"
        files.append(File.generated(config, f"api/{room}.md", content=text))
    return files


def on_page_content(html: str, *, page: Any, **_: Any) -> None:
    if not page.file.src_uri.startswith("api/"):
        return
    for path, attributes in expected.items():
        if f'id="{path}"' in html:
            for attribute in attributes:
                if f'id="{path}.{attribute}"' not in html:
                    log.warning("%s.%s is not on the page of its class", path, attribute)
