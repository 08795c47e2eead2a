"""Loading, beside safetensors' and PyTorch's own, and averages beside ``AveragedModel``."""

from __future__ import annotations

import copy
import resource
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from models import mixture
from pairing import versus
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pyparam


def test_mixture_from_safetensors(benchmark: Any, tmp_path: Path) -> None:
    ours, theirs = mixture(), mixture()
    path = tmp_path / "mixture.safetensors"
    safetensors.torch.save_file(mixture().state_dict(), path)
    pyparam.load_(ours, path)
    safetensors.torch.load_model(theirs, path)
    assert pyparam.fingerprint(ours) == pyparam.fingerprint(theirs)
    versus(
        benchmark,
        lambda: pyparam.load_(ours, path),
        lambda: safetensors.torch.load_model(theirs, path),
        rounds=3,
        floor=15,
    )


def test_half_precision_file_into_float32(benchmark: Any, tmp_path: Path) -> None:
    def model() -> nn.Module:
        return nn.Sequential(*[nn.Linear(5120, 5120, bias=False) for _ in range(30)])

    path = tmp_path / "half.safetensors"
    ours, theirs = model(), model()
    safetensors.torch.save_file({n: p.detach().bfloat16() for n, p in ours.named_parameters()}, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pyparam.load_(ours, path)
    above = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    theirs.load_state_dict(safetensors.torch.load_file(path))
    assert pyparam.fingerprint(ours) == pyparam.fingerprint(theirs)
    print(f"\n{path.stat().st_size / 1e9:.2f} GB; peak memory rose by {above / 1e3:.0f} MB")
    versus(
        benchmark,
        lambda: pyparam.load_(ours, path),
        lambda: theirs.load_state_dict(safetensors.torch.load_file(path)),
        rounds=3,
        floor=3,
    )


def test_average_of_a_mixture(benchmark: Any) -> None:
    model = mixture()
    ours = pyparam.EMA(model, 0.9)
    theirs = AveragedModel(copy.deepcopy(model), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    ours.update()
    theirs.update_parameters(model)
    averages = ours.state_dict()
    for name, value in theirs.module.named_parameters():
        torch.testing.assert_close(averages[name], value)
    versus(benchmark, ours.update, lambda: theirs.update_parameters(model), rounds=5, floor=5)
