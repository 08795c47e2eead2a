"""Rows of statistics as JSON text: what ``json`` makes of them one by one, without an object for each."""

from __future__ import annotations

import json
import math
import tracemalloc

import pytest
import torch

import pyparam
from pyparam._base.native import _C
from pyparam._measure.json_rows import json_rows
from pyparam._measure.rows import finite_or_none

NAMES = ["a.weight", 'quo"ted\\', "über", "\ud800", "tab\t\x7f", ""]


def text_of(column: torch.Tensor) -> list[str]:
    return _C.json_rows(["", ""], [column], "\n").split("\n")


def test_numbers_as_python_tells_them():
    torch.manual_seed(0)
    powers = [2.0**e for e in range(-1074, 1024)]
    edges = [0.0, 1e15, 1e16, 1e17, 1e-4, 1e-5, 123456789012345.6, 1.7976931348623157e308, 9.5e-5]
    bits = torch.randint(-(2**63), 2**63 - 1, (20_000,)).view(torch.float64).tolist()
    values = [*powers, *edges, *(math.nextafter(p, 0) for p in powers), *bits, math.nan, math.inf]
    values += [-value for value in values]
    expected = [repr(value) if math.isfinite(value) else "null" for value in values]
    assert text_of(torch.tensor(values, dtype=torch.float64)) == expected
    whole = [0, -1, 10, 2**63 - 1, -(2**63)]
    assert text_of(torch.tensor(whole)) == list(map(str, whole))


@pytest.mark.parametrize("quantiles", [(), (0.01, 0.5)])
@pytest.mark.parametrize("limit", [None, 0, 3, 99])
def test_rows_as_json_tells_them(quantiles, limit):
    shared = torch.randn(2, 3)
    tensors = [shared, shared, torch.tensor([math.nan, -math.inf]), torch.zeros(0), torch.ones((), dtype=int)]
    state = dict(zip(NAMES, [*tensors, torch.randn(3, 1, 2).bfloat16()], strict=True))
    stats = pyparam.measure(state, quantiles=quantiles)
    other = pyparam.measure({"a.weight": torch.ones(4), "more": torch.ones(1)}, quantiles=quantiles)
    for some in (stats, stats + other):  # rows united of two shapes have none
        text = "".join(json_rows(some, limit, "\n"))
        expected = [json.dumps(finite_or_none(row.to_dict())) for row in some]
        assert text == "\n".join(expected[:limit])


def test_columns_of_other_kinds_are_refused():
    two = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="json_rows: columns differ in length"):
        _C.json_rows(["", "", ""], [two, ["null"]], "\n")
    with pytest.raises(ValueError, match="json_rows: expected a piece before each column"):
        _C.json_rows(["", "", ""], [two], "\n")
    for column in (torch.zeros(2), torch.zeros(1, 2, dtype=torch.float64), two.to("meta")):
        with pytest.raises((TypeError, ValueError), match=r"json_rows: a column is float64|differ in length"):
            _C.json_rows(["", "", ""], [column, two], "\n")


def test_no_object_a_row():
    """Peak memory of Python's own objects, by the difference of two sizes."""

    def peak(count: int) -> int:
        stats = pyparam.measure({f"layers.{i}.weight": torch.ones(1) for i in range(count)})
        _ = stats.names, stats.shape
        tracemalloc.start()
        try:
            length = sum(map(len, json_rows(stats, None, "\n")))
            assert length > 300 * count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)
    # Lists of what all rows have: a pointer each to a layout (of three), to a text and to what it is shared
    # with, and the tuple of a layout. A row as a dict took 2 kB.
    assert (peak(12_000) - peak(4000)) / 8000 < 150
