"""compare: every figure against exact arithmetic, matching by name, layouts, types, and the class."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import reference_compare as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.library import opcheck
from unreadable import UNREADABLE

from pyparam import Comparison, ParamTable, compare

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EIGHTS = [
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
INTEGERS = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]
COMPLEX = [torch.complex32, torch.complex64, torch.complex128]
DTYPES = [*FLOATS, *EIGHTS, *INTEGERS, *COMPLEX, torch.bool]

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")


def random_bits(n: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Any pattern of bits that the type can hold: infinities, NaNs and subnormals with the rest."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, (n,), generator=generator).bool()
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(0, 256, (n * size,), generator=generator, dtype=torch.uint8).view(dtype)


def mixed(a: Tensor, b: Tensor, share: float, seed: int) -> Tensor:
    """``a`` with a share of its elements taken from ``b``."""
    take = torch.rand(a.shape, generator=torch.Generator().manual_seed(seed)) < share
    return gathered(a, b, take)


def gathered(a: Tensor, b: Tensor, take: Tensor) -> Tensor:
    size = a.element_size()
    out = a.clone().view(torch.uint8).view(-1, size)
    out[take] = b.view(torch.uint8).view(-1, size)[take]
    return out.view(-1).view(a.dtype)


def figures(a: Tensor, b: Tensor) -> dict[str, float | int]:
    values, counts = torch.ops.pyparam.compare([a], [b])
    names = ("max_abs", "mean_abs", "l2", "rel_l2", "cosine")
    found = dict(zip(names, values[0].tolist(), strict=True))
    return found | dict(zip(("numel", "differing", "nonfinite", "first"), counts[0].tolist(), strict=True))


def check(a: Tensor, b: Tensor, rel: float = 1e-12) -> None:
    got, want = figures(a, b), reference.compare(a, b)
    for column in ("numel", "differing", "nonfinite", "first"):
        assert got[column] == want[column], column
    for column in ("max_abs", "mean_abs", "l2", "rel_l2"):
        assert got[column] == pytest.approx(want[column], rel=rel, abs=0), column
    assert got["cosine"] == pytest.approx(want["cosine"], rel=0, abs=rel)


# --- figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_any_bits(dtype: torch.dtype, share: float, n: int) -> None:
    a, other = random_bits(n, dtype, 1), random_bits(n, dtype, 2)
    check(a, mixed(a, other, share, 3))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_ordinary_values_over_several_blocks(dtype: torch.dtype) -> None:
    a = torch.randn(10_000, generator=torch.Generator().manual_seed(1)).to(dtype)
    b = a.clone()
    b[5000:5010] += 0.5
    check(a, b)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.float32, torch.float8_e4m3fn),
        (torch.float64, torch.int64),
        (torch.int8, torch.float16),
        (torch.int64, torch.int32),
        (torch.bool, torch.uint8),
        (torch.complex64, torch.float32),
        (torch.float64, torch.complex64),
        (torch.complex64, torch.complex128),
        (torch.complex64, torch.int32),
    ],
    ids=str,
)
def test_two_dtypes_are_compared_by_value(x: torch.dtype, y: torch.dtype) -> None:
    base = torch.randint(-3, 4, (500,), generator=torch.Generator().manual_seed(1)).double()
    if x == torch.bool:
        base = base.sign().abs()
    a, b = base.to(x), base.to(y)
    check(a, b)
    assert figures(a, b)["differing"] == 0
    b = (base + (torch.arange(500) % 90 == 89)).to(y)
    check(a, b)
    check(b, a)
    assert figures(a, b)["first"] == 89


def test_two_dtypes_with_special_values() -> None:
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0])
    got = figures(special, special.neg().double())
    check(special, special.neg().double())
    assert got["differing"] == 3
    assert got["first"] == 2
    assert got["nonfinite"] == 2
    check(random_bits(400, torch.float16, 1), random_bits(400, torch.bfloat16, 2))
    check(random_bits(400, torch.float64, 1), random_bits(400, torch.float32, 2))


def test_special_values_of_one_dtype() -> None:
    quiet, other = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    cases = [(quiet, quiet, 0, 0), (quiet, other, 1, 1), (quiet, torch.tensor(1.0), 1, 1)]
    infinity = torch.tensor(math.inf)
    cases += [
        (infinity, infinity, 0, 0),
        (infinity, -infinity, 1, 1),
        (torch.tensor(0.0), torch.tensor(-0.0), 1, 0),
    ]
    for x, y, differing, nonfinite in cases:
        got = figures(torch.stack([torch.tensor(3.0), x]), torch.stack([torch.tensor(3.0), y]))
        assert (got["differing"], got["nonfinite"]) == (differing, nonfinite)
        assert got["max_abs"] == got["rel_l2"] == 0
        assert got["cosine"] == 1


def test_zeros() -> None:
    zero, one = torch.zeros(5), torch.ones(5)
    assert figures(zero, zero)["cosine"] == 1
    assert figures(zero, zero)["rel_l2"] == 0
    assert figures(zero, one)["rel_l2"] == math.inf
    assert figures(one, zero)["rel_l2"] == 1
    assert figures(zero, one)["cosine"] == figures(one, zero)["cosine"] == 0
    assert figures(one, -one)["cosine"] == -1


@pytest.mark.parametrize("exponent", [-320, -300, -200, -150, 150, 200, 300, 308])
def test_float64_beyond_the_range_of_squares(exponent: int) -> None:
    scale = float(f"1e{exponent}")
    a = (
        torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).clamp(-1.7, 1.7)
        * scale
    )
    b = a.clone()
    b[3] *= 1.25 if exponent < 300 else 0.5
    check(a, b, rel=1e-9)
    check(a, -a, rel=1e-9)
    check(
        torch.cat([a, torch.ones(100, dtype=torch.float64)]),
        torch.cat([b, torch.zeros(100, dtype=torch.float64)]),
    )


def test_float64_of_all_ranges_in_different_blocks() -> None:
    a = torch.ones(5 * 4096, dtype=torch.float64)
    for block, scale in enumerate([1e300, 1e-300, 1.0, 1e160, 0.0]):
        a[block * 4096 : (block + 1) * 4096] = scale
    b = a.clone()
    b[4096:8192] *= 2
    got = figures(a, b)
    assert got["l2"] == pytest.approx(64e-300, rel=1e-12)
    assert got["mean_abs"] == pytest.approx(1e-300 / 5, rel=1e-12)
    b[100] = -1.7e308
    b[101] = 1.7e308
    a[100] = 1.7e308
    got = figures(a, b)
    assert got["max_abs"] == math.inf
    assert got["mean_abs"] == pytest.approx(1.7e308 / 20480 * 3, rel=1e-6)
    assert math.isfinite(got["rel_l2"])


def test_large_integers_are_exact() -> None:
    a = torch.tensor([2**53, 2**62, -(2**63), 5])
    b = torch.tensor([2**53 + 1, 2**62 + 1, 2**63 - 1, 5])
    got = figures(a, b)
    assert got["max_abs"] == float(2**64 - 1)
    assert got["differing"] == 3
    assert figures(a[:2], b[:2])["max_abs"] == 1
    check(a.view(torch.uint64), b.view(torch.uint64))


def test_cancellation() -> None:
    """A small difference of large values."""
    a = torch.full((1000,), 1e4)
    b = a.clone()
    b[::2] = torch.nextafter(a[::2], torch.tensor(math.inf))
    check(a, b, rel=1e-12)


# --- what must not count -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.int64], ids=str
)
def test_layouts(dtype: torch.dtype) -> None:
    a = random_bits(6 * 50 * 7 * 5, dtype, 1).reshape(6, 50, 7, 5)
    b = mixed(a.flatten(), random_bits(a.numel(), dtype, 2), 0.05, 3).reshape(a.shape)
    want = figures(a, b)
    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
        lambda t: torch.stack([t, t], -1)[..., 0],
    ]
    for layout in layouts:
        assert figures(layout(a), b) == want
        assert figures(a, layout(b)) == want
        assert figures(layout(a), layout(b)) == want


def test_expanded_and_conjugate() -> None:
    row = torch.randn(1, 30)
    assert figures(row.expand(20, 30), row.repeat(20, 1))["differing"] == 0
    z = torch.randn(40, dtype=torch.complex64)
    assert figures(z.conj(), z.conj().resolve_conj())["differing"] == 0
    assert figures(z, z.conj()) == figures(z, z.conj().resolve_conj())
    assert figures(z.conj().imag, -z.imag)["differing"] == 0


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 400_000),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(2, 6),
)
def test_threads_do_not_count(n: int, dtype: torch.dtype, threads: int) -> None:
    a = random_bits(n, dtype, n)
    b = mixed(a, random_bits(n, dtype, n + 1), 0.5, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.ops.pyparam.compare([a, b], [b, a])
        torch.set_num_threads(threads)
        together = torch.ops.pyparam.compare([a, b], [b, a])
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(x.view(torch.int64), y.view(torch.int64)) for x, y in zip(alone, together, strict=True)
    )


PROBE = """
import torch
out = []
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.float8_e5m2):
    torch.manual_seed(0)
    a = (torch.randn(70_001) * 9).to(dtype)
    b = (a.to(torch.float32) + 0.5 * (torch.rand(70_001) < 0.3)).to(dtype)
    values, counts = torch.ops.pyparam.compare([a, a, a], [b, a, b.double()])
    out += values.view(torch.int64).flatten().tolist() + counts.flatten().tolist()
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_instruction_set_does_not_count(isa: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"import pyparam\n{PROBE}\nprint(out)"],
        env={**os.environ, "PYPARAM_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    here: dict[str, list[int]] = {}
    exec(PROBE, here)
    assert json.loads(ran.stdout) == here["out"]


def test_flush_to_zero_does_not_count() -> None:
    tiny = torch.full((100,), 1e-310, dtype=torch.float64)
    want = figures(tiny, 2 * tiny)
    assert want["rel_l2"] == pytest.approx(1.0)
    if torch.set_flush_denormal(True):
        try:
            assert figures(tiny, torch.full((100,), 2e-310, dtype=torch.float64)) == want
        finally:
            torch.set_flush_denormal(False)


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
    with pytest.raises(ValueError, match="meta"):
        compare({"x": tensor, "y": tensor}, {"x": other, "y": torch.ones(3, device="meta")})
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
def test_refused_by_name(kind: str) -> None:
    make, error, words = REFUSED[kind]
    good = {"only here": torch.ones(1), "x": torch.ones(3)}
    with pytest.raises(error, match=rf"^compare: parameter 'x' of b {words}"):
        compare(good, {"x": make()})
    with pytest.raises(error, match=rf"^compare: parameter 'x' of a {words}"):
        compare({"first": torch.ones(1), "x": make()}, good)


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
