"""Loading, beside safetensors' and PyTorch's own, and averages beside ``AveragedModel``."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint
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
    pyparam.load_(ours, path)
    theirs.load_state_dict(safetensors.torch.load_file(path))
    assert pyparam.fingerprint(ours) == pyparam.fingerprint(theirs)
    moved = path.stat().st_size + sum(p.nbytes for p in ours.parameters())
    # memcpy of as many bytes as are read and written
    halves = [torch.zeros(moved // 2, dtype=torch.uint8) for _ in range(2)]
    versus(None, lambda: pyparam.load_(ours, path), lambda: halves[0].copy_(halves[1]), rounds=5, floor=0.8)
    halves.clear()
    versus(
        benchmark,
        lambda: pyparam.load_(ours, path),
        lambda: theirs.load_state_dict(safetensors.torch.load_file(path)),
        rounds=5,
        floor=3,
    )


MEMORY = """
import re, sys
import torch
from torch import nn
import pyparam
def status(key):
    return int(re.search(rf"{key}:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3
net = nn.Sequential(*[nn.Linear(4096, 4096, bias=False) for _ in range(16)])
pyparam.load_(nn.Linear(2, 2), nn.Linear(2, 2))
open("/proc/self/clear_refs", "w").write("5")  # the peak starts from here
resident, anonymous = status("VmRSS"), status("RssAnon")
pyparam.load_(net, sys.argv[1])
print(status("VmHWM") - resident, status("RssAnon") - anonymous)
"""


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    "kind", ["safetensors", "of the model's dtype", "sharded", "torch.save", "distributed"]
)
def test_memory_above_the_model(kind: str, tmp_path: Path) -> None:
    """What a fresh process has in memory at most, beyond a model of 1.07 GB; the floor is 100 MB."""
    dtype = torch.float32 if kind == "of the model's dtype" else torch.bfloat16
    state = {f"{i}.weight": torch.full((4096, 4096), i, dtype=dtype) for i in range(16)}
    path = tmp_path / "saved"
    if kind == "torch.save":
        torch.save(state, path)
    elif kind == "distributed":
        torch.distributed.checkpoint.save(state, checkpoint_id=path, no_dist=True)
    elif kind == "sharded":
        path.mkdir()
        names = list(state)
        shards = {f"{i}.safetensors": names[i::4] for i in range(4)}
        for file, held in shards.items():
            safetensors.torch.save_file({name: state[name] for name in held}, path / file)
        index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(state, path)
    del state
    told = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    ).stdout.split()
    most, left = map(float, told)
    print(f"\n{kind}: at most {most:.0f} MB above the model, {left:.1f} MB afterwards")
    assert most < 100


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
