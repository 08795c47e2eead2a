"""Findings: matrices of few directions, and those that one direction rules unlike their siblings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pyparam


def layers(shape=(96, 80), count: int = 6, dtype=torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {f"layers.{i}.up.weight": (0.02 * torch.randn(shape)).to(dtype) for i in range(count)}


def low(state: dict[str, Tensor]) -> dict[str, str]:
    found = [f for f in pyparam.findings(state) if f.kind == "low-rank"]
    assert all(f.severity == "warning" and f.confidence == "likely" and f.advice for f in found)
    return {name: words for f in found for name, words in f.details.items()}


def thin(rank: int, shape=(96, 80), dtype=torch.float32) -> Tensor:
    return (0.02 * torch.randn(shape[0], rank) @ torch.randn(rank, shape[1])).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rank", [1, 2, 8])
def test_few_directions(rank: int, dtype: torch.dtype) -> None:
    state = layers(dtype=dtype)
    state["layers.3.up.weight"] = thin(rank, dtype=dtype)
    assert low(state) == {"layers.3.up.weight": f"rank {rank} of 80"}


def test_a_kernel_and_one_without_siblings() -> None:
    torch.manual_seed(0)
    state = {"conv.weight": thin(2, (128, 576)).reshape(128, 64, 3, 3), "fc.weight": torch.randn(100, 128)}
    assert low(state) == {"conv.weight": "rank 2 of 128"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_direction_unlike_its_siblings(dtype: torch.dtype) -> None:
    state = layers((256, 256), dtype=dtype)
    u, v = torch.nn.functional.normalize(torch.randn(2, 256), dim=1)
    big = state["layers.2.up.weight"].float() + 20 * torch.outer(u, v)
    state["layers.2.up.weight"] = big.to(dtype)
    words = low(state)
    assert list(words) == ["layers.2.up.weight"]
    assert words["layers.2.up.weight"].startswith("one direction about ")


def test_healthy_ones_and_those_too_thin_to_say() -> None:
    assert low(layers()) == {}
    assert low(layers((63, 200))) == {}
    state = layers()
    for i in range(6):  # all of them have such a direction: that is how they were trained
        state[f"layers.{i}.up.weight"] += 0.5 * torch.outer(torch.randn(96), torch.ones(80))
    assert low(state) == {}
    state = layers()
    state["layers.1.up.weight"] = thin(32)
    assert low(state) == {}
    assert (
        low({"embed_positions.weight": thin(2), "basis": thin(3), "layers.0.up.weight": torch.zeros(80, 80)})
        == {}
    )
