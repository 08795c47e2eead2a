"""Fingerprints: the formula, what they must not see, what they must see, and how well they scatter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import reference_fingerprint as reference
import torch
from hashing import one
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import pyparam
from pyparam import compare, fingerprint

DTYPES = sorted(reference.NUMBER, key=str)


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Any pattern of bits that the type can hold."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty(0, dtype=dtype).element_size()
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    flat = torch.randint(0, 256, (torch.Size(shape).numel() * size,), generator=generator, dtype=torch.uint8)
    return flat.view(dtype).reshape(shape)


# --- the formula -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (7,), (5, 13), (2, 3, 5, 7), (331,)], ids=str)
def test_formula(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = random_bits(shape, dtype)
    assert one(tensor) == reference.digits(reference.digest(tensor))


@pytest.mark.parametrize(
    "nbytes", [*range(20), 127, 128, 129, 255, 256, 257, 1000, (1 << 18) - 1, (1 << 18) + 9]
)
def test_formula_at_the_edges_of_words_steps_and_chunks(nbytes: int) -> None:
    tensor = random_bits((nbytes,), torch.uint8, seed=nbytes)
    assert one(tensor) == reference.digits(reference.digest(tensor))


def test_formula_of_many_together() -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool]
    shapes = [(3,), (), (2, 3), (0,), (3, 2), (1, 1, 7), (130,), (2, 0), (4, 1, 2, 3), (33, 2), (1100,)]
    pairs = [
        (f"layers.{i}.{'weight' * (i % 7)}.{'x' * (i % 11)}", random_bits(shapes[i % 11], dtypes[i % 5], i))
        for i in range(270)
    ]
    found = fingerprint(pairs)
    assert dict(found) == {name: reference.digits(reference.digest(tensor)) for name, tensor in pairs}
    assert found.total == reference.total(pairs)


def test_names_of_nested_modules_count_as_they_are_spelled() -> None:
    root = nn.Module()
    module = root
    for depth in range(20):
        module.register_parameter("w" * (depth % 9 + 1), nn.Parameter(torch.ones(depth)))
        module.add_module("m" * (depth % 5 + 1), nn.Module())
        module.bias = nn.Parameter(torch.zeros(1))
        module = module.get_submodule("m" * (depth % 5 + 1))
    table = pyparam.walk(root)
    first = fingerprint(table).total
    assert first == reference.total(dict(root.named_parameters()).items())
    assert fingerprint(table).total == first


@given(
    st.lists(st.tuples(st.text(max_size=20), st.integers(0, 40)), unique_by=lambda pair: pair[0], max_size=12)
)
def test_total_formula(entries: list[tuple[str, int]]) -> None:
    names = [name.encode("utf-8", "replace").decode() for name, _ in entries]
    pairs = list(
        {name: random_bits((n,), torch.int16) for name, (_, n) in zip(names, entries, strict=True)}.items()
    )
    assert fingerprint(pairs).total == reference.total(pairs)


def test_known_answers() -> None:
    """Fingerprints stored by an earlier release must stay comparable: a change here is a new format."""
    state = {
        "0.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
        "0.bias": torch.tensor([1, -1, 1 << 40]),
    }
    got = fingerprint(state)
    assert got.format == 1
    assert got["0.weight"] == "10d48a0a5ed4a20b357fd19001836c44"
    assert got["0.bias"] == "09f75b51368405fe4345652eb2ac0d8e"
    assert got.total == "89904002a219dbb67a71d267a4ba6304"
    assert fingerprint({}).total == "bdbf15b6243c481e6d7f9bc12e38bbdf"


# --- what must not count -----------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "reversed dimensions": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "strided": lambda t: torch.stack([t, t], -1)[..., 1],
    "inner half of a larger one": lambda t: torch.cat([t, t], 2)[:, :, t.shape[2] :],
    "offset": lambda t: torch.cat([t.flatten()[:3], t.flatten()])[3:].view(t.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.complex128], ids=str
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 64, 9, 3), (70, 40, 9, 5)], ids=str)
def test_layout_does_not_count(layout: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = random_bits(shape, dtype)
    other = LAYOUTS[layout](tensor)
    assert torch.equal(other.contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8))
    assert one(other) == one(tensor)


def test_wide_transposed_matrix() -> None:
    matrix = torch.randn(700, 1300)
    assert one(matrix.t()) == one(matrix.t().contiguous())
    assert one(matrix[::3, 5::7]) == one(matrix[::3, 5::7].contiguous())


def test_expanded() -> None:
    row = torch.randn(1, 300)
    assert one(row.expand(500, 300)) == one(row.expand(500, 300).contiguous())
    assert one(torch.tensor(2.0).expand(70000)) == one(torch.full((70000,), 2.0))


def test_conjugate_and_negative_views_are_values() -> None:
    z = torch.randn(4, 5, dtype=torch.complex64)
    for view in (z.conj(), z.conj().imag, z.conj().t(), torch._neg_view(z.real)):
        assert one(view) == one(view.resolve_conj().resolve_neg().clone())
    assert one(z.conj()) != one(z)
    # Together with tensors that are none.
    assert fingerprint([z, z.conj(), z.real]) == fingerprint([z, z.conj().resolve_conj(), z.real.clone()])


@settings(deadline=None)
@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=8), st.integers(1, 8))
def test_threads_do_not_count(sizes: list[int], threads: int) -> None:
    tensors = [random_bits((n,), torch.uint8, seed=n) for n in sizes]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = fingerprint(tensors)
        torch.set_num_threads(threads)
        assert dict(fingerprint(tensors)) == dict(alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_instruction_set_does_not_count(isa: str) -> None:
    code = (
        "import torch, pyparam; x = torch.arange(100_001, dtype=torch.int32); "
        "sizes = [*range(300), 1023, 1024, 1055, 1056, 1057, 1121, 50_000]; "
        "print(pyparam.fingerprint([x, x[1::3], *(x[:n] for n in sizes)]).total)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYPARAM_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    x = torch.arange(100_001, dtype=torch.int32)
    sizes = [*range(300), 1023, 1024, 1055, 1056, 1057, 1121, 50_000]
    assert ran.stdout.strip() == fingerprint([x, x[1::3], *(x[:n] for n in sizes)]).total


def test_order_of_entries_and_requires_grad_do_not_count() -> None:
    a, b = torch.randn(3), torch.randn(4, 4)
    assert fingerprint({"a": a, "b": b}) == fingerprint({"b": b, "a": a.clone().requires_grad_()})


class Tied(nn.Module):
    """Parameters of two names, buffers that are saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 3)
        self.last.weight = self.first.weight
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_buffer("kept", torch.zeros(2))


