"""Every example of the documentation runs, every link leads somewhere, and every public name has its page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from documents import ROOT, examples, failures

import pyparam

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Made when the site is built, from the docstrings.
GENERATED = re.compile(r"(?:\.\./)*api/")


def named(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_examples_give_what_they_show(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    assert not (said := failures(page)), said


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent.name in ("verbs", "sources", "howto", "coming_from")], ids=named
)
def test_a_page_of_these_has_an_example(page: Path) -> None:
    assert examples(page).examples


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text):
        if re.match(r"https?:", target) or GENERATED.match(target):
            continue
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_verb_is_in_an_example_of_a_page_of_verbs() -> None:
    pages = [page for page in PAGES if page.parent.name == "verbs"]
    code = "\n".join(example.source for page in pages for example in examples(page).examples)
    verbs = [name for name in pyparam.__all__ if inspect.isroutine(getattr(pyparam, name))]
    assert len(verbs) > 40
    assert [name for name in verbs if not re.search(rf"\b{name}\(", code)] == []


def test_every_operation_is_on_its_page() -> None:
    schemas = re.findall(r'm\.def\(\s*"([\w.]+)\(', (ROOT / "csrc" / "ops.cpp").read_text(encoding="utf-8"))
    assert len(schemas) > 10
    text = (DOCS / "ops.md").read_text(encoding="utf-8")
    assert [name for name in schemas if f"`{name}" not in text] == []


def test_every_public_name_is_on_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [
        name for name in pyparam.__all__ if not re.search(rf"(?<![\w.]){name}\b|pyparam\.{name}\b", text)
    ]
    assert missing == []
