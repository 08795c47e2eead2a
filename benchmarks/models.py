"""The models of the benchmarks. Each call builds a new one from torch's current random state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyparam._cli.demo import mixture, net

__all__ = ["MODELS", "Link", "Node", "chain", "drawn", "mixture", "mlp", "net", "tree"]


def drawn(count: int, std: float = 1.0) -> Tensor:
    """So many float32 values, a million drawn and repeated: to draw all takes longer than to measure them."""
    block = torch.randn(1 << 20).mul_(std)
    return block.repeat(-(-count // block.numel()))[:count]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


class Link(nn.Module):
    """A layer and the rest of the chain behind it."""

    def __init__(self, rest: nn.Module | None) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.rest = rest

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y if self.rest is None else self.rest(y)


def chain(depth: int = 200) -> nn.Module:
    """Modules nested ``depth`` deep, a Linear on each: ``rest.rest. ... .layer.weight``."""
    if depth < 1:
        raise ValueError(f"chain: depth must be positive, got {depth}")
    link: Link | None = None
    for _ in range(depth):
        link = Link(link)
    assert link is not None
    return link


class Node(nn.Module):
    """An inner node of a binary tree: the sum of its two halves."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left = left
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.left(x) + self.right(x)
        return out


def tree(leaves: int = 4096) -> nn.Module:
    """A balanced binary tree with a Linear at every leaf; ``leaves`` is a power of two."""
    if leaves < 1 or leaves & (leaves - 1):
        raise ValueError(f"tree: leaves must be a power of two, got {leaves}")
    level: list[nn.Module] = [nn.Linear(2, 2) for _ in range(leaves)]
    while len(level) > 1:
        level = [Node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


MODELS = {"mixture": mixture, "tree": tree, "chain": chain, "mlp": mlp}
