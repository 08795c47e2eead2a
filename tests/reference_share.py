"""Slow oracles for sharing: every byte of every tensor, compared pair by pair."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def bytes_of(tensor: Tensor) -> set[int]:
    """The addresses of the bytes that a strided tensor's elements occupy."""
    width = tensor.element_size()
    base = tensor.data_ptr()
    offsets = itertools.product(
        *(
            range(0, size * stride, stride) if stride else (0,) * min(size, 1)
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
    )
    return {base + width * sum(at) + byte for at in offsets for byte in range(width)}


def groups(pairs: list[tuple[str, Tensor]]) -> list[tuple[str, ...]]:
    """Names that hang together by common bytes or as one object, ordered by first name."""
    footprints = [bytes_of(tensor) for _, tensor in pairs]
    group = list(range(len(pairs)))
    for i, j in itertools.combinations(range(len(pairs)), 2):
        if pairs[i][1] is pairs[j][1] or footprints[i] & footprints[j]:
            old, new = group[j], group[i]
            group = [new if g == old else g for g in group]
    found: dict[int, list[str]] = {}
    for (name, _), g in zip(pairs, group, strict=True):
        found.setdefault(g, []).append(name)
    return [tuple(names) for names in found.values() if len(names) > 1]


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one storage and layout."""
    relevant = [d for d in range(a.dim()) if a.shape[d] != 1] if a.shape == b.shape else []
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and a.numel() > 0
        and a.data_ptr() == b.data_ptr()
        and all(a.stride(d) == b.stride(d) for d in relevant)
    )


def kind(tensors: list[Tensor]) -> str:
    if all(tensor is tensors[0] for tensor in tensors):
        return "parameter"
    if all(same_bytes(tensors[0], tensor) for tensor in tensors):
        return "storage"
    return "overlap"


def unique_bytes(tensors: list[Tensor]) -> int:
    return len(set().union(*map(bytes_of, tensors))) if tensors else 0


def sequential() -> torch.nn.Sequential:
    """A layer that is used in two places."""
    torch.manual_seed(0)
    shared = torch.nn.Linear(8, 8)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8),
        torch.nn.ReLU(),
        shared,
        torch.nn.ReLU(),
        shared,
        torch.nn.ReLU(),
        torch.nn.Linear(8, 1),
    )


def tied() -> torch.nn.Sequential:
    """Two layers with one weight and one bias."""
    net = sequential()
    net[4] = torch.nn.Linear(8, 8)
    net[4].weight, net[4].bias = net[2].weight, net[2].bias
    return net
