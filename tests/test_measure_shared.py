"""measure where names share memory: a row each, and every byte once in the total."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app

Layout = tuple[tuple[int, ...], tuple[int, ...], int]


def values_once(buffer: Tensor, layouts: list[Layout], elements: int) -> list[float]:
    """The slow oracle: walks every element's address, and takes those not seen before."""
    seen: set[int] = set()
    values: list[float] = []
    for sizes, strides, offset in layouts:
        addresses = {offset}
        for size, stride in zip(sizes, strides, strict=True):
            addresses = {a + i * stride for a in addresses for i in range(size)}
        values += [float(buffer[a]) for a in sorted(addresses - seen)]
        seen |= addresses
    assert max(seen) < elements
    return values


@st.composite
def layouts(draw: st.DrawFn, dense: bool) -> list[Layout]:
    """Tensors over a buffer of 64 elements."""
    found: list[Layout] = []
    for _ in range(draw(st.integers(1, 5))):
        if dense:
            length = draw(st.integers(1, 20))
            found.append(((length,), (1,), draw(st.integers(0, 64 - length))))
            continue
        sizes = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
        strides = (draw(st.integers(1, 9)), draw(st.integers(1, 4)))
        reach = sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        found.append((sizes, strides, draw(st.integers(0, 63 - reach))))
    return found


@settings(deadline=None)
@given(layouts(dense=True) | layouts(dense=False), st.booleans())
def test_the_total_has_every_byte_once(found: list[Layout], histogram: bool) -> None:
    # A view over its own elements twice is one parameter's affair; its elements count as they are listed.
    alone = [layout for layout in found if len(set(_addresses(layout))) == len(_addresses(layout))]
    buffer = torch.arange(64).float() - 20
    tensors = [buffer.as_strided(*layout) for layout in alone]
    stats = pyparam.measure(tensors, histogram=histogram)
    expected = torch.tensor(values_once(buffer, alone, 64), dtype=torch.float64) if alone else torch.empty(0)
    total = stats.total
    assert (total.numel, total.nbytes) == (expected.numel(), 4 * expected.numel())
    assert total.l1 == expected.abs().sum().item()
    assert total.zeros == int((expected == 0).sum())
    if expected.numel():
        assert total.max == expected.max().item()
        assert total.mean == pytest.approx(expected.mean().item(), abs=1e-12)
    if histogram:
        assert int(stats.histogram().counts.sum()) == expected.numel()
    for i, tensor in enumerate(tensors):
        row = stats[str(i)]
        assert (row.numel, row.l1, row.shape) == (
            tensor.numel(),
            tensor.abs().sum().item(),
            tuple(tensor.shape),
        )
        if histogram:
            assert int(stats.histogram(str(i)).counts.sum()) == tensor.numel()
    tied = {name: names[0] for names in (tie.names for tie in pyparam.ties(tensors)) for name in names}
    assert stats.shared_with == [tied.get(str(i)) for i in range(len(tensors))]


def _addresses(layout: Layout) -> list[int]:
    sizes, strides, offset = layout
    addresses = [offset]
    for size, stride in zip(sizes, strides, strict=True):
        addresses = [a + i * stride for a in addresses for i in range(size)]
    return addresses


@pytest.mark.parametrize("empties", [(), (0,), (1, 3), (4,)])
def test_three_names_over_one_storage(empties: tuple[int, ...]) -> None:
    x = torch.arange(4.0)
    tensors = [x, x.view(2, 2), x[1:3]]
    for place in empties:
        tensors.insert(place, torch.empty(0))
    stats = pyparam.measure(tensors)
    assert (stats.total.numel, stats.total.nbytes, stats.total.l1) == (4, 16, 6.0)
    assert int(stats.numel.sum()) == 10


def test_an_entry_without_company_counts_as_it_is_listed() -> None:
    row = torch.ones(3).expand(5, 3)
    stats = pyparam.measure([row, torch.zeros(2)])
    assert (stats["0"].numel, stats.total.numel, stats.total.l1) == (15, 17, 15.0)
    assert stats.shared_with == [None, None]


def test_the_same_bytes_as_other_types_count_as_the_first() -> None:
    x = torch.ones(8)
    stats = pyparam.measure({"bits": x.view(torch.int32), "values": x})
    assert (stats.total.numel, stats.total.max) == (8, float(0x3F800000))
    halves = pyparam.measure({"half": x.view(torch.int16)[:5], "values": x})
    # The third float32 has a byte that is in no earlier entry, and so have those after it.
    assert (halves.total.numel, halves["values"].numel) == (5 + 6, 8)


def test_conjugates_and_permutations() -> None:
    z = torch.randn(4, 6, dtype=torch.complex64)
    stats = pyparam.measure({"z": z, "conjugate": z.conj(), "transposed": z.T, "part": z[1:, 2:]})
    alone = pyparam.measure([z]).total
    assert (stats.total.numel, stats.total.l1) == (24, alone.l1)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    halves = pyparam.measure({"one": image[:1], "both": image})
    assert halves.total.numel == image.numel()
    assert halves.total.mean == pytest.approx(image.double().mean().item(), abs=1e-12)


