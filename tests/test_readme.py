"""Every example of the README runs and gives what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import ROOT, examples, failures

README = ROOT / "README.md"


def test_the_examples_give_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(examples(README).examples) > 8
    assert not failures(README), failures(README)


def test_it_names_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
