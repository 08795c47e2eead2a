"""Every example of the README runs and gives what it shows."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_examples_give_what_they_show():
    text = README.read_text(encoding="utf-8")
    # The text between the examples stays as blank lines, so that failures name the README's own lines.
    blocks = re.split(r"^```(?:python)?\n", text, flags=re.MULTILINE)
    code = "".join(
        part if i % 2 else "\n" * part.count("\n") for i, part in enumerate(part + "\n" for part in blocks)
    )
    examples = doctest.DocTestParser().get_doctest(code, {}, "README.md", str(README), 0)
    assert len(examples.examples) > 30
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    runner.run(examples, out=report.append)
    assert not report, "".join(report)


def test_it_names_the_two_commands():
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
