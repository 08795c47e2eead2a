"""The models of the demonstration: a small nested network, the same with faults, a mixture of experts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def block1() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())


def block2() -> nn.Sequential:
    block = nn.Sequential()
    for i in range(4):
        block.add_module(f"block {i}", block1())
    return block


def net() -> nn.Sequential:
    """Blocks within blocks: ``net()[0][1][0].bias`` is the parameter ``0.block 1.0.bias``."""
    return nn.Sequential(block2(), nn.Linear(4, 1))


def planted() -> nn.Sequential:
    """``net()`` with three things to find: a NaN, a layer that is dead, and two layers with one weight."""
    torch.manual_seed(1)
    model = net()
    weight, bias = model.get_parameter("0.block 2.0.weight"), model.get_parameter("0.block 2.0.bias")
    with torch.no_grad():
        model.get_parameter("0.block 1.0.bias")[3] = math.nan
        weight.zero_()
        bias.zero_()
    last = model.get_submodule("0.block 3.0")
    last.weight = model.get_parameter("0.block 0.0.weight")
    return model


class Expert(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, width, bias=False)
        self.up_proj = nn.Linear(width, width, bias=False)
        self.down_proj = nn.Linear(width, width, bias=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        return out


class MixtureLayer(nn.Module):
    """One layer of the mixture. Its forward pass lets every expert speak, weighed by the router."""

    def __init__(self, experts: int = 256, width: int = 8) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.experts = nn.ModuleList(Expert(width) for _ in range(experts))
        self.router = nn.Linear(width, experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        scores = (self.q(y) @ self.k(y).mT / y.shape[-1] ** 0.5).softmax(-1)
        x = x + self.o(scores @ self.v(y))
        y = self.norm2(x)
        weights = self.router(y).softmax(-1)
        for i, expert in enumerate(self.experts):
            x = x + weights[..., i : i + 1] * expert(y)
        return x


class Mixture(nn.Module):
    def __init__(self, layers: int = 61, experts: int = 256) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MixtureLayer(experts) for _ in range(layers))
        self.embed = nn.Embedding(10, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return x


def mixture(layers: int = 61, experts: int = 256) -> Mixture:
    """A mixture of experts: 78,632 modules and 47,398 small parameters in its default size."""
    return Mixture(layers, experts)
