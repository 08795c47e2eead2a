"""The samplers: the generator's known answers, distributions, places in a whole, errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_init as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samplers import DRAWN, FLOATS, SEEDS, WHOLE, drawn
from scipy import stats
from torch import Tensor, nn

from pyparam import init
from pyparam._base.native import _C

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


@pytest.mark.parametrize(
    "asked",
    [
        {"PYPARAM_ISA": "baseline"},
        {"PYPARAM_ISA": "avx2"},
        {"PYPARAM_ISA": "avx512bw"},
        {"ATEN_CPU_CAPABILITY": "default"},
        {"ATEN_CPU_CAPABILITY": "avx2"},
        {"ATEN_CPU_CAPABILITY": "avx512"},
    ],
    ids=lambda asked: "-".join(*asked.items()),
)
def test_every_instruction_set_gives_the_same_bits(asked: dict[str, str], tmp_path: Path) -> None:
    """Asked for more than the machine has, it takes what there is."""
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
    subprocess.run([sys.executable, "-c", program, str(where)], check=True, env={**os.environ, **asked})
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
    if sampler is init.normal_ and dtype == torch.float16 and scale == 3e4:
        with pytest.raises(ValueError, match="normal_: the tensor: a normal with .* beyond torch.float16"):
            drawn(sampler, 50_001, dtype=dtype, **options)
        return
    expected = drawn(sampler, 50_001, **options).to(dtype)
    if sampler is not init.normal_:
        low, high = options["a"], options["b"]
        numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).double()
        below = numbers < high if sampler is init.uniform_ else numbers <= high
        inside = numbers[(numbers >= low) & below]
        expected = expected.double().clamp(inside.min(), inside.max()).to(dtype)
    assert torch.equal(drawn(sampler, 50_001, dtype=dtype, **options), expected)


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
    assert drawn(init.trunc_normal_, 9, std=1e-310, a=1.0, b=2.0, dtype=torch.float64).eq(1).all()
    assert drawn(init.trunc_normal_, 9, std=1e-310, a=-2.0, b=-1.0).eq(-1).all()


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
