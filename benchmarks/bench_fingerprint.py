"""fingerprint beside torch.sum over the same bytes, the limit of reading, and beside hashlib."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from models import drawn
from pairing import versus
from torch import Tensor

import pyparam


def parameters(elements: int = 400_000_000, count: int = 24) -> list[Tensor]:
    return [drawn(elements // count) for _ in range(count)]


def test_whole_model(benchmark: Any) -> None:
    """1.6 GB of float32 in 24 tensors against torch.sum of one tensor of as many bytes."""
    whole = drawn(400_000_000)
    table = pyparam.ParamTable([f"{i}.weight" for i in range(24)], list(whole.chunk(24)))
    assert pyparam.fingerprint(table) == pyparam.fingerprint(
        list(zip(table.names, table.tensors, strict=True))
    )
    versus(benchmark, lambda: pyparam.fingerprint(table), whole.sum, rounds=9, floor=0.7)


def test_bfloat16(benchmark: Any) -> None:
    """The same bytes as bfloat16 against torch.sum of them as float32."""
    whole = drawn(400_000_000)
    table = pyparam.ParamTable(["weight"], [whole.view(torch.bfloat16)])
    versus(benchmark, lambda: pyparam.fingerprint(table), whole.sum, rounds=9, floor=0.7)


def test_transposed(benchmark: Any) -> None:
    """A transposed matrix, read in place, against a contiguous copy and its sum."""
    matrix = torch.randn(8192, 8192).t()
    table = pyparam.ParamTable(["weight"], [matrix])
    assert pyparam.fingerprint(table)["weight"] == pyparam.fingerprint([matrix.contiguous()])["0"]
    versus(benchmark, lambda: pyparam.fingerprint(table), lambda: matrix.contiguous().sum(), rounds=9)


def test_many_small(benchmark: Any) -> None:
    """47,398 tensors of 30 elements against hash_tensor of each, which cannot see a permutation."""
    tensors = [torch.randn(30) for _ in range(47_398)]
    table = pyparam.ParamTable([f"layers.{i}.mlp.weight" for i in range(len(tensors))], tensors)
    pair = versus(
        benchmark,
        lambda: pyparam._base.native._C.fingerprint(table._native),
        lambda: [torch.hash_tensor(tensor) for tensor in tensors],
        rounds=9,
    )
    print(f"{pair.ours / len(tensors) * 1e9:.0f} ns a tensor")


def test_sha256(benchmark: Any) -> None:
    """200 MB against SHA-256 of the same bytes, which people store beside checkpoints."""
    tensors = parameters(50_000_000, 1)
    data = memoryview(tensors[0].numpy()).cast("B")
    versus(
        benchmark,
        lambda: pyparam.fingerprint(tensors),
        lambda: hashlib.sha256(data).hexdigest(),
        rounds=3,
    )
