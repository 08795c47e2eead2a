"""Slow oracles for the outline: what a tree holds and which of its blocks are alike, in plain PyTorch."""

from __future__ import annotations

import gc
import re
from typing import Any

import torch
from torch import Tensor, nn


def signature(module: nn.Module) -> tuple[Any, ...]:
    """Equal for modules that are alike all the way down. Only for trees that share nothing."""
    own = [
        (kind, name, tuple(t.shape), t.dtype, t.device, t.requires_grad)
        for kind, members in (("parameter", module._parameters), ("buffer", module._buffers))
        for name, t in members.items()
        if t is not None
    ]
    children = [(name, signature(child)) for name, child in module.named_children()]
    return (type(module), tuple(own), tuple(children))


def _follows(a: str, b: str) -> bool:
    first, second = re.fullmatch(r"(.*?)(\d+)", a), re.fullmatch(r"(.*?)(\d+)", b)
    return bool(first and second and first[1] == second[1] and int(second[2]) == int(first[2]) + 1)


def fold(module: nn.Module) -> list[list[str]]:
    """The names of a module's children, alike neighbours together. Only for trees that share nothing."""
    groups: list[list[str]] = []
    last: tuple[Any, ...] = ()
    for name, child in module.named_children():
        known = signature(child)
        is_block = any(True for _ in child.children())
        if groups and known == last and (is_block or _follows(groups[-1][-1], name)):
            groups[-1].append(name)
        else:
            groups.append([name])
        last = known
    return groups


def held(module: nn.Module, *, buffers: bool = False) -> dict[str, int]:
    """What a module holds, for tensors that are either one memory or disjoint."""
    named = module.named_buffers if buffers else module.named_parameters
    every = [t for _, t in named(remove_duplicate=False)]
    once: dict[int, Tensor] = {}
    for tensor in every:
        once.setdefault(tensor.data_ptr() or id(tensor), tensor)
    return {
        "names": len(every),
        "values": sum(t.numel() for t in every),
        "tensors": len(once),
        "unique": sum(t.numel() for t in once.values()),
        "bytes": sum(t.numel() * t.itemsize for t in once.values()),
        "trainable": 0 if buffers else sum(t.numel() for t in once.values() if t.requires_grad),
    }


def bare_chain(depth: int) -> nn.Module:
    """``rest.rest. ... .layer``: nested ``depth`` deep, with one Linear at the bottom."""
    gc.disable()  # it would look at every level again and again
    try:
        module = nn.Module()
        module.layer = nn.Linear(2, 2)
        for _ in range(depth - 1):
            above = nn.Module()
            above._modules["rest"] = module
            module = above
        return module
    finally:
        gc.enable()


class Zoo(nn.Module):
    """Every kind of container, a tied parameter, buffers and None entries."""

    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
        self.heads = nn.ModuleDict({"cls": nn.Linear(2, 5), "weight": nn.Linear(2, 7)})
        self.scales = nn.ParameterList([torch.ones(1), torch.zeros(2)])
        self.gains = nn.ParameterDict({"a": torch.ones(3), "b": torch.zeros(1)})
        self.norm = nn.BatchNorm1d(2)
        self.tied = nn.Linear(2, 2)
        self.tied.weight = self.layers[0].weight
        self.nothing = None
        self.add_module("absent", None)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
