"""What a model's state holds besides tensors and names: versions, dtypes, tuples of packed parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pyparam

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.ao.nn.quantized import Linear as QuantizedLinear

# torch has deprecated quantized tensors, and the class by way of which it copies them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning"),
]


class Versioned(nn.Module):
    """Remembers which version of itself it is told has saved what it reads."""

    _version = 7

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.told: list[Any] = []

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        self.told.append(metadata.get("version"))
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def quantized(seed: int) -> QuantizedLinear:
    made = QuantizedLinear(3, 4)
    draw = torch.Generator().manual_seed(seed)
    weight = torch.quantize_per_tensor(torch.randn(4, 3, generator=draw), 0.1, 0, torch.qint8)
    made.set_weight_bias(weight, torch.randn(4, generator=draw))
    return made


def same_outputs(a: nn.Module, b: nn.Module) -> bool:
    x = torch.quantize_per_tensor(torch.ones(1, 3), 0.1, 0, torch.quint8)
    return torch.equal(a(x).dequantize(), b(x).dequantize())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("nested", [False, True], ids=["state dict", "training checkpoint"])
def test_modules_are_told_the_version_that_saved_a_pickled_file(
    tmp_path: Path, zipped: bool, nested: bool
) -> None:
    state: Mapping[str, Any] = nn.Sequential(Versioned()).state_dict()
    torch.save(
        {"state_dict": state, "epoch": 3} if nested else state,
        tmp_path / "model.pt",
        _use_new_zipfile_serialization=zipped,
    )
    source: Any = pyparam.open(tmp_path / "model.pt")
    if nested:
        source = source.picked(["state_dict.0.w"], ["0.w"], "state_dict.")
    model = nn.Sequential(Versioned())
    pyparam.load_(model, source)
    assert model[0].told == [7]


def test_a_quantized_layer_takes_its_state_dict_with_what_is_no_tensor_in_it() -> None:
    source, model = quantized(0), quantized(1)
    assert not same_outputs(source, model)
    keys = pyparam.load_(model, copy.deepcopy(source.state_dict()))
    assert tuple(keys) == ([], [])
    assert same_outputs(source, model)


def test_a_quantized_layer_takes_a_file_of_its_state_dict(tmp_path: Path) -> None:
    source, model = nn.Sequential(quantized(0)), nn.Sequential(quantized(1))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    keys = pyparam.load_(model, tmp_path / "model.pt")
    assert tuple(keys) == ([], [])
    assert same_outputs(source[0], model[0])
