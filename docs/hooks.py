"""Makes the reference: a page for the public names of each part of the package, from their docstrings.

Public are the names of ``__all__``, what the modules of ``integrations`` define, and the classes that either
give back. One without a docstring is a warning, which the strict build takes for an error, and so is a public
attribute of a public class that its page does not show or that no docstring tells of. Nothing is imported:
the names are read off the source.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
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
        except griffe.AliasResolutionError as error:
            if error.alias.target_path.startswith("pyparam."):
                log.warning("%s.%s stands for nothing that can be read: %s", module.path, name, error)
    return found


def is_made_by_users(found: griffe.Class) -> bool:
    """Whether the arguments of the constructor are documented: those of what a verb returns are not."""
    constructor = found.all_members.get("__init__")
    told = found.docstring.value.splitlines() if found.docstring else []
    return "Args:" in told or bool(constructor and constructor.docstring)


def integrations() -> dict[str, griffe.Object]:
    """What a module of each library defines; they have no ``__all__``, as each is a thing or two."""
    found = {}
    for module in package()["integrations"].modules.values():
        if not module.name.startswith("_"):
            for name, member in module.members.items():
                if (
                    not name.startswith("_")
                    and not member.is_alias
                    and (member.is_class or member.is_function)
                ):
                    found[f"{module.path}.{name}"] = member
    return found


def given(found: griffe.Object) -> Iterator[griffe.Class]:
    """The classes of the package that a function, or a member of a class, gives back."""
    members = found.all_members.values() if found.is_class else [found]
    for member in members:
        if member.name.startswith("_") and member.name not in ("__getitem__", "__iter__"):
            continue
        annotation = getattr(member, "returns", None) or getattr(member, "annotation", None)
        for part in annotation.iterate(flat=True) if isinstance(annotation, griffe.Expr) else ():
            path = part.canonical_path if isinstance(part, griffe.ExprName) else ""
            if path.startswith("pyparam.") and not part.name.startswith("_"):
                try:
                    resolved = package()[path.removeprefix("pyparam.")]
                    target = resolved.final_target if resolved.is_alias else resolved
                except (KeyError, griffe.AliasResolutionError):
                    continue
                if target.is_class:
                    yield target


def is_told(name: str, member: griffe.Object | griffe.Alias, owner: griffe.Class) -> bool:
    """Whether a public member has words: its own, or for what is no method a place in those of its class."""
    if member.docstring:
        return True
    if member.is_function:
        return False
    constructor = owner.all_members.get("__init__")
    texts = [owner.docstring, constructor.docstring if constructor else None]
    return any(text is not None and re.search(rf"\b{name}\b", text.value) for text in texts)


# The public attributes of each public class, inherited ones too.
expected: dict[str, list[str]] = {}


def on_files(files: Files, *, config: Any) -> Files:
    shown: dict[str, griffe.Object] = {}
    for module in (package(), package()["init"]):
        shown |= {f"{module.path}.{name}": found for name, found in public(module).items()}
    shown |= integrations()
    # Under the names they have where they are defined, as nothing public is called by them.
    known = {found.path for found in shown.values()}
    for found in list(shown.values()):
        for one in given(found):
            if one.path not in known:
                known.add(one.path)
                shown[one.path] = one

    pages: dict[str, list[str]] = defaultdict(list)
    for path, found in shown.items():
        if not found.docstring:
            log.warning("%s has no docstring", path)
        entry = f"::: {path}"
        if found.is_class:
            expected[path] = [attribute for attribute in found.all_members if attribute[0] != "_"]
            for attribute in expected[path]:
                if not is_told(attribute, found.all_members[attribute], found):
                    log.warning("%s.%s has no docstring", path, attribute)
            if is_made_by_users(found):
                entry += "\n    options: {merge_init_into_class: true}"
        # A page for each room, and one for each public subpackage.
        room = found.path.split(".")[1]
        pages[room].append(entry)
    for room, entries in pages.items():
        name = room.strip("_")
        title = name.capitalize() if room.startswith("_") else f"pyparam.{name}"
        about = (
            ""
            if room.startswith("_")
            else f"::: pyparam.{name}\n    options: {{members: false, show_root_heading: false}}\n\n"
        )
        text = f"# {title}\n\n" + about + "\n\n".join(sorted(entries)) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def on_page_content(html: str, *, page: Any, **_: Any) -> None:
    if not page.file.src_uri.startswith("api/"):
        return
    for path, attributes in expected.items():
        if f'id="{path}"' in html:
            for attribute in attributes:
                if f'id="{path}.{attribute}"' not in html:
                    log.warning("%s.%s is not on the page of its class", path, attribute)
