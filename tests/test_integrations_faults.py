"""The five planted faults in a plain loop, under Lightning and transformers' Trainer: each named with layer
and step, at measured steps and between them."""

from __future__ import annotations

import pytest
import torch
from faulty_loops import LOOPS, Shape, expected, named
from faulty_training import ODD_STEPS, STEPS, Transformer

import pyparam

# What the libraries warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("at", [STEPS, ODD_STEPS], ids=["measured", "between"])
@pytest.mark.parametrize("loop", LOOPS)
def test_five_faults(loop: str, at: dict[str, int], tmp_path) -> None:
    package = {"lightning": "lightning.pytorch", "trainer": "transformers"}.get(loop)
    if package is not None:
        pytest.importorskip(package)
    torch.manual_seed(0)
    model = Transformer(32, 4, 64)
    wanted = expected(model, at)
    if at is ODD_STEPS:
        # What no step is measured for is found at the next that is.
        wanted["moment"] = (160, wanted["moment"][1])
        if loop == "lightning":  # its closure makes gradients after the step has begun
            for fault in ("frozen", "detached"):
                wanted[fault] = (wanted[fault][0] + 1, wanted[fault][1])
    run = LOOPS[loop](model, at, Shape(), tmp_path, check="every" if at is ODD_STEPS else "measured")
    assert named(run) == wanted
    rate = next(d for d in pyparam.departures(run.monitor.history) if d.quantity == "learning rate")
    assert rate.most == pytest.approx(30)
    assert rate.until == 90
