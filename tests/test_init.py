"""The samplers: the generator's known answers, distributions, places in a whole, errors."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from pyparam import init
from pyparam._native import _C
from tests import reference_init as reference

SEEDS = (0, 1, 2**63 + 12345)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DRAWN: dict[str, Callable[..., Tensor]] = {
    "uniform_": init.uniform_,
    "normal_": init.normal_,
    "trunc_normal_": init.trunc_normal_,
    "far tail": functools.partial(init.trunc_normal_, a=8.0, b=9.0),
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": init.xavier_normal_,
    "kaiming_uniform_": init.kaiming_uniform_,
    "kaiming_normal_": init.kaiming_normal_,
}
WHOLE = {
    **DRAWN,
    "orthogonal_": init.orthogonal_,
    "sparse_": functools.partial(init.sparse_, sparsity=0.4),
    "eye_": init.eye_,
}


def drawn(
    sampler: Callable[..., Tensor], *shape: int, dtype: torch.dtype = torch.float32, **options: Any
) -> Tensor:
    return sampler(torch.empty(*shape, dtype=dtype), **{"seed": 7, "stream": "layer.weight", **options})


# ---- the generator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    assert tuple(_C.philox4x32_10(counter, key)) == answer
    assert tuple(reference.philox4x32_10(np.array([counter], dtype=np.uint64), key)[0]) == answer


@pytest.mark.parametrize(
    ("name", "stream"), [("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)]
)
def test_a_stream_is_the_fnv1a_hash_of_the_name(name: str, stream: int) -> None:
    assert _C.stream_of_name(name) == stream == reference.fnv1a(name)
    assert torch.equal(drawn(init.normal_, 9, stream=name), drawn(init.normal_, 9, stream=stream))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 1023, 1024, 1025, 70_001])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_kernels_draw_what_the_reference_draws(seed: int, count: int) -> None:
    stream = reference.fnv1a("layer.weight")
    assert np.array_equal(
        drawn(init.uniform_, count, seed=seed).numpy(), reference.uniform32(seed, stream, count)
    )
    wide = drawn(init.uniform_, count, seed=seed, dtype=torch.float64)
    assert np.array_equal(wide.numpy(), reference.uniform64(seed, stream, count))
    normal = drawn(init.normal_, count, seed=seed).numpy()
    assert np.abs(normal - reference.normal32(seed, stream, count)).max() < 1.5e-6
    wide = drawn(init.normal_, count, seed=seed, dtype=torch.float64)
    assert np.abs(wide.numpy() - reference.normal64(seed, stream, count)).max() < 4e-15


def test_a_block_index_carries_into_its_high_word() -> None:
    begin = 2**34 - 6  # words 4 * 2**32 and on have block indices beyond 32 bits
    whole = (2**34 + 6,)
    got = drawn(init.uniform_, 12, offset=begin, shape=whole)
    for i, value in enumerate(got.tolist()):
        block, lane = divmod(begin + i, 4)
        stream = reference.fnv1a("layer.weight")
        counter = (block & 0xFFFFFFFF, block >> 32, stream & 0xFFFFFFFF, stream >> 32)
        assert value == (_C.philox4x32_10(counter, (7, 0))[lane] >> 8) * 2.0**-24


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(capability: str, tmp_path: Path) -> None:
    program = (
        "import torch, sys; from pyparam import init\n"
        "out = []\n"
        "for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):\n"
        "    for f, k in ((init.uniform_, {}), (init.normal_, {}), (init.trunc_normal_, {}),\n"
        "                 (init.trunc_normal_, {'a': 8., 'b': 9.}),\n"
        "                 (init.trunc_normal_, {'a': -1., 'b': 6.})):\n"
        "        out.append(f(torch.empty(4321, dtype=dtype), seed=5, stream='x', **k).double())\n"
        "torch.save(out, sys.argv[1])\n"
    )
    where = tmp_path / "values.pt"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, "-c", program, str(where)], check=True, env=environment)
    values = torch.load(where)
    here: dict[str, Any] = {}
    exec(program.replace("torch.save(out, sys.argv[1])\n", ""), here)
    assert all(torch.equal(a, b) for a, b in zip(values, here["out"], strict=True))


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "header", ["philox.h", "random.h", "truncated.h", "normal_cdf.h", "draw.h", "stream.h"]
)
def test_the_formulas_compile_without_torch(header: str, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent / "csrc"
    if not root.is_dir():
        pytest.skip("the sources are not beside the tests")
    alone = tmp_path / "alone.cpp"
    alone.write_text(f'#include "kernels/{header}"\n')
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(root)]
    subprocess.run([*command, str(alone)], check=True)


# ---- distributions ----------------------------------------------------------------------------------------

LAWS: dict[str, tuple[Callable[..., Tensor], dict[str, float], Any]] = {
    "uniform": (init.uniform_, {"a": -2.0, "b": 5.0}, stats.uniform(-2, 7)),
    "normal": (init.normal_, {"mean": 3.0, "std": 0.5}, stats.norm(3, 0.5)),
    "truncated": (init.trunc_normal_, {}, stats.truncnorm(-2, 2)),
    "one-sided": (init.trunc_normal_, {"a": 1.0, "b": float("inf")}, stats.truncnorm(1, np.inf)),
    "left": (init.trunc_normal_, {"a": -9.0, "b": -2.5}, stats.truncnorm(-9, -2.5)),
    "narrow": (init.trunc_normal_, {"a": 0.25, "b": 0.2501}, stats.truncnorm(0.25, 0.2501)),
    "tail": (init.trunc_normal_, {"a": 4.5, "b": 7.0}, stats.truncnorm(4.5, 7)),
    "far tail": (init.trunc_normal_, {"a": 8.0, "b": 9.0}, stats.truncnorm(8, 9)),
    "far left tail": (init.trunc_normal_, {"a": -12.0, "b": -6.0}, stats.truncnorm(-12, -6)),
    "farther than erfc": (init.trunc_normal_, {"a": 50.0, "b": 51.0}, stats.truncnorm(50, 51)),
    "scaled": (
        init.trunc_normal_,
        {"mean": -1.0, "std": 0.02, "a": -1.04, "b": -0.99},
        stats.truncnorm(-2, 0.5, loc=-1, scale=0.02),
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_the_draws_follow_the_law(law: str, dtype: torch.dtype, seed: int) -> None:
    sampler, options, wanted = LAWS[law]
    values = drawn(sampler, 40_000, dtype=dtype, seed=seed, **options).double().numpy()
    assert stats.kstest(values, wanted.cdf).pvalue > 1e-4
    mean, std = wanted.mean(), wanted.std()
    assert abs(values.mean() - mean) < 5 * std / 200
    assert abs(values.std() - std) < 0.03 * std
    low, high = wanted.support()
    rounded = np.float32 if dtype == torch.float32 else np.float64
    assert rounded(low) <= values.min()
    assert values.max() <= rounded(high)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sampler", [init.uniform_, init.normal_, init.trunc_normal_])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-6, 3e4])
def test_sixteen_bits_are_the_float32_values_rounded(
    sampler: Callable[..., Tensor], dtype: torch.dtype, scale: float
) -> None:
    options = {"a": -scale, "b": scale} if sampler is init.uniform_ else {"std": scale}
    if sampler is init.trunc_normal_:
        options |= {"a": -2 * scale, "b": 2 * scale}
    wide = drawn(sampler, 50_001, **options)
    assert torch.equal(drawn(sampler, 50_001, dtype=dtype, **options), wide.to(dtype))


def test_neighbours_streams_and_seeds_are_uncorrelated() -> None:
    base = drawn(init.normal_, 200_000).double()
    others = [
        drawn(init.normal_, 200_000, seed=8).double(),
        drawn(init.normal_, 200_000, stream="layer.weighu").double(),
        base.roll(1),
        base.roll(2),
        base.roll(4),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([base, other]))[0, 1].item()) < 5 / 200_000**0.5
    assert abs((base**2).corrcoef().item() - 1) < 1e-9
    squares = torch.stack([base**2, base.roll(1) ** 2])
    assert abs(torch.corrcoef(squares)[0, 1].item()) < 5 / 200_000**0.5


def test_a_uniform_stays_below_its_upper_bound() -> None:
    values = drawn(init.uniform_, 3_000_000, a=1.0, b=1.0000002)
    assert set(values.unique().tolist()) <= {1.0, 1.0000001192092896}
    assert values.max() < 1.0000002
    assert drawn(init.uniform_, 5, a=2.0, b=2.0).eq(2).all()


def test_degenerate_normals_are_constants() -> None:
    assert drawn(init.normal_, 9, mean=3.0, std=0.0).eq(3).all()
    assert drawn(init.trunc_normal_, 9, mean=5.0, std=0.0).eq(2).all()
    assert drawn(init.trunc_normal_, 9, a=1.5, b=1.5).eq(1.5).all()


SCALES = [
    *[(name, options) for name in ("xavier_uniform_", "xavier_normal_") for options in ({}, {"gain": 2.5})],
    *[
        (name, options)
        for name in ("kaiming_uniform_", "kaiming_normal_")
        for options in ({}, {"a": 0.3, "mode": "fan_out"}, {"nonlinearity": "tanh"})
    ],
]


@pytest.mark.parametrize(("name", "options"), SCALES)
@pytest.mark.parametrize("shape", [(64, 300), (32, 16, 3, 3), (8, 16, 5)])
def test_the_scale_is_torchs(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    ours = drawn(getattr(init, name), *shape, **options)
    torch.manual_seed(0)
    theirs = torch.empty(shape)
    getattr(nn.init, name)(theirs, **options)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
    if "uniform" in name:
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 3), (3, 2, 2, 2), (1, 1)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_orthogonal(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    q = drawn(init.orthogonal_, *shape, dtype=dtype, gain=2.0).double().flatten(1) / 2
    small = q @ q.t() if q.shape[0] <= q.shape[1] else q.t() @ q
    assert torch.allclose(
        small, torch.eye(len(small), dtype=torch.float64), atol=3e-2 if dtype.itemsize == 2 else 1e-6
    )


def test_orthogonal_is_uniform_over_rotations() -> None:
    corners = [drawn(init.orthogonal_, 3, 3, stream=i)[0, 0].item() for i in range(2000)]
    assert stats.kstest(corners, stats.uniform(-1, 2).cdf).pvalue > 1e-3  # Archimedes


def test_sparse() -> None:
    w = drawn(init.sparse_, 50, 400, sparsity=0.33, std=2.0)
    assert w.eq(0).sum(dim=0).eq(17).all()
    assert w[w != 0].std().item() == pytest.approx(2.0, rel=0.05)
    by_row = w.eq(0).sum(dim=1).double()
    assert by_row.min() > 90
    assert by_row.max() < 180


def test_eye_and_dirac_are_torchs() -> None:
    for shape in ((4, 4), (3, 5), (5, 3)):
        assert torch.equal(drawn(init.eye_, *shape), nn.init.eye_(torch.empty(shape)))
    for shape, groups in (((6, 3, 5), 1), ((6, 3, 4, 3), 2), ((4, 8, 3, 2, 3), 4), ((9, 2, 3), 3)):
        expected = nn.init.dirac_(torch.empty(shape), groups)
        assert torch.equal(init.dirac_(torch.empty(shape), groups), expected)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64, torch.bfloat16]
)
def test_constants_in_any_dtype(dtype: torch.dtype) -> None:
    t = torch.empty(5, dtype=dtype)
    assert init.ones_(t) is t
    assert torch.equal(t.to(torch.complex64), torch.ones(5, dtype=torch.complex64))
    assert init.zeros_(t).to(torch.complex64).abs().sum() == 0
    assert init.constant_(t, 1, seed=3, stream="x").to(torch.complex64).sum() == 5


def test_calculate_gain_is_torchs() -> None:
    assert init.calculate_gain is nn.init.calculate_gain


# ---- independence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_threads_change_nothing(name: str) -> None:
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(drawn(DRAWN[name], 1000, 333))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_torchs_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = [drawn(sampler, 14, 5) for sampler in WHOLE.values()]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    for a, b in zip(first, [drawn(sampler, 14, 5) for sampler in WHOLE.values()], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WHOLE)
def test_seven_shards_are_the_whole(name: str, dtype: torch.dtype) -> None:
    rows, columns = 21, 35
    whole = drawn(WHOLE[name], rows, columns, dtype=dtype)
    full = {"shape": (rows, columns)}
    by_row = [drawn(WHOLE[name], 3, columns, dtype=dtype, offset=(3 * k, 0), **full) for k in range(7)]
    assert torch.equal(torch.cat(by_row), whole)
    by_column = [drawn(WHOLE[name], rows, 5, dtype=dtype, offset=5 * k, **full) for k in range(7)]
    assert torch.equal(torch.cat(by_column, dim=1), whole)
    flat = [drawn(WHOLE[name], 105, dtype=dtype, offset=105 * k, **full) for k in range(7)]
    assert torch.equal(torch.cat(flat).view(rows, columns), whole)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_strided_part_is_its_part_of_the_whole(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    whole = drawn(init.normal_, *shape)
    part = whole
    for dim in range(whole.dim()):
        begin = data.draw(st.integers(0, shape[dim] - 1))
        part = part.narrow(dim, begin, data.draw(st.integers(0, shape[dim] - begin)))
        part = part[(slice(None),) * dim + (slice(None, None, data.draw(st.integers(1, 3))),)]
    part = part.permute(data.draw(st.permutations(range(part.dim()))))
    local = torch.empty(part.shape)
    if data.draw(st.booleans()):
        local = torch.empty([2 * size for size in part.shape])[
            tuple(slice(None, None, 2) for _ in part.shape)
        ]
    offset = part.storage_offset() if part.numel() else 0
    init.normal_(local, seed=7, stream="layer.weight", shape=shape, offset=offset, strides=part.stride())
    assert torch.equal(local, part)


def test_dirac_and_eye_in_parts() -> None:
    whole = init.dirac_(torch.empty(6, 3, 3, 3), groups=2)
    parts = [
        init.dirac_(torch.empty(6, 1, 3, 3), 2, offset=(0, k, 0, 0), shape=(6, 3, 3, 3)) for k in range(3)
    ]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    flat = [init.dirac_(torch.empty(54), 2, offset=54 * k, shape=(6, 3, 3, 3)) for k in range(3)]
    assert torch.equal(torch.cat(flat).view(6, 3, 3, 3), whole)


def test_memory_formats_hold_the_same_logical_values() -> None:
    plain = drawn(init.normal_, 6, 5, 4, 3)
    last = torch.empty(6, 5, 4, 3).to(memory_format=torch.channels_last)
    assert torch.equal(init.normal_(last, seed=7, stream="layer.weight"), plain)
    assert last.is_contiguous(memory_format=torch.channels_last)
    turned = torch.empty(3, 4, 5, 6).permute(3, 2, 1, 0)
    assert torch.equal(init.normal_(turned, seed=7, stream="layer.weight"), plain)
    sparse_rows = torch.full((12, 5, 4, 6), 9.0)
    init.normal_(sparse_rows[::2, :, :, ::2], seed=7, stream="layer.weight")
    assert torch.equal(sparse_rows[::2, :, :, ::2], plain)
    assert sparse_rows[1::2].eq(9).all()
    assert sparse_rows[:, :, :, 1::2].eq(9).all()


# ---- what stays, and what is refused ----------------------------------------------------------------------


def test_a_parameter_is_written_in_place_with_its_version() -> None:
    p = nn.Parameter(torch.zeros(4, 4))
    version = p._version
    assert init.kaiming_normal_(p, seed=0, stream="p") is p
    assert p.requires_grad
    assert p.grad_fn is None
    assert p._version == version + 1
    loss = (p * p).sum()
    init.zeros_(p)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_tensors_are_left_as_they_are(name: str, shape: tuple[int, int]) -> None:
    assert drawn(WHOLE[name], *shape).shape == shape


@pytest.mark.parametrize("name", WHOLE)
def test_meta_tensors_are_checked_and_left(name: str) -> None:
    t = torch.empty(6, 4, device="meta")
    assert WHOLE[name](t, seed=1, stream="x") is t


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda t: init.normal_(t, seed=-1, stream="x"),
            ValueError,
            r"normal_: seed must be in \[0, 2\*\*64\), got -1",
        ),
        (lambda t: init.normal_(t, seed=2**64, stream="x"), ValueError, "seed must be in"),
        (lambda t: init.normal_(t, seed=1.5, stream="x"), TypeError, "seed must be an integer, got float"),
        (lambda t: init.normal_(t, seed=True, stream="x"), TypeError, "seed must be an integer, got bool"),
        (
            lambda t: init.normal_(t, seed=1, stream=None),
            TypeError,
            "stream must be a qualified name or an integer",
        ),
        (lambda t: init.normal_(t, seed=1, stream=-2), ValueError, "stream must be in"),
        (
            lambda t: init.normal_(t, std=-1, seed=1, stream="x"),
            ValueError,
            "normal_: expected std >= 0, got -1",
        ),
        (
            lambda t: init.normal_(t, float("nan"), seed=1, stream="x"),
            ValueError,
            "mean must be finite, got nan",
        ),
        (lambda t: init.normal_(t, "a", seed=1, stream="x"), TypeError, "mean must be a number, got str"),
        (lambda t: init.uniform_(t, 2, 1, seed=1, stream="x"), ValueError, "expected a <= b, got a=2, b=1"),
        (lambda t: init.uniform_(t, -1e308, 1e308, seed=1, stream="x"), ValueError, "b - a must be finite"),
        (lambda t: init.trunc_normal_(t, a=2, b=1, seed=1, stream="x"), ValueError, "expected a <= b"),
        (lambda t: init.kaiming_normal_(t[0], seed=1, stream="x"), ValueError, "fewer than 2 dimensions"),
        (lambda t: init.xavier_uniform_(t[0], seed=1, stream="x"), ValueError, "fewer than 2 dimensions"),
        (
            lambda t: init.kaiming_normal_(t, mode="fan", seed=1, stream="x"),
            ValueError,
            "'fan' not supported",
        ),
        (
            lambda t: init.kaiming_normal_(t, nonlinearity="?", seed=1, stream="x"),
            ValueError,
            "Unsupported nonlinearity",
        ),
        (lambda t: init.orthogonal_(t[0], seed=1, stream="x"), ValueError, "2 or more dimensions"),
        (lambda t: init.sparse_(t[0], 0.5, seed=1, stream="x"), ValueError, "only tensors with 2 dimensions"),
        (
            lambda t: init.sparse_(t, 1.5, seed=1, stream="x"),
            ValueError,
            "expected 0 <= sparsity <= 1, got 1.5",
        ),
        (lambda t: init.eye_(t[0]), ValueError, "eye_: only tensors with 2 dimensions"),
        (lambda t: init.dirac_(t), ValueError, "3, 4 or 5 dimensions"),
        (lambda t: init.dirac_(t[None], 2), ValueError, "divisible by groups"),
        (
            lambda t: init.normal_(t, seed=1, stream="x", offset=3),
            ValueError,
            "need shape, the shape of the whole",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=(3, 0)),
            ValueError,
            "leaves the whole",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=(9, 0)),
            ValueError,
            "not a point of",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=-1),
            ValueError,
            "offset -1 leaves",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=16),
            ValueError,
            "offset 16 leaves",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), strides=(13, 1)),
            ValueError,
            "leaves the whole",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), strides=(4,)),
            ValueError,
            "strides must be 2",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4, 4)),
            ValueError,
            "needs strides to lie in",
        ),
        (lambda t: init.normal_([1.0], seed=1, stream="x"), TypeError, "expected a Tensor, got list"),
        (lambda t: init.normal_(t.expand(3, 2, 4), seed=1, stream="x"), ValueError, "share memory"),
        (
            lambda t: init.normal_(t.to(torch.int32), seed=1, stream="x"),
            TypeError,
            "dtype Int; random fills write float32",
        ),
        (lambda t: init.normal_(t.to(torch.complex64), seed=1, stream="x"), TypeError, "dtype ComplexFloat"),
        (lambda t: init.normal_(t.to(torch.float8_e5m2), seed=1, stream="x"), TypeError, "Float8_e5m2"),
        (
            lambda t: init.normal_(t.to_sparse(), seed=1, stream="x"),
            TypeError,
            r"is sparse \(layout Sparse\)",
        ),
        (lambda t: init.normal_(torch._neg_view(t), seed=1, stream="x"), TypeError, "lazy negative"),
        (
            lambda t: init.normal_(nn.parameter.UninitializedParameter(), seed=1, stream="x"),
            TypeError,
            "lazy module has no shape yet",
        ),
    ],
)
def test_errors_say_what_is_wrong_and_write_nothing(
    call: Callable[[Tensor], object], error: type[Exception], words: str
) -> None:
    t = torch.ones(2, 4)
    with pytest.raises(error, match=words):
        call(t)
    assert t.eq(1).all()


class _Wrapper(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("nothing may run on it")


def test_a_subclass_with_dispatch_of_its_own_is_refused_by_name() -> None:
    t = torch.Tensor._make_wrapper_subclass(_Wrapper, (2, 3))
    with pytest.raises(TypeError, match="_Wrapper is a tensor subclass with storage of its own"):
        init.normal_(t, seed=1, stream="x")


def test_a_plain_subclass_is_a_tensor() -> None:
    class Named(torch.Tensor):
        pass

    t = torch.empty(3, 3).as_subclass(Named)
    assert torch.equal(
        init.normal_(t, seed=7, stream="layer.weight").as_subclass(torch.Tensor), drawn(init.normal_, 3, 3)
    )


# ---- the operator -----------------------------------------------------------------------------------------


def operands(*tensors: Tensor) -> tuple[Any, ...]:
    n = len(tensors)
    return (list(tensors), [2] * n, [0.0, 1.0, 0.0, 0.0] * n, 3, list(range(n)), [], [], True)


def test_opcheck() -> None:
    torch.library.opcheck(
        torch.ops.pyparam.fill_.default, operands(torch.empty(5), torch.empty(2, 3, dtype=torch.bfloat16))
    )
    without_moments = (*operands(torch.empty(3, 4).t(), torch.empty(0))[:-1], False)
    torch.library.opcheck(torch.ops.pyparam.fill_.default, without_moments)
    one = (torch.empty(4, 5)[:, 1:], 2, [0.0, 1.0, 0.0, 0.0], 3, 5, 2, [5, 1])
    torch.library.opcheck(torch.ops.pyparam.fill_.one, one)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_operator_runs_in_torchscript_and_under_compile() -> None:
    def fill(t: Tensor) -> Tensor:
        torch.ops.pyparam.fill_(t, 1, [0.0, 1.0, 0.0, 0.0], 3, 5)
        return t

    def fill_list(t: Tensor) -> Tensor:
        torch.ops.pyparam.fill_([t], [1], [0.0, 1.0, 0.0, 0.0], 3, [5], [], [], False)
        return t

    expected = init.uniform_(torch.empty(7), seed=3, stream=5)
    assert torch.equal(
        torch.compile(fill_list, fullgraph=True, backend="aot_eager")(torch.empty(7)), expected
    )
    assert torch.equal(torch.jit.script(fill)(torch.empty(7)), expected)
    assert torch.equal(torch.compile(fill, fullgraph=True, backend="aot_eager")(torch.empty(7)), expected)


def test_moments_are_those_of_what_was_written() -> None:
    ts = [
        torch.empty(100_003),
        torch.empty(0),
        torch.empty(5, dtype=torch.float64),
        torch.empty(7, 9)[:, ::2],
    ]
    moments = torch.ops.pyparam.fill_(
        ts, [2, 2, 1, 3], [1e3, 0.5, 0, 0, 0, 1, 0, 0, 2, 3, 0, 0, 0, 1, -1, 1], 3, [0, 1, 2, 3], [], [], True
    )
    assert moments[1].isnan().all()
    for t, (mean, std) in zip([ts[0], *ts[2:]], moments[[0, 2, 3]].tolist(), strict=True):
        assert mean == pytest.approx(t.double().mean().item(), abs=1e-7)
        assert std == pytest.approx(t.double().std(correction=0).item(), rel=1e-5)


def test_overlapping_tensors_keep_the_later_ones_values() -> None:
    base = torch.empty(300_000)
    for _ in range(3):
        torch.ops.pyparam.fill_(
            [base, base[1000:200_000], base[5:7]],
            [2, 1, 0],
            [0, 1, 0, 0, 0, 1, 0, 0, 9, 0, 0, 0],
            3,
            [0, 1, 2],
            [],
            [],
            False,
        )
        assert torch.equal(base[1000:200_000], init.uniform_(torch.empty(199_000), seed=3, stream=1))
        assert base[5:7].eq(9).all()
        assert torch.equal(base[200_000:], init.normal_(torch.empty(300_000), seed=3, stream=0)[200_000:])


@pytest.mark.parametrize(
    ("operand", "value", "words"),
    [
        (1, [2], "2 tensors, but 1 kinds"),
        (1, [2, 9], r"tensors\[1\]: unknown kind 9"),
        (2, [0.0], "so 8 parameters expected, got 1"),
        (
            2,
            [0, 1, 0, 0, 0, -1, 0, 0],
            r"tensors\[1\]: a normal needs a finite mean and std >= 0; got mean=0, std=-1",
        ),
        (4, [1], "2 tensors, but 1 streams"),
        (5, [1], "2 tensors, but 1 offsets"),
        (5, [0, -1], r"tensors\[1\]: the offset in the whole is negative"),
        (6, [1, 2, 3], "2 dimensions in all, but there are 3 strides"),
        (6, [1, -1], r"tensors\[1\]: strides of the whole must be non-negative"),
        (6, [1, 2**62], r"tensors\[1\]: strides of the whole"),
    ],
)
def test_the_operator_checks_its_columns_before_it_writes(
    operand: int, value: list[float], words: str
) -> None:
    ts = [torch.ones(3), torch.ones(4)]
    given_operands = list(operands(*ts))
    given_operands[operand] = value
    with pytest.raises(ValueError, match=words):
        torch.ops.pyparam.fill_(*given_operands)
    assert ts[0].eq(1).all()


def test_the_operator_refuses_what_requires_grad_outside_no_grad() -> None:
    with pytest.raises(ValueError, match=r"tensors\[0\] requires grad; fill it under torch.no_grad\(\)"):
        torch.ops.pyparam.fill_(*operands(nn.Parameter(torch.ones(3))))


def test_meta_and_real_tensors_do_not_mix() -> None:
    with pytest.raises(ValueError, match="others are on meta; fill them in separate calls"):
        torch.ops.pyparam.fill_(*operands(torch.empty(3), torch.empty(3, device="meta")))
