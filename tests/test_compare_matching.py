"""What is compared with what, the class, and what cannot be compared."""

from __future__ import annotations

import copy
import json
import math
import sys
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.library import opcheck
from unreadable import UNREADABLE

from pyparam import Comparison, ParamTable, compare

# --- matching ----------------------------------------------------------------------------------------------


def test_matching() -> None:
    a = {"same": torch.ones(3), "gone": torch.ones(1), "shape": torch.ones(2, 3), "type": torch.ones(2)}
    b = {
        "new": torch.ones(1),
        "type": torch.ones(2).half(),
        "shape": torch.ones(3, 2).half(),
        "same": torch.ones(3),
    }
    found = compare(a, b)
    assert found.names == ("same", "type")
    assert found.missing == ["gone"]
    assert found.unexpected == ["new"]
    assert found.shape_changed == {"shape": ((2, 3), (3, 2))}
    assert found.dtype_changed == {
        "shape": (torch.float32, torch.float16),
        "type": (torch.float32, torch.float16),
    }
    assert found.changed() == ["type", "shape"]
    assert not found.equal
    assert found.equal_bits.tolist() == [True, False]
    assert found["type"].differing == 0
    assert found["type"].dtypes == (torch.float32, torch.float16)


@given(st.permutations(range(30)), st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29)))
def test_matching_of_any_tables(order: list[int], gone: set[int], added: set[int]) -> None:
    a = {f"{i}.w": torch.tensor([i]) for i in range(30) if i not in added}
    b = {f"{i}.w": torch.tensor([i]) for i in order if i not in gone}
    found = compare(a, b)
    assert list(found.names) == [name for name in a if name in b]
    assert found.missing == [name for name in a if name not in b]
    assert found.unexpected == [name for name in b if name not in a]
    assert found.changed() == []
    assert found.equal is (set(a) == set(b))


def test_equal_needs_every_kind_of_sameness() -> None:
    a = {"x": torch.ones(2)}
    assert compare(a, {"x": torch.ones(2)}).equal is True
    assert not compare(a, {"x": torch.ones(2), "y": torch.ones(0)}).equal
    assert not compare(a, {}).equal
    assert not compare(a, {"x": torch.ones(1, 2)}).equal
    assert not compare(a, {"x": torch.ones(2).double()}).equal
    assert not compare(a, {"x": torch.tensor([1.0, 1.0 + 2**-23])}).equal
    assert compare({}, {}).equal


def test_module_with_itself_and_its_copy() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5))
    other = copy.deepcopy(module)
    assert compare(module, other).equal
    assert compare(module, other.state_dict()).equal
    with torch.no_grad():
        other[0].weight[2, 1] += 1
    found = compare(module, other)
    assert found.changed() == ["0.weight"]
    assert found["0.weight"].first_index == (2, 1)


