"""Models over ranks, and what the checks of several ranks say of them."""

# ruff: noqa: PT017, PT018 - pytest does not see these

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import pyparam

SECONDS = 5  # how long a collective, or a rank, is waited for
FIGURES = (
    "min",
    "max",
    "mean",
    "std",
    "rms",
    "l1",
    "l2",
    "max_abs",
    "numel",
    "nbytes",
    "zeros",
    "subnormals",
)


class Ranks(NamedTuple):
    rank: int
    world: int
    folder: Path


class Net(nn.Module):
    """Sizes that no number of ranks divides, a norm, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.down = nn.Linear(7, 3)
        self.register_buffer("scale", torch.tensor([1.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.norm(self.up(x))))


def filled(dtype: torch.dtype = torch.float32) -> Net:
    """Values of many binades, zeros of both signs, a subnormal."""
    torch.manual_seed(7)
    model = Net()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * torch.exp2(torch.randint_like(p, -15, 10)))
            if p.numel() > 4:
                p.view(-1)[1:4] = torch.tensor([0.0, -0.0, 1e-40])
    return model.to(dtype)


def with_gradients(model: nn.Module) -> nn.Module:
    """Each its own parameter's values: placed alike, and the same on any number of ranks."""
    for p in model.parameters():
        p.grad = p.detach().clone()
    return model


def fsdp2(model: nn.Module, mesh: DeviceMesh, **options: Any) -> nn.Module:
    for child in model.children():
        fully_shard(child, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def columns(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    def cut(_: str, module: nn.Module, mesh: DeviceMesh) -> None:
        for name, p in list(module.named_parameters(recurse=False)):
            place = [Shard(p.dim() - 1)]
            module.register_parameter(name, nn.Parameter(distribute_tensor(p.data, mesh, place)))

    return distribute_module(model, mesh, cut)


PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def refused(run: Callable[[], Any], *words: str, kind: type[Exception] = Exception) -> None:
    try:
        run()
    except kind as error:
        for word in words:
            assert word in str(error), (word, str(error))
    else:
        raise AssertionError(f"no error with {words}")


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist())


def same_as_whole(sharded: nn.Module, plain: nn.Module) -> None:
    """Every verb gives what it gives of the model before it was distributed: the same bits."""
    got = pyparam.measure(sharded, histogram=True, quantiles=(0.0, 0.3, 1.0))
    wanted = pyparam.measure(plain, histogram=True, quantiles=(0.0, 0.3, 1.0))
    assert got.names == wanted.names and got.shape == wanted.shape and got.dtype == wanted.dtype
    for figure in FIGURES:
        assert bits(getattr(got, figure)) == bits(getattr(wanted, figure)), figure
        assert getattr(got.total, figure) == getattr(wanted.total, figure), f"total {figure}"
    assert torch.equal(got.quantiles, wanted.quantiles)
    for name in (None, *got.names):
        x, y = got.histogram(name), wanted.histogram(name)
        assert all(torch.equal(i, j) for i, j in zip(x, y, strict=True)), name
    for dtype in (torch.float16, torch.float8_e4m3fn):
        x, y = got.underflow(dtype), wanted.underflow(dtype)
        assert torch.equal(x.zero, y.zero) and torch.equal(x.overflow, y.overflow)
    assert dict(pyparam.fingerprint(sharded)) == dict(pyparam.fingerprint(plain))
    assert pyparam.fingerprint(sharded).diverged == []
    for p in (0.0, 1.0, 2.0, math.inf):
        norm = pyparam.total_norm(sharded, p)
        assert type(norm) is Tensor and bits(norm) == bits(pyparam.total_norm(plain, p)), p
    assert torch.allclose(pyparam.total_norm(sharded, 3.0), pyparam.total_norm(plain, 3.0))
    assert pyparam.compare(sharded, plain).equal and pyparam.compare(plain, sharded).equal
    assert pyparam.compare(sharded, sharded).equal

    whole = with_gradients(sharded)
    norm = pyparam.clip_grad_norm_(whole, 0.5)
    expected = pyparam.clip_grad_norm_(with_gradients(plain), 0.5)
    assert torch.equal(norm, expected)
    clipped = {n: p.grad for n, p in plain.named_parameters()}
    for name, p in sharded.named_parameters():
        gradient = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
        assert torch.equal(gradient, clipped[name]), name

    pyparam.init.initialize_(sharded, {"*": pyparam.init.normal_}, seed=3)
    pyparam.init.initialize_(plain, {"*": pyparam.init.normal_}, seed=3)
    assert dict(pyparam.fingerprint(sharded)) == dict(pyparam.fingerprint(plain))
