"""A DTensor's shards get their own parts of the whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch import nn
from pyparam import init

size, rank = 7, int(sys.argv[1])
dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
mesh = init_device_mesh("cpu", (size,))
whole = init.kaiming_normal_(torch.empty(15, 8), seed=1, stream="weight")
for placement in (Shard(0), Shard(1), Replicate()):
    local = whole
    if placement.is_shard():
        local = placement._split_tensor(whole, size, with_padding=False)[0][rank]
    place = dict(shape=(15, 8), stride=(8, 1), run_check=False)
    d = DTensor.from_local(torch.zeros_like(local), mesh, [placement], **place)
    assert init.kaiming_normal_(d, seed=1, stream="weight") is d
    assert torch.equal(d.to_local(), local), placement
    model = nn.Module()
    model.weight = nn.Parameter(DTensor.from_local(torch.zeros_like(local), mesh, [placement], **place))
    init.initialize_(model, {"*": init.kaiming_normal_}, seed=1)
    assert torch.equal(model.weight.to_local(), local), placement
    init.ones_(d)
    assert d.to_local().eq(1).all()
try:
    init.normal_(DTensor.from_local(torch.zeros(3), mesh, [Partial()], run_check=False), seed=1, stream="x")
except TypeError as error:
    assert "each rank holds a term of its values" in str(error), error
else:
    raise AssertionError("a partial placement was filled")
print("checked")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without distributed")
@pytest.mark.parametrize("rank", [4, 6])
def test_each_rank_fills_its_part(rank: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(rank)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["checked"]
