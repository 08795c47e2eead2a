"""The examples of a page in Markdown, run as they stand there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def examples(page: Path) -> doctest.DocTest:
    text = page.read_text(encoding="utf-8")
    # The text between the examples stays as blank lines, so that failures name the page's own lines.
    blocks = re.split(r"^```(?:python)?\n", text, flags=re.MULTILINE)
    code = "".join(
        part if i % 2 else "\n" * part.count("\n") for i, part in enumerate(part + "\n" for part in blocks)
    )
    return doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), 0)


def failures(page: Path) -> str:
    """What does not give what the page shows: nothing, where all do."""
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(examples(page), out=report.append)
    return "".join(report)