@pytest.mark.parametrize(
    "module", [nn.Linear(4, 8), nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), Tied()], ids=repr
)
def test_a_module_is_what_its_state_dict_holds(module: nn.Module, tmp_path: Path) -> None:
    module.requires_grad_(False)
    assert set(fingerprint(module).names) == set(module.state_dict())
    assert fingerprint(module) == fingerprint(module.state_dict())
    torch.save(module.state_dict(), tmp_path / "model.pt")
    assert fingerprint(tmp_path / "model.pt") == fingerprint(module)


# --- files -------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="pages are dropped on Linux alone")
def test_pages_of_a_file_are_dropped_once_they_are_read(tmp_path: Path) -> None:
    state = {
        "a": torch.arange(20_000_000, dtype=torch.float32),
        "b": torch.ones(3),
        "c": torch.ones(5000, 1000),
    }
    save_file(state, tmp_path / "model.safetensors")
    want = fingerprint(state)
    del state
    checkpoint = pyparam.open(tmp_path / "model.safetensors")
    tensors = dict(checkpoint.items())
    before = resident()
    assert fingerprint(checkpoint) == want
    assert resident() - before < 30_000_000
    # A plain mapping of the same tensors keeps its pages: they may be anyone's memory.
    assert fingerprint(tensors) == want
    assert resident() - before > 90_000_000


def test_what_was_written_to_a_checkpoint_stays(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(300_000), "b": torch.zeros(300_000)}, tmp_path / "model.safetensors")
    checkpoint = pyparam.open(tmp_path / "model.safetensors")
    tensor = checkpoint["a"]
    tensor[150_000] = 7
    want = fingerprint({"a": tensor.clone(), "b": torch.zeros(300_000)})
    for _ in range(2):
        assert fingerprint(checkpoint) == want
    assert tensor[150_000] == 7
    assert compare(checkpoint, checkpoint).equal
    assert tensor[150_000] == 7


# --- what must count ---------------------------------------------------------------------------------------


def swapped(t: Tensor, i: int, j: int) -> Tensor:
    out = t.clone()
    out[i], out[j] = t[j], t[i]
    return out


BASE = torch.randn(4096, generator=torch.Generator().manual_seed(1))


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "one ulp": lambda t: torch.cat([torch.nextafter(t[:1], t[:1] + 1), t[1:]]),
    "reversal": lambda t: t.flip(0),
    "rotation": lambda t: t.roll(1),
    "rotation by a word": lambda t: t.roll(2),
    "rotation by a lane step": lambda t: t.roll(32),
    "neighbours swapped": lambda t: swapped(t, 0, 1),
    "swap across a word": lambda t: swapped(t, 1, 2),
    "swap across a step": lambda t: swapped(t, 0, 32),
    "swap of the ends": lambda t: swapped(t, 0, 4095),
    "blocks swapped": lambda t: torch.cat([t[2048:], t[:2048]]),
    "small blocks swapped": lambda t: torch.cat([t[32:64], t[:32], t[64:]]),
    "negated": lambda t: -t,
    "longer by a zero": lambda t: torch.cat([t, torch.zeros(1)]),
    "longer by a word of zeros": lambda t: torch.cat([t, torch.zeros(2)]),
    "shorter": lambda t: t[:-1],
    "another shape": lambda t: t.view(64, 64),
    "a dimension of one": lambda t: t.view(1, -1),
    "another type of the same bytes": lambda t: t.view(torch.int32),
    "another type of the same values": lambda t: t.double(),
    "half the length, twice the size": lambda t: t.view(torch.int64),
}


