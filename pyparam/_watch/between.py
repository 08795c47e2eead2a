"""What can be seen of a step for next to nothing, and makes one worth measuring that was not to be."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from pyparam._watch.rules import LearningRateJump

_FACTOR = LearningRateJump.factor
_STEADY = 5
"""Steps at which as many parameters had a gradient, before another number says something: an expert without
a token has none at times."""


class Between:
    """Looks at an optimizer's learning rates and at which parameters have no gradient, at every step."""

    def __init__(self) -> None:
        self._rates: list[Any] = []
        self._missing = -1
        self._steady = 0

    def stands_out(self, optimizer: Optimizer) -> bool:
        """Whether a learning rate is some times that of the step before, or another number of parameters has
        a gradient than at the steps before.

        Of learning rates that are tensors nothing is said: reading one may wait for a device.
        """
        groups = optimizer.param_groups
        rates = [group.get("lr") for group in groups]
        leapt = any(
            now > _FACTOR * before > 0
            for now, before in zip(rates, self._rates, strict=False)
            if isinstance(now, float) and isinstance(before, float)
        )
        self._rates = rates
        missing = 0
        for group in groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    missing += 1
        changed = missing != self._missing
        if changed:
            leapt = leapt or self._steady >= _STEADY
            self._missing, self._steady = missing, 0
        else:
            self._steady += 1
        # Ranks see different gradients, and must measure the same steps.
        return leapt and not (torch.distributed.is_available() and torch.distributed.is_initialized())
