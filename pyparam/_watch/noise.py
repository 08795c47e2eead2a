"""Gradient noise from the moments that Adam keeps: how much of a gradient is the batch's own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyparam._measure.measure import measure_strictly
from pyparam._share.readable import read_of
from pyparam._sources.table import ParamTable


def gradient_noise(optimizer: Optimizer, table: ParamTable) -> tuple[Tensor, Tensor]:
    """Of each row the trace of the gradients' covariance, and the square of the norm of their mean, float64
    [rows]; NaN without Adam's ``exp_avg`` and ``exp_avg_sq``, or at the first step.

    For gradients drawn anew at each step from one distribution, with mean G and covariance Σ, the moments
    without their bias have the expectations ‖m‖² = |G|² + c tr Σ and sum(v) = |G|² + tr Σ, where
    c = (1 - b)(1 + b^t) / ((1 + b)(1 - b^t)), b = beta1, is the sum of the squares of the weights that m is
    the mean with. So tr Σ = (sum(v) - ‖m‖²) / (1 - c) and |G|² = (‖m‖² - c sum(v)) / (1 - c). Their
    quotient is the simple noise scale of McCandlish et al. (2018), in batches.
    """
    made = torch.full((2, len(table)), math.nan, dtype=torch.float64, device="cpu")
    betas = {
        id(parameter): group.get("betas") for group in optimizer.param_groups for parameter in group["params"]
    }
    rows, names, first, second, steps = [], [], [], [], []
    for row, (name, parameter) in enumerate(table):
        state: Any = optimizer.state.get(parameter) or {}
        beta = betas.get(id(parameter))
        if {"exp_avg", "exp_avg_sq", "step"} <= state.keys() and beta is not None:
            rows.append(row)
            names.append(name)
            first.append(state["exp_avg"])
            second.append(state["exp_avg_sq"])
            steps.append((float(state["step"]), *map(float, beta)))
    means, read = read_of(ParamTable(names, first), measure_strictly)
    squares, also = read_of(ParamTable(names, second), measure_strictly)
    at_second = {row: i for i, row in enumerate(also.rows)}
    for i, row in enumerate(read.rows):
        step, beta1, beta2 = steps[row]
        if row not in at_second or step < 2:
            continue
        other = at_second[row]
        m = float(means.l2[i]) ** 2 / (1 - beta1**step) ** 2
        v = float(squares.mean[other]) * int(squares.numel[other]) / (1 - beta2**step)
        c = (1 - beta1) * (1 + beta1**step) / ((1 + beta1) * (1 - beta1**step))
        if c < 1:
            made[0, rows[row]] = max(0.0, (v - m) / (1 - c))
            made[1, rows[row]] = (m - c * v) / (1 - c)
    return made[0], made[1]
