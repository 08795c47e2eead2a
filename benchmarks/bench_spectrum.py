"""spectrum against all singular values of each matrix by ``torch.linalg.svdvals``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairing import versus
from torch import Tensor

import pyparam

# Whether singular values fall as those of trained layers do. Those of normal numbers crowd at the largest,
# which is the hardest case.
CASES = {
    "a layer of 1024 x 1024": (1, 1024, 1024, False),
    "a trained layer of 1024 x 1024": (1, 1024, 1024, True),
    "an embedding of 16384 x 512": (1, 16384, 512, False),
    "48 layers of 512 x 512": (48, 512, 512, False),
    "48 trained layers of 512 x 512": (48, 512, 512, True),
    "1,000 experts of 64 x 96": (1000, 64, 96, False),
}


def matrices(count: int, rows: int, columns: int, falls: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for i in range(count):
        matrix = torch.randn(rows, columns, generator=generator)
        if falls:
            # As i to the power of -0.4: directions of one side weighed, the other left as it is.
            matrix *= torch.arange(1, columns + 1) ** -0.4
        made[str(i)] = matrix
    return made


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
            true = float(values[0] / values[-1])
            floor = max(row.matrix) * torch.finfo(torch.float32).eps  # below it, it is told as infinite
            near = true * floor > 0.5
            assert 0.9 * true < row.condition < 1.01 * true or (near and row.condition == float("inf"))
    versus(benchmark, ours, peer, rounds=3)