def test_a_module_and_its_checkpoint(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    module.register_buffer("cache", torch.zeros(2), persistent=False)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    assert compare(module, tmp_path / "model.safetensors").equal
    assert compare(tmp_path / "model.safetensors", module).equal
    module[1].running_mean += 1
    assert compare(tmp_path / "model.safetensors", module).changed() == ["1.running_mean"]


def test_a_conjugate_view_in_a_file(tmp_path: Path) -> None:
    z = torch.randn(5, dtype=torch.complex64)
    torch.save({"z": z.conj(), "w": z}, tmp_path / "model.pt")
    found = compare(tmp_path / "model.pt", {"z": z, "w": z})
    assert found.changed() == ["z"]
    assert compare(tmp_path / "model.pt", {"z": z.conj().resolve_conj(), "w": z}).equal


def test_repeated_names_are_refused() -> None:
    twice = [("x", torch.ones(1)), ("x", torch.ones(1))]
    with pytest.raises(ValueError, match="compare: two parameters of b are named 'x'; names must be unique"):
        compare({"x": torch.ones(1)}, ParamTable([n for n, _ in twice], [t for _, t in twice]))


def test_nothing_is_kept_alive() -> None:
    tensor, other = torch.ones(3), torch.zeros(3)
    before = sys.getrefcount(tensor)
    found = compare({"x": tensor, "y": tensor}, {"x": other, "y": other.half(), "z": other})
    unread = compare({"x": tensor, "y": tensor}, {"x": other, "y": torch.ones(3, device="meta")}).unread
    assert unread == {"y": "it is on the meta device"}
    assert sys.getrefcount(tensor) == before
    dead = weakref.ref(tensor)
    del tensor
    assert dead() is None
    assert found["x"].max_abs == 1


# --- the class ---------------------------------------------------------------------------------------------


@pytest.fixture
def found() -> Comparison:
    a = {
        "a": torch.ones(2, 3),
        "b": torch.ones(4),
        "c": torch.ones(1),
        "d": torch.tensor([1.0, 2.0]),
        "e": torch.ones(()),
    }
    b = {name: t.clone() for name, t in a.items()}
    b["a"][1, 2] = 1.5
    b["b"] *= 3
    b["d"][0] = math.nan
    b["e"] = torch.tensor(1.25)
    return compare(a, b)


def test_columns_and_rows(found: Comparison) -> None:
    assert found.max_abs.tolist() == [0.5, 2.0, 0.0, 0.0, 0.25]
    assert found.differing.tolist() == [1, 4, 0, 1, 1]
    assert found.nonfinite.tolist() == [0, 0, 0, 1, 0]
    assert found.first.tolist() == [5, 0, -1, 0, 0]
    assert found.numel.tolist() == [6, 4, 1, 2, 1]
    for column in (found.mean_abs, found.l2, found.rel_l2, found.cosine):
        assert column.dtype == torch.float64
        assert column.shape == (5,)
    row = found["a"]
    assert row.shape == (2, 3)
    assert row.first_index == (1, 2)
    assert row.mean_abs == pytest.approx(0.5 / 6)
    assert row.rel_l2 == pytest.approx(0.5 / math.sqrt(6))
    assert not row.equal
    assert found["c"].equal
    assert found["c"].first is found["c"].first_index is None
    assert found["e"].first_index == ()
    assert [row.name for row in found] == list(found.names)
    assert len(found) == 5
    assert "a" in found


def test_worst(found: Comparison) -> None:
    assert [row.name for row in found.worst()] == ["d", "b", "e", "a"]
    assert [row.name for row in found.worst(2)] == ["d", "b"]
    assert [row.name for row in found.worst(by="max_abs")] == ["d", "b", "a", "e"]
    assert next(row.name for row in found.worst(by="cosine")) == "d"
    assert found.worst(0) == []
    with pytest.raises(
        ValueError, match=r"Comparison\.worst: cannot sort by 'name'; expected one of max_abs, mean_abs"
    ):
        found.worst(by="name")
    with pytest.raises(ValueError, match=r"Comparison\.worst: n must not be negative, got -1"):
        found.worst(-1)


def test_no_truth_value(found: Comparison) -> None:
    with pytest.raises(TypeError, match=r"truth value of a Comparison is ambiguous; use comparison\.equal"):
        bool(found)


def test_missing_rows_say_why() -> None:
    found = compare({"x": torch.ones(2), "y": torch.ones(1)}, {"x": torch.ones(3), "z": torch.ones(1)})
    for name, words in {
        "x": r"'x' has the shape \[2\] in a and \[3\] in b",
        "y": "'y' is missing in b",
        "z": "'z' is missing in a",
        "w": "neither side has a parameter named 'w'",
    }.items():
        with pytest.raises(KeyError, match=words):
            found[name]


def test_dict_is_json(found: Comparison) -> None:
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["changed"] == found.changed() == ["a", "b", "d", "e"]
    assert data["equal"] is False
    assert data["parameters"][0]["first_index"] == [1, 2]
    from_zero = compare([torch.zeros(1)], [torch.ones(1).double()]).to_dict()
    assert from_zero["parameters"][0]["rel_l2"] is None
    assert from_zero["dtype_changed"] == {"0": ["torch.float32", "torch.float64"]}


def test_repr(found: Comparison) -> None:
    lines = repr(found).splitlines()
    assert lines[0] == "Comparison(4 changed, 1 the same)"
    assert " ".join(lines[1].split()) == (
        "parameter shape max |a-b| mean |a-b| rel L2 cosine differing non-finite first"
    )
    assert lines[2].split()[0] == "d"
    assert lines[5].endswith("[1, 2]")
    assert (
        repr(compare({"x": torch.ones(1)}, {"x": torch.ones(1)}))
        == "Comparison(equal: 1 parameter, the same bits)"
    )
    other = compare({"x": torch.ones(2), "m": torch.ones(1)}, {"x": torch.ones(3), "y<": torch.ones(1)})
    assert "1 missing in b: m" in repr(other)
    assert "1 missing in a: y<" in repr(other)
    assert "1 of another shape: x [2] → [3]" in repr(other)
    assert "y&lt;" in other._repr_html_()
    assert ">b</td>" in found._repr_html_()
    many = compare([torch.zeros(1)] * 13, [torch.ones(1)] * 13)
    assert repr(many).endswith("and 3 more")


# --- what cannot be compared -------------------------------------------------------------------------------


def packed() -> Tensor:
    return torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


PACKED = (packed, TypeError, "has dtype Float4_e2m1fn_x2, whose elements are not single numbers")


REFUSED = {**UNREADABLE, "packed": PACKED}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_costs_its_row(kind: str) -> None:
    make, _, _ = REFUSED[kind]
    good = {"only here": torch.ones(1), "x": torch.ones(3), "z": torch.ones(2)}
    bad = {"first": torch.ones(1), "x": make(), "z": torch.ones(2)}
    for a, b in ((good, bad), (bad, good), (bad, bad)):
        found = compare(a, b)
        assert list(found.unread) == ["x"]
        assert found.unread["x"].startswith(("it ", "its "))
        assert "z" in found.names
        assert "x" not in found
        assert not found.equal
        assert f"1 could not be read: x ({found.unread['x']})" in repr(found)
        assert found.to_dict()["unread"] == found.unread
        with pytest.raises(KeyError, match="'x' has no figures: its? "):
            found["x"]
    alone = compare({"z": torch.ones(2)}, {"x": make(), "z": torch.ones(2)})
    assert (alone.unexpected, alone.missing) == (["x"], [])


# --- the op ------------------------------------------------------------------------------------------------


def test_opcheck() -> None:
    a = [torch.randn(3, 4), torch.randn(5, requires_grad=True), torch.empty(0)]
    b = [torch.randn(4, 3).t(), torch.randn(5), torch.empty(0)]
    opcheck(torch.ops.pyparam.compare.default, (a, b))


def test_op_under_compile_and_script() -> None:
    a, b = [torch.randn(3), torch.randn(2, 2)], [torch.randn(3), torch.randn(2, 2)]

    def call(a: list[Tensor], b: list[Tensor]) -> Tensor:
        values, _ = torch.ops.pyparam.compare(a, b)
        return values

    want = call(a, b)
    assert torch.equal(torch.compile(call, fullgraph=True, backend="eager")(a, b), want)
    scripted = torch.jit.CompilationUnit(
        "def call(a: List[Tensor], b: List[Tensor]):\n    return torch.ops.pyparam.compare(a, b)\n"
    )
    assert torch.equal(scripted.call(a, b)[0], want)


def test_op_errors() -> None:
    op = torch.ops.pyparam.compare
    with pytest.raises(ValueError, match="compare: a has 1 tensors and b has 2; expected pairs"):
        op([torch.ones(1)], [torch.ones(1)] * 2)
    with pytest.raises(
        ValueError, match=r"compare: a\[1\] has the shape \[2\] and b\[1\] has \[1, 2\]; expected equal"
    ):
        op([torch.ones(1), torch.ones(2)], [torch.ones(1), torch.ones(1, 2)])
    with pytest.raises(TypeError, match=r"compare: b\[0\] is sparse"):
        op([torch.ones(1)], [torch.ones(1).to_sparse()])
    with pytest.raises(ValueError, match=r"a\[0\] has 1 dimensions and b\[0\] has 2"):
        op([torch.ones(2, device="meta")], [torch.ones(1, 2, device="meta")])


def test_a_nested_state_with_as_many_tensors_as_keys_is_looked_into():
    a = {"model": {"w": torch.ones(2), "b": torch.ones(1)}, "step": 3}
    b = {**a, "step": 4}
    assert not compare(a, b).equal
    assert compare(a, b).values_changed == {"step": (3, 4)}
    assert compare(a, dict(a)).equal
