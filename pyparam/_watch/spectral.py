"""The largest singular value of each weight, followed through a run from where it was before."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyparam._measure import krylov
from pyparam._measure.spectrum import is_matrix, matrix_of, refusal
from pyparam._measure.stats import Stats
from pyparam._sources.table import ParamTable

_FIRST = 1e-3
"""Tolerance of the iteration that begins, relative to the value; later steps go on from its vectors."""


class Spectral:
    """Right singular vectors of each matrix, by name: some k + 3 columns of its smaller side."""

    def __init__(self) -> None:
        self._vectors: dict[str, Tensor] = {}

    def clear(self) -> None:
        self._vectors.clear()

    def of(self, table: ParamTable, stats: Stats) -> tuple[Tensor, Tensor]:
        """Largest singular values and residuals, float64 [rows]; NaN for what is no matrix of finite
        numbers."""
        found = torch.full((2, len(table)), math.nan, dtype=torch.float64, device="cpu")
        bad = (stats.nans + stats.posinfs + stats.neginfs).tolist()
        largest = stats.max_abs.tolist()
        kept: dict[str, Tensor] = {}
        with krylov.in_full_precision():
            for row, (name, tensor) in enumerate(table):
                if not is_matrix(tensor) or refusal(tensor) is not None or bad[row]:
                    continue
                matrix, scale = matrix_of(tensor, largest[row])
                before = self._vectors.get(name)
                value, residual, kept[name] = _next(matrix, before)
                found[0, row], found[1, row] = value * scale, residual * scale
        self._vectors = kept
        return found[0], found[1]


def _next(matrix: Tensor, before: Tensor | None) -> tuple[float, float, Tensor]:
    side = min(matrix.shape)
    fits = before is not None and (before.shape[0], before.dtype, before.device) == (
        side,
        matrix.dtype,
        matrix.device,
    )
    if before is not None and fits:
        return krylov.once(matrix, before)
    found = krylov.leading(matrix.unsqueeze(0), 1, _FIRST)
    return float(found.values[0, 0]), float(found.residuals[0, 0]), found.vectors[0]
