"""Finding ties, beside accelerate's ``find_tied_parameters``, which sees one object under several names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from accelerate.utils import find_tied_parameters
from models import mixture
from pairing import versus

import pyparam
from pyparam._share.ties import tie_sets
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from planted import planted


def test_ties_of_a_mixture_with_planted_ties(benchmark) -> None:
    model, expected = planted(1000)
    found = pyparam.ties(model)
    assert [(tie.names, tie.kind) for tie in found] == expected
    assert all(tie.exact for tie in found)
    theirs = {tuple(sorted(group)) for group in find_tied_parameters(model)}
    assert theirs == {tuple(sorted(tie.names)) for tie in found if tie.kind == "parameter"}
    print(f"\n{len(found)} ties planted and found; find_tied_parameters finds {len(theirs)}")
    versus(benchmark, lambda: pyparam.ties(model), lambda: find_tied_parameters(model), rounds=8, floor=6)


def test_ties_of_a_mixture_without_any(benchmark) -> None:
    model = mixture()
    assert pyparam.ties(model) == []
    assert list(find_tied_parameters(model)) == []
    versus(benchmark, lambda: pyparam.ties(model), lambda: find_tied_parameters(model), rounds=10, floor=6)


def test_tie_sets_of_a_table(benchmark) -> None:
    """What ``show`` and ``measure`` pay on a table that they have, beside the same sets made in Python."""
    table = table_of(mixture())

    def peer() -> int:
        seen = set()
        total = 0
        for tensor in table.tensors:
            if tensor.untyped_storage().data_ptr() not in seen:
                seen.add(tensor.untyped_storage().data_ptr())
                total += tensor.nbytes
        return total

    assert tie_sets(table).total_bytes == peer()
    versus(benchmark, lambda: tie_sets(table).total_bytes, peer, rounds=20)


@pytest.mark.parametrize("count", [100_000])
def test_columns_of_one_buffer(benchmark, count: int) -> None:
    """Every bounding interval meets every other: pairs would be five thousand million."""
    buffer = torch.zeros(16, count)
    table = ParamTable([str(i) for i in range(count)], list(buffer.unbind(1)))
    assert pyparam.ties(table) == []
    benchmark.pedantic(lambda: pyparam.ties(table), rounds=5)