def test_a_column_beside_its_matrix() -> None:
    matrix = torch.arange(12.0).view(4, 3)
    stats = pyparam.measure({"column": matrix[:, 1], "matrix": matrix})
    assert (stats.total.numel, stats.total.l1, stats["matrix"].l1) == (12, 66.0, 66.0)


def test_modules_list_a_tied_parameter_once_and_state_dicts_twice() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    module, state = pyparam.measure(net), pyparam.measure(net.state_dict())
    assert module.names == ["0.weight", "0.bias", "1.bias"]
    assert state.names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert module.total.numel == state.total.numel == 15
    assert state.total.l1 == module.total.l1
    assert state["1.weight"].shared_with == state["0.weight"].shared_with == "0.weight"
    assert state["1.bias"].shared_with is None


def test_gradients_over_one_storage() -> None:
    a, b, c = (nn.Parameter(torch.ones(6)) for _ in range(3))
    vector = torch.arange(9.0)
    a.grad, b.grad = vector[:6], vector[3:]
    stats = pyparam.measure({"a": a, "c": c, "b": b}, grad=True, histogram=True)
    assert (stats.names, stats.missing) == (["a", "b"], ["c"])
    assert (stats.total.numel, stats.total.l1) == (9, 36.0)
    assert stats.shared_with == ["a", "a"]
    assert int(stats.histogram("b").counts.sum()) == 6


def test_sorting_and_merging_keep_the_marks_and_the_total() -> None:
    x = torch.arange(4.0)
    stats = pyparam.measure({"a": x, "b": torch.full((2,), 9.0), "c": x[2:]}, quantiles=(0.5,))
    ordered = stats.sort("max")
    assert ordered.names == ["b", "a", "c"]
    assert ordered.shared_with == [None, "a", "a"]
    assert ordered.total.to_dict() == stats.total.to_dict()
    merged = stats + pyparam.measure({"d": torch.ones(3)})
    assert (merged.total.numel, merged["c"].shared_with, merged["d"].shared_with) == (9, "a", None)


def test_where_the_marks_are_seen(tmp_path: Path) -> None:
    x = torch.ones(4)
    stats = pyparam.measure({"<a>": x, "b": x[:2]})
    assert [line.split("  ")[0] for line in repr(stats).splitlines()[1:]] == [
        "<a> (tied)",
        "b = <a>",
        "total",
    ]
    assert "b = &lt;a&gt;" in stats._repr_html_()
    assert stats.to_dict()["parameters"]["b"]["shared_with"] == "<a>"
    assert stats.to_pandas()["shared_with"].tolist() == ["<a>", "<a>"]
    path = tmp_path / "tied.pt"
    torch.save({"first": x, "second": x}, path)
    printed = CliRunner().invoke(app, ["stats", str(path)])
    assert printed.exit_code == 0
    assert "second = first" in printed.stdout
    assert "shared storage is counted once in the total: 2 names share theirs" in printed.stdout
    found: Any = json.loads(CliRunner().invoke(app, ["stats", str(path), "--json"]).stdout)
    assert found["total"]["numel"] == 4
    assert [row["shared_with"] for row in found["parameters"]] == ["first", "first"]


def test_what_is_refused_is_refused_by_its_own_name() -> None:
    x = torch.ones(3)
    stats = pyparam.measure({"a": x, "b": x, "c": torch.eye(3).to_sparse()})
    assert stats.unread == {"c": "it is sparse (sparse_coo)"}
    assert stats.shared_with == ["a", "a"]
    assert stats.total.numel == 3
    values = torch.eye(3).to_sparse()
    with pytest.raises(TypeError, match="parameter 'a' is sparse"):
        pyparam.measure({"a": values, "b": values})


def test_lazy_clones_are_apart() -> None:
    x = torch.ones(4)
    clone = torch._lazy_clone(x)
    stats = pyparam.measure([x, clone])
    assert (stats.total.numel, stats.shared_with) == (8, [None, None])


def test_memory_that_comes_to_be_shared_is_noticed_in_a_list_that_was_asked_about_before() -> None:
    """Not in the order of memory, and many enough to be remembered."""
    count = 600
    base = torch.randn(8 * count)
    tensors = [base[8 * i : 8 * i + 8] for i in reversed(range(count))]
    for _ in range(2):
        assert pyparam.measure(tensors).total.numel == 8 * count
    tensors[-1] = base[4:12]
    for _ in range(2):
        found = pyparam.measure(tensors)
        assert found.total.numel == 8 * count - 4
        assert found[count - 1].shared_with is not None
    tensors[-1] = base[:8]
    assert pyparam.measure(tensors).total.numel == 8 * count
