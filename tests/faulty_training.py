"""A transformer's training with five faults planted at known steps, of any size.

The faults are those that people look for: a learning rate that leaps for one step, a layer frozen by
mistake, a gradient cut off by ``detach``, a gradient that overflows float16, and an Adam second moment that
is lost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import pyparam


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads
        self.detached = False

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            part.view(b, n, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        hidden = nn.functional.gelu(self.up(self.norm2(x)))
        return x + self.down(hidden.detach() if self.detached else hidden)


class Transformer(nn.Module):
    """Predicts the next token."""

    def __init__(self, width: int, layers: int, vocabulary: int, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.layers:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def loss(self, tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def batch(vocabulary: int, size: int, length: int, generator: torch.Generator) -> Tensor:
    """Sequences that count upwards from a random start, in steps of one to three: something to learn."""
    start = torch.randint(vocabulary, (size, 1), generator=generator)
    stride = torch.randint(1, 4, (size, 1), generator=generator)
    return (start + stride * torch.arange(length)) % vocabulary


STEPS = {"rate": 80, "frozen": 100, "detached": 120, "moment": 150, "overflow": 180}
"""Where the faults are; the learning rate is high for one step."""
ODD_STEPS = {"rate": 83, "frozen": 104, "detached": 127, "moment": 152, "overflow": 186}
"""The same at none of the steps that are measured with every=10."""


def planted(
    model: Transformer, optimizer: torch.optim.Optimizer, at: Mapping[str, int] = STEPS
) -> dict[int, Callable[[], None]]:
    """What goes wrong before which step, by the step's number."""
    layers = model.layers
    rate = optimizer.param_groups[0]["lr"]

    def set_rate(value: float) -> None:
        optimizer.param_groups[0]["lr"] = value

    def overflow() -> None:
        def hook(gradient: Tensor) -> Tensor:
            handle.remove()
            scaled = gradient / gradient.abs().max() * 2.0**17  # a loss scale that is too large
            return scaled.half().to(gradient.dtype)

        handle = layers[0].out.weight.register_hook(hook)

    return {
        at["rate"]: lambda: set_rate(30 * rate),
        at["rate"] + 1: lambda: set_rate(rate),
        at["frozen"]: lambda: layers[-1].requires_grad_(False),
        at["detached"]: lambda: setattr(layers[-2], "detached", True),
        at["moment"]: lambda: optimizer.state[layers[1].up.weight]["exp_avg_sq"].zero_(),
        at["overflow"]: overflow,
    }


class Logger:
    def __init__(self) -> None:
        self.charts: set[str] = set()

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.charts |= set(metrics)


def train(
    model: Transformer, vocabulary: int, *, steps: int = 200, size: int = 4, length: int = 33, at: Mapping[str, int] | None = STEPS, seed: int = 0, every: int = 10, fused: bool = False, **options: Any
) -> tuple[pyparam.Monitor, list[float], Logger]:  # fmt: skip
    """A plain loop; gives the Monitor, the seconds of each step, and what was logged."""
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, fused=fused)
    generator = torch.Generator().manual_seed(seed)
    events = planted(model, optimizer, at) if at else {}
    logger = Logger()
    monitor = pyparam.Monitor(
        model,
        every=every,
        spectral=True,
        alarms=pyparam.DEFAULT_RULES,
        on_alarm=lambda alarm: None,
        on_record=lambda record: pyparam.log(record, logger, by="role"),
        **options,
    ).attach(optimizer)
    times = []
    for step in range(steps):
        begin = time.perf_counter()
        if step in events:
            events[step]()
        optimizer.zero_grad()
        model.loss(batch(vocabulary, size, length, generator)).backward()
        with contextlib.suppress(pyparam.NonFiniteError):  # told before the step: it is left out
            optimizer.step()
        times.append(time.perf_counter() - begin)
    return monitor, times, logger
