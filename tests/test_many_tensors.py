"""Files of very many tensors: what is held and made for each of them, counted in bytes of Python's objects."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pyparam
from pyparam._findings import findings_of, survey
from pyparam._sources.places import Places
from pyparam._view.html.content import packed

FEW, MANY = 1000, 5000
NAME = "layers.{}.experts.{}.weight"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("many")
    torch.manual_seed(0)
    made = {}
    for count in (FEW, MANY):
        made[count] = folder / f"{count}.safetensors"
        save_file({NAME.format(i // 64, i % 64): torch.randn(2, 4) for i in range(count)}, made[count])
    return made


def each(files: dict[int, Path], work: Callable[[Path], object]) -> tuple[float, float]:
    """Bytes a tensor that are held while what ``work`` gives is, and at most meanwhile."""
    found = []
    work(files[FEW])  # what is made once
    for count in (FEW, MANY):
        tracemalloc.start()
        try:
            kept = work(files[count])
            found.append(tracemalloc.get_traced_memory())
            del kept
        finally:
            tracemalloc.stop()
    (held, most), (more, most_of_more) = found
    return (more - held) / (MANY - FEW), (most_of_more - most) / (MANY - FEW)


NAME_BYTES = len(NAME.format(70, 63)) + 49
"""A string of ASCII, in CPython 3.10 to 3.13."""


def test_an_open_file_holds_names_and_no_objects(files):
    held, most = each(files, pyparam.open)
    # The string, two lists that name it (of the file and of the listing), and its number in an array.
    assert held < NAME_BYTES + 30
    assert most < NAME_BYTES + 100


def test_findings_make_no_object_a_tensor(files):
    held, most = each(files, lambda path: findings_of(survey(path)))
    assert held < 8
    # Names, and lists of one pointer a row.
    assert most < NAME_BYTES + 140


def test_a_report_holds_no_column_that_it_has_packed(files, monkeypatch):
    def packed_text(path: Path) -> int:
        seen = survey(path)
        pieces = packed(seen, [], title="", made="", against=None)
        return sum(map(len, pieces))

    # Beyond which columns go to a temporary file, which for half a million tensors most of them do.
    monkeypatch.setattr("pyparam._view.html.pack._HELD", 1 << 10)
    _, most = each(files, packed_text)
    monkeypatch.setattr("pyparam._view.html.pack._HELD", 1 << 30)
    _, most_in_memory = each(files, packed_text)
    columns = 100  # bytes of them a tensor, at the least
    assert most < NAME_BYTES + 140
    assert most_in_memory > most + columns


def test_places_are_a_mapping():
    places = Places.of({"b": 3, "a": 2**40})
    assert dict(places) == {"b": 3, "a": 2**40}
    assert list(places) == ["b", "a"]
    assert (len(places), places.get("a"), places.get("c"), places.get("c", 5)) == (2, 2**40, None, 5)
    assert "b" in places
    assert "c" not in places
    with pytest.raises(KeyError, match="c"):
        places["c"]
    assert Places.of(places) is places
