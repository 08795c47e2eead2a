"""compare beside the torch ops that give the same figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pairing import versus
from torch import Tensor

import pyparam


def by_torch(a: Tensor, b: Tensor) -> dict[str, Any]:
    """What people write: one op after another, each over all elements."""
    distance = (a - b).abs()
    norm_a, norm_b = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
    different = a != b
    return {
        "max_abs": distance.max().item(),
        "mean_abs": distance.mean().item(),
        "rel_l2": (torch.linalg.vector_norm(a - b) / norm_a).item(),
        "cosine": ((a * b).sum() / (norm_a * norm_b)).item(),
        "equal": torch.equal(a, b),
        "differing": int(different.sum()),
        "nonfinite": int((~(a.isfinite() & b.isfinite()) & different).sum()),
        "first": int(different.flatten().int().argmax()),
    }


def pairs(
    elements: int, count: int, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    a = {f"{i}.weight": torch.randn(elements // count).to(dtype) for i in range(count)}
    b = {name: tensor + tensor.abs() * 1e-2 for name, tensor in a.items()}
    return a, b


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], rel: float) -> None:
    found = pyparam.compare(a, b)
    name = found.names[-1]
    want = by_torch(a[name], b[name])
    row = found[name]
    for figure in ("max_abs", "mean_abs", "rel_l2", "cosine"):
        assert math.isclose(getattr(row, figure), want[figure], rel_tol=rel), figure
    assert (row.differing, row.nonfinite, row.first, row.equal) == (
        want["differing"],
        want["nonfinite"],
        want["first"],
        want["equal"],
    )


def test_two_models(benchmark: Any) -> None:
    """2 x 1.6 GB of float32 in 24 tensors that differ everywhere."""
    a, b = pairs(400_000_000, 24)
    assert_same(a, b, rel=1e-2)
    pair = versus(
        benchmark,
        lambda: pyparam.compare(a, b),
        lambda: [by_torch(a[name], b[name]) for name in a],
        rounds=3,
        floor=10,
    )
    print(f"{3.2 / pair.ours:.1f} GB/s")


def test_equal_models(benchmark: Any) -> None:
    """2 x 1.6 GB that are the same, against torch.equal alone, which tells nothing else."""
    a, _ = pairs(400_000_000, 24)
    b = {name: tensor.clone() for name, tensor in a.items()}
    assert pyparam.compare(a, b).equal
    versus(
        benchmark,
        lambda: pyparam.compare(a, b),
        lambda: all(torch.equal(a[name], b[name]) for name in a),
        rounds=9,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes(benchmark: Any, dtype: torch.dtype) -> None:
    a, b = pairs(100_000_000, 4, dtype)
    versus(
        benchmark,
        lambda: pyparam.compare(a, b),
        lambda: [by_torch(a[name], b[name]) for name in a],
        rounds=3,
        floor=10,
    )


def test_two_dtypes(benchmark: Any) -> None:
    """A float32 model against its bfloat16 copy."""
    a, _ = pairs(100_000_000, 4)
    b = {name: tensor.bfloat16() for name, tensor in a.items()}
    versus(
        benchmark,
        lambda: pyparam.compare(a, b),
        lambda: [by_torch(a[name], b[name].float()) for name in a],
        rounds=3,
        floor=10,
    )


def test_many_small(benchmark: Any) -> None:
    """Two tables of 47,398 tensors of 30 elements."""
    a, b = pairs(47_398 * 30, 47_398)
    assert_same(a, b, rel=1e-4)
    tables = [pyparam.ParamTable(list(side), list(side.values())) for side in (a, b)]
    versus(
        benchmark,
        lambda: pyparam.compare(*tables),
        lambda: [by_torch(a[name], b[name]) for name in a],
        rounds=3,
        floor=10,
    )
