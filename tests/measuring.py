"""Tensors to measure, and the check of a row."""

from __future__ import annotations

import math

import pytest
import torch
from reference_measure import statistics
from torch import Tensor

import pyparam

COUNTS = ("numel", "nbytes", "zeros", "nans", "posinfs", "neginfs", "subnormals")


EXACT = (*COUNTS, "min", "max", "max_abs")


def assert_row(row: pyparam.Stats, tensor: Tensor, tolerance: float = 1e-13) -> None:
    expected = statistics(tensor)
    for name in EXACT:
        got = getattr(row, name)
        same = got == expected[name] or (math.isnan(got) and math.isnan(expected[name]))
        assert same, (name, got, expected[name])
    # A mean is as exact as the magnitudes that went into it allow.
    scale = expected["l1"] / max(1, tensor.numel())
    assert row.mean == pytest.approx(expected["mean"], rel=tolerance, abs=tolerance * scale, nan_ok=True)
    for name in ("std", "rms", "l1", "l2"):
        assert getattr(row, name) == pytest.approx(expected[name], rel=tolerance, abs=1e-300, nan_ok=True), (
            name
        )


def as_bits(stats: pyparam.Stats) -> list[Tensor]:
    return [stats._values.view(torch.int64), stats._counts, *(stats._bins or ())]
