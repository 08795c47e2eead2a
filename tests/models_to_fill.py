"""A model to fill, and what it held."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyparam import init

kaiming = init.kaiming_normal_


def snapshot(m: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in m.parameters()]


def same(m: nn.Module, values: list[Tensor]) -> bool:
    return all(torch.equal(p, v) for p, v in zip(m.parameters(), values, strict=True))


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Sequential(nn.ReLU(), nn.Linear(16, 4)))


def script(m: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(m)


def failing(tensor: Tensor, *, seed: int, stream: str) -> Tensor:
    raise ValueError("it will not do")


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(40, 60),
    "Linear without bias": lambda: nn.Linear(40, 60, bias=False),
    "Conv1d": lambda: nn.Conv1d(8, 12, 5, groups=4),
    "Conv2d": lambda: nn.Conv2d(8, 12, (3, 5)),
    "Conv3d": lambda: nn.Conv3d(4, 6, 3),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(8, 12, 5, groups=2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(8, 20, 3),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 6, 3),
    "Bilinear": lambda: nn.Bilinear(7, 9, 11),
    "Embedding": lambda: nn.Embedding(50, 20),
    "Embedding with padding": lambda: nn.Embedding(50, 20, padding_idx=3),
    "EmbeddingBag": lambda: nn.EmbeddingBag(50, 20, padding_idx=0),
    "BatchNorm1d": lambda: nn.BatchNorm1d(30),
    "BatchNorm2d": lambda: nn.BatchNorm2d(30),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(30),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(30, affine=True),
    "LayerNorm": lambda: nn.LayerNorm(30),
    "GroupNorm": lambda: nn.GroupNorm(3, 30),
    "RMSNorm": lambda: nn.RMSNorm(30),
    "RNN": lambda: nn.RNN(10, 20, num_layers=2, bidirectional=True),
    "LSTM": lambda: nn.LSTM(10, 20, proj_size=5),
    "GRU": lambda: nn.GRU(10, 20),
    "RNNCell": lambda: nn.RNNCell(10, 20),
    "LSTMCell": lambda: nn.LSTMCell(10, 20),
    "GRUCell": lambda: nn.GRUCell(10, 20),
    "MultiheadAttention": lambda: nn.MultiheadAttention(24, 4),
    "MultiheadAttention apart": lambda: nn.MultiheadAttention(24, 4, kdim=16, vdim=12, add_bias_kv=True),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(24, 4, 48),
    "TransformerDecoderLayer": lambda: nn.TransformerDecoderLayer(24, 4, 48),
    "Transformer": lambda: nn.Transformer(24, 4, 1, 1, 48, batch_first=True),
    "TransformerEncoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(24, 4, 48), 2, enable_nested_tensor=False
    ),
    "PReLU": lambda: nn.PReLU(5, init=0.1),
    "AdaptiveLogSoftmaxWithLoss": lambda: nn.AdaptiveLogSoftmaxWithLoss(20, 60, [10, 30]),
}
