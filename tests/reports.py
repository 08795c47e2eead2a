"""Models for the tests of findings and reports: healthy ones, and one with every fault planted in it."""

from __future__ import annotations

import torch
from torch import nn

HOSTILE = "</script><img src=x onerror=hacked=1>"


class GPT(nn.Module):
    """Embeddings, blocks with LayerNorms, a head that is tied or not; initialised as GPT-2 is."""

    def __init__(self, *, tied: bool = True, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.wte = nn.Embedding(300, width, padding_idx=0)
        self.wpe = nn.Embedding(300, width)
        self.h = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True) for _ in range(layers)
        )
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, 300, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                scale = 0.02 / (2 * layers) ** 0.5 if "linear2" in name else 0.02
                nn.init.normal_(parameter, std=scale)
            elif "norm" not in name and not name.startswith("ln_f"):
                nn.init.zeros_(parameter)
        if tied:
            self.head.weight = self.wte.weight


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, zero_init: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        if inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside)
            )
        if zero_init:
            nn.init.zeros_(self.bn2.weight)


class ResNet(nn.Module):
    def __init__(self, *, zero_init_residual: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for i, (inside, outside) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            blocks = [Block(inside, outside, zero_init_residual), Block(outside, outside, zero_init_residual)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def faulty() -> GPT:
    """A GPT with a fault of each kind, and a parameter whose name wants to be markup."""
    model = GPT()
    with torch.no_grad():
        model.h[1].linear1.weight[3, 5] = float("nan")
        model.h[2].linear2.weight.zero_()
        model.h[2].linear2.bias.zero_()
        model.h[1].self_attn.in_proj_weight.fill_(0.5)
        model.h[3].linear1.weight[7] = model.h[3].linear1.weight[9]
        model.h[0].linear2.weight.mul_(1000)
        model.wpe.weight.mul_(1e-7)
        model.h[0].norm1.half()
    model.register_parameter(HOSTILE, nn.Parameter(torch.randn(40)))
    return model
