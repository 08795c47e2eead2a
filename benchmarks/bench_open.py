"""Opening checkpoints and walking TorchScript, beside the reference implementation and PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pairing import versus
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pyparam
from pyparam._sources import table_of

ENTRIES = 47_398  # as many as the mixture of experts has parameters


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return {f"layers.{i // 768}.experts.{i % 768}.up_proj.weight": torch.ones(2, 2) for i in range(ENTRIES)}


@pytest.fixture(scope="module")
def safetensors_file(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open") / "many.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def pickled_file(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open") / "many.pt"
    torch.save(dict(list(tensors.items())[:5000]), path)
    return path


def test_names(benchmark: Any, safetensors_file: Path) -> None:
    def ours() -> list[str]:
        return list(pyparam.open(safetensors_file))

    def peer() -> list[str]:
        with safe_open(safetensors_file, "pt") as file:
            return list(file.keys())

    assert set(ours()) == set(peer())
    versus(benchmark, ours, peer, rounds=9)


def test_names_and_shapes(benchmark: Any, safetensors_file: Path) -> None:
    def ours() -> int:
        opened = pyparam.open(safetensors_file)
        return sum(len(opened.tensor_info(name).shape) for name in opened)

    def peer() -> int:
        with safe_open(safetensors_file, "pt") as file:
            return sum(len(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118

    assert ours() == peer()
    versus(benchmark, ours, peer, rounds=9)


def test_every_tensor(benchmark: Any, safetensors_file: Path) -> None:
    expected = load_file(safetensors_file)
    opened = pyparam.open(safetensors_file)
    assert all(torch.equal(opened[name], tensor) for name, tensor in expected.items())
    versus(benchmark, lambda: table_of(safetensors_file), lambda: load_file(safetensors_file), rounds=7)


def test_torch_save(benchmark: Any, pickled_file: Path) -> None:
    def peer() -> Any:
        return torch.load(pickled_file, weights_only=True, mmap=True)

    assert list(pyparam.open(pickled_file)) == list(peer())
    versus(benchmark, lambda: pyparam.open(pickled_file), peer, rounds=7)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(400))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(benchmark: Any) -> None:
    module = torch.jit.script(Layers())
    assert [name for name, _ in table_of(module)] == [name for name, _ in module.named_parameters()]
    versus(benchmark, lambda: list(table_of(module)), lambda: list(module.named_parameters()), rounds=15)
