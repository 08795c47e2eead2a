"""Names of packed weights over tensors that are none: recognised or not, nothing raises, and nothing grows."""

from __future__ import annotations

import json
import random

import pytest
import torch
from test_quantized import CASES, IN, OUT

import pyparam
from pyparam._sources import table_of
from pyparam._sources.quantized import quantized
from pyparam._sources.stand_in import Untold

DTYPES = (
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float8_e4m3fn,
    torch.float8_e8m0fnu,
)
STATES = (
    {"shape": [OUT, IN], "blocksize": 64, "nested_blocksize": 1, "nested_offset": 0.5},
    {"shape": [2**40], "blocksize": 64},
    {"shape": [-8, -16], "blocksize": 0},
    {"shape": [OUT, IN], "blocksize": float("inf")},
    {"shape": [OUT, IN], "blocksize": 2**70},
    {"shape": "x", "blocksize": None},
    [],
)


def changed(name, tensor, choose):
    """A tensor of another shape, type or content under a name."""
    kind = choose.randrange(5)
    if "quant_state" in name and kind < 4:
        text = "[" * 50_000 if kind == 0 else json.dumps(choose.choice(STATES))
        return torch.tensor(list(text.encode()), dtype=torch.uint8)
    if kind == 0 or tensor.numel() == 0:
        return tensor.to(torch.float32).to(choose.choice(DTYPES))
    if kind == 1:
        return tensor.reshape(-1) if choose.random() < 0.5 else tensor.reshape(-1)[:0]
    if kind == 2:
        sizes = [
            choose.choice([0, 1, 2, 3, 8, 16, 32, 64, 65]) for _ in range(choose.choice([0, 1, 2, 2, 2, 3]))
        ]
        return torch.randint(-128, 127, sizes, dtype=torch.int8).to(tensor.dtype)
    if kind == 3 and tensor.dim():
        return tensor[: choose.choice([1, len(tensor) // 2])].clone()
    raw = torch.randint(0, 256, (tensor.numel() * tensor.element_size(),), dtype=torch.uint8)
    return raw.view(tensor.dtype).reshape(tensor.shape)


# Blocks of fp8 are large, and of the same scheme as its rows.
@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "fp8 blocks"])
def test_anything_under_their_names(kind):
    choose = random.Random(kind)
    torch.manual_seed(0)
    recognised = untold = 0
    for _ in range(120):
        state = dict(CASES[kind]()[0])
        for _ in range(choose.choice([1, 1, 2])):
            name = choose.choice(list(state))
            state[name] = changed(name, state[name], choose)
        found = quantized(table_of(state))
        for one in found.logical:
            recognised += 1
            # One bit a value makes 32 times as many bytes of float32.
            assert one.numel <= 8 * one.nbytes + 64, (one, {n: (t.shape, t.dtype) for n, t in state.items()})
            try:
                value = one.values()
            except Untold:
                untold += 1
                continue
            assert value.shape == one.shape, (one, {n: (t.shape, t.dtype) for n, t in state.items()})
            assert value.dtype == torch.float32
    assert recognised > untold


def test_what_is_damaged_costs_its_row():
    state = {
        "l.weight": torch.zeros(64, dtype=torch.uint8),
        "l.weight.absmax": torch.full((2,), 200, dtype=torch.uint8),
        "l.weight.quant_map": torch.linspace(-1, 1, 16),
        "l.weight.nested_absmax": torch.ones(2),
        "l.weight.nested_quant_map": torch.ones(16),  # 200 is beyond it
    }
    said = {"shape": [8, 16], "blocksize": 64, "nested_blocksize": 1}
    key = "l.weight.quant_state.bitsandbytes__nf4"
    state[key] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    found = pyparam.compare(
        {**state, "w": torch.ones(2)}, {"l.weight": torch.zeros(8, 16), "w": torch.ones(2)}, dequantize=True
    )
    assert list(found.unread) == ["l.weight"]
    assert "l.weight cannot be told" in found.unread["l.weight"]
    assert found.names == ("w",)
