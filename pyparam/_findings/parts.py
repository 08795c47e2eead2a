"""Which part of a training checkpoint a name is of: the model, an optimizer's state, or anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Part = Literal["model", "optimizer", "other"]

# What optimizers of torch.optim and of the common libraries call their state.
_OWN = {
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "exp_avg_diff", "exp_avg_slow", "momentum_buffer",
    "square_avg", "acc_delta", "grad_avg", "master_param", "exp_avg_sq_row", "exp_avg_sq_col",
}  # fmt: skip
_OPTIMIZER = re.compile(r"^(optim\w*|opt|optimizers?)\.", re.I)
_OTHER = re.compile(
    r"^(callbacks?|loops|lr_schedulers?|schedulers?|scaler|grad_scaler|amp|rng_\w*|random_\w*|hyper_parameters"
    r"|args|trainer_state|best_\w*|metrics?)\.",
    re.I,
)
SECOND_MOMENTS = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "exp_avg_sq_row", "exp_avg_sq_col"}


def parts_of(names: Sequence[str], *, saved: bool) -> list[Part]:
    """The part of each name; ``saved`` for what may be a checkpoint, whose first words are known, and not a
    model, whose modules may be called anything.
    """
    states = {name.rpartition(".")[0] for name in names if name.rpartition(".")[2] in _OWN}

    def part(name: str) -> Part:
        prefix = name.rpartition(".")[0]
        if prefix and prefix in states:
            return "optimizer"
        if saved and _OPTIMIZER.match(name):
            return "optimizer"
        return "other" if saved and _OTHER.match(name) else "model"

    return [part(name) for name in names]