def test_changes_show_and_differ_from_each_other() -> None:
    seen = {"base": one(BASE), **{name: one(change(BASE)) for name, change in CHANGES.items()}}
    assert len(set(seen.values())) == len(seen)


def test_equal_changes_at_two_places_show() -> None:
    """Sums and exclusive-ors of plain values cancel such pairs."""
    bits = BASE.view(torch.int32)
    seen = {one(BASE)}
    for i, j in [(0, 1), (0, 2), (0, 32), (5, 4000), (100, 164)]:
        for change in (1, 1 << 22, -(1 << 31)):
            both = bits.clone()
            both[i] ^= change
            both[j] ^= change
            seen.add(one(both.view(torch.float32)))
    assert len(seen) == 16


def test_signed_zero_and_nan_payloads_show() -> None:
    patterns = [0, -(1 << 31), 0x7FC00000, 0x7FC00001, 0x7F800001, -0x400000, 0x7F800000]
    singles = [one(torch.tensor([p], dtype=torch.int32).view(torch.float32)) for p in patterns]
    assert len(set(singles)) == len(patterns)


def test_zeros_of_any_length_differ() -> None:
    assert len({one(torch.zeros(n, dtype=torch.uint8)) for n in range(300)}) == 300
    assert len({one(torch.zeros(shape)) for shape in [(0,), (0, 0), (0, 1), (1, 0), (), (1,), (1, 1)]}) == 7


def test_names_count() -> None:
    a, b = torch.randn(5), torch.randn(5)
    base = fingerprint({"a": a, "b": b})
    assert base != fingerprint({"a": b, "b": a})
    assert base != fingerprint({"a": a, "c": b})
    assert base != fingerprint({"a": a})
    assert base != fingerprint({"a": a, "b": b, "empty": torch.empty(0)})
    assert fingerprint({"ab": a, "c": b}) != fingerprint({"a": a, "bc": b})
    assert fingerprint({"a": a}) != fingerprint({"a\0": a})
    # A parameter's own digits are over its content, so renamed ones can be found.
    assert base["a"] == fingerprint({"renamed": a})["renamed"]


# --- how well they scatter ---------------------------------------------------------------------------------


def words(tensors: list[Tensor]) -> Tensor:
    return torch.ops.pyparam.fingerprint(tensors)


def ones(x: Tensor) -> Tensor:
    """The number of set bits of each int64."""
    return ((x.unsqueeze(-1) >> torch.arange(64)) & 1).sum(-1)


def flipped(base: Tensor, positions: Tensor) -> list[Tensor]:
    out = base.repeat(len(positions), 1)
    rows = torch.arange(len(positions))
    out[rows, positions // 8] ^= (1 << (positions % 8)).to(torch.uint8)
    return list(out.unbind())


@pytest.mark.parametrize("content", ["zeros", "random"])
def test_a_flipped_bit_changes_half_of_all_bits(content: str) -> None:
    base = torch.zeros(1024, dtype=torch.uint8) if content == "zeros" else random_bits((1024,), torch.uint8)
    positions = torch.arange(8192)
    before = words([base])
    difference = words(flipped(base, positions)) ^ before
    assert int((difference == 0).sum()) == 0
    changed = ones(difference)  # (8192, 2): of 64 bits, 32 +- 4
    assert abs(float(changed.float().mean()) - 32) < 0.2
    assert int(changed.min()) > 8
    assert int(changed.max()) < 56
    # Each output bit changes in half of the cases: 4096 +- 45.
    each = ((difference.unsqueeze(-1) >> torch.arange(64)) & 1).sum(0)
    assert int((each - 4096).abs().max()) < 45 * 6
    # And the halves change independently: their bits agree half of the time.
    agree = ones(~(difference[:, 0] ^ difference[:, 1]))
    assert abs(float(agree.float().mean()) - 32) < 0.2


def test_no_collisions_among_similar_inputs() -> None:
    """Each half alone, over 200,000 inputs that differ in a few bits, values or places."""
    size = 64
    base = random_bits((size,), torch.uint8)
    singles = flipped(base, torch.arange(size * 8))
    pairs = [row for i in range(0, size * 8, 2) for row in flipped(singles[i], torch.arange(i + 1, size * 8))]
    counters = list(torch.arange(60_000, dtype=torch.int64).view(-1, 1).unbind())
    grid = torch.cartesian_prod(torch.arange(245), torch.arange(245)).to(torch.float32)
    got = words([*singles, *pairs, *counters, *grid.unbind()])
    assert len(got) > 180_000
    assert len(got[:, 0].unique()) == len(got)
    assert len(got[:, 1].unique()) == len(got)


def test_no_collisions_among_permutations() -> None:
    eye = torch.eye(200).view(-1, 200)
    rows = [torch.cat([eye[i], eye[j]]) for i in range(200) for j in range(200)]
    got = words(rows)
    assert len(got[:, 0].unique()) == len(got[:, 1].unique()) == len(rows)
