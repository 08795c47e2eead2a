"""Names that stand in a file's metadata alone, as safetensors' save_model writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import pyparam


class Tied(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        shared = nn.Linear(3, 3)
        for name in names:
            self.add_module(name, shared)
        self.own = nn.Linear(3, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    safetensors.torch.save_model(Tied("a", "b", "c"), str(tmp_path / "m.safetensors"))
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c"), ("a", "c")], ids="".join)
def test_a_model_may_lack_them(path: Path, names: tuple[str, ...], assign: bool) -> None:
    theirs, ours = Tied(*names), Tied(*names)
    assert safetensors.torch.load_model(theirs, path) == (set(), [])
    assert pyparam.load_(ours, path, assign=assign) == ([], [])
    assert all(torch.equal(ours.state_dict()[n], v) for n, v in theirs.state_dict().items())
    assert pyparam.load_(Tied(*names), pyparam.open(path), strict=False) == ([], [])


def test_a_name_of_the_file_itself_is_unexpected(path: Path) -> None:
    model = Tied("b")
    with pytest.raises(RuntimeError, match="Unexpected"):
        safetensors.torch.load_model(model, path)
    with pytest.raises(ValueError, match=r"load_: the model lacks 'a\.weight', 'a\.bias'|'a\.bias', 'a\."):
        pyparam.load_(model, path)
    assert set(pyparam.load_(model, path, strict=False).unexpected_keys) == {"a.weight", "a.bias"}


def test_renamed(path: Path) -> None:
    holder: Any = nn.ModuleDict({"net": Tied("a")})
    assert pyparam.load_(holder, path, rename=lambda name: f"net.{name}") == ([], [])
    assert torch.equal(holder["net"].a.weight, pyparam.open(path)["a.weight"])


def test_of_several_files(tmp_path: Path) -> None:
    for i, name in enumerate(("x", "y")):
        torch.manual_seed(i)
        part = nn.ModuleDict({name: Tied("a", "b")})
        safetensors.torch.save_model(part, str(tmp_path / f"model-0000{i + 1}-of-00002.safetensors"))
    model = nn.ModuleDict({"x": Tied("a"), "y": Tied("a", "b")})
    assert pyparam.load_(model, tmp_path) == ([], [])
