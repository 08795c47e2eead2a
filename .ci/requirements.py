"""Prints what pyproject.toml asks for, one requirement a line, for ``pip install -r``: so that dependencies
are installed without building the project.

The arguments say which lists: ``build`` (what building needs), ``run`` (what the package needs), or the name
of an extra or of a dependency group.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    # Python 3.10 has no parser of its own; pip, which reads what is printed, carries one.
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def wanted(pyproject: dict[str, Any], name: str) -> list[str]:
    project = pyproject["project"]
    lists = {
        "build": pyproject["build-system"]["requires"],
        "run": project["dependencies"],
        **project["optional-dependencies"],
        **pyproject.get("dependency-groups", {}),
    }
    if name not in lists:
        sys.exit(f"requirements.py: pyproject.toml has no list '{name}'; it has: {', '.join(lists)}")
    found: list[str] = []
    for requirement in lists[name]:
        if isinstance(requirement, dict):
            found += wanted(pyproject, requirement["include-group"])
        else:
            found.append(requirement)
    return found


def main() -> None:
    pyproject = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    for name in sys.argv[1:]:
        print("\n".join(wanted(pyproject, name)))


if __name__ == "__main__":
    main()
