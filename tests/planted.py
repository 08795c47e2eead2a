"""A mixture of experts with ties of every kind planted in it, and things that only look like ties."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from pyparam._cli.demo import mixture

Place = tuple[str, nn.Module, str]
Planted = list[tuple[tuple[str, ...], str]]


def _places(model: nn.Module) -> Iterator[Place]:
    for path, module in model.named_modules():
        for attribute in module._parameters:
            yield f"{path}.{attribute}" if path else attribute, module, attribute


def _put(place: Place, tensor: torch.Tensor) -> str:
    name, module, attribute = place
    if not isinstance(tensor, nn.Parameter):
        tensor = nn.Parameter(tensor)
    setattr(module, attribute, tensor)
    return name


def planted(count: int = 1000, layers: int = 61, experts: int = 256) -> tuple[nn.Module, Planted]:
    """The model, and the names and kind of each tie in it, in the order in which ``ties`` gives them."""
    model = mixture(layers, experts)
    # Spread over the whole model, so that no two members of a tie lie beside each other.
    places = list(_places(model))
    needed = 4 * count
    step = max(1, len(places) // needed)
    chosen = places[::step]
    half = len(chosen) // 2
    pairs = zip(chosen[:half], chosen[half:], strict=False)
    found: Planted = []
    for i, (first, second) in enumerate(itertools.islice(pairs, count)):
        kind = i % 8
        if kind == 0:
            shared = nn.Parameter(torch.zeros(4, 4))
            found.append(((_put(first, shared), _put(second, shared)), "parameter"))
        elif kind == 1:
            data = torch.zeros(4, 4)
            found.append(((_put(first, data), _put(second, data)), "storage"))
        elif kind == 2:
            data = torch.zeros(10)
            found.append(((_put(first, data[:6]), _put(second, data[5:])), "overlap"))
        elif kind == 3:
            data = torch.zeros(4, 4)
            found.append(((_put(first, data), _put(second, data.t())), "overlap"))
        elif kind == 4:
            data = torch.zeros(8, 8)
            found.append(((_put(first, data[:, 3]), _put(second, data[5])), "overlap"))
        elif kind == 5:
            array = np.zeros(12, dtype=np.float32)
            data, alias = torch.from_numpy(array), torch.from_numpy(array[6:])
            found.append(((_put(first, data), _put(second, alias)), "overlap"))
        elif kind == 6:
            data = torch.zeros(40)
            found.append(((_put(first, data[::3]), _put(second, data[1::5])), "overlap"))
        else:
            data = torch.zeros(4, 4)
            kept = nn.Parameter(data)
            names = (_put(first, kept), _put(second, kept))
            found.append((names, "parameter"))
    # Neighbours in one buffer, interleaved columns, halves of rows: nothing of these is a tie.
    rest = iter(places[1::step]) if step > 1 else iter(())
    for i, (first, second) in enumerate(itertools.islice(zip(rest, rest, strict=False), count)):
        data = torch.zeros(6, 8)
        views = [(data[:3], data[3:]), (data[:, 0::2], data[:, 1::2]), (data[:, :5], data[:, 5:])][i % 3]
        _put(first, views[0])
        _put(second, views[1])
    return model, sorted(found, key=_order(model))


def _order(model: nn.Module) -> object:
    position = {name: i for i, (name, _) in enumerate(model.named_parameters(remove_duplicate=False))}
    return lambda tie: position[tie[0][0]]
