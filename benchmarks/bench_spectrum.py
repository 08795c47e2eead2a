"""spectrum against all singular values of each matrix by ``torch.linalg.svdvals``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairing import versus
from torch import Tensor

import pyparam

CASES = {
    "a layer of 1024 x 1024": (1, 1024, 1024),
    "an embedding of 16384 x 512": (1, 16384, 512),
    "48 layers of 512 x 512": (48, 512, 512),
    "1,000 experts of 64 x 96": (1000, 64, 96),
}


def matrices(count: int, rows: int, columns: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {str(i): torch.randn(rows, columns, generator=generator) for i in range(count)}


@pytest.mark.parametrize("condition", [False, True], ids=["largest", "with condition"])
@pytest.mark.parametrize("case", CASES)
def test_against_svdvals(benchmark: Any, case: str, condition: bool) -> None:
    state = matrices(*CASES[case])

    def ours() -> pyparam.Spectrum:
        return pyparam.spectrum(state, condition=condition)

    def peer() -> list[Tensor]:
        return [torch.linalg.svdvals(matrix) for matrix in state.values()]

    found, truth = ours(), peer()
    for row, values in zip(found, truth, strict=True):
        assert row.sigma_max == pytest.approx(float(values[0]), rel=1e-5)
        assert row.stable_rank == pytest.approx(float((values / values[0]).square().sum()), rel=1e-4)
        if condition:
            assert 0.9 * float(values[0] / values[-1]) < row.condition < 1.01 * float(values[0] / values[-1])
    versus(benchmark, ours, peer, rounds=3)
