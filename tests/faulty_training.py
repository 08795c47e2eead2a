"""A transformer's training with five faults planted at known steps, of any size; run as a program, at 100 M.

The faults are those that people look for: a learning rate that leaps for one step, a layer frozen by
mistake, a gradient cut off by ``detach``, a gradient that overflows float16, and an Adam second moment that
is lost.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import time
from collections.abc import Callable
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


def planted(model: Transformer, optimizer: torch.optim.Optimizer) -> dict[int, Callable[[], None]]:
    """What goes wrong before which step, by the step's number."""
    layers = model.layers
    rate = optimizer.param_groups[0]["lr"]

    def set_rate(value: float) -> None:
        optimizer.param_groups[0]["lr"] = value

    def freeze(module: nn.Module) -> None:
        module.requires_grad_(False)

    def overflow() -> None:
        def hook(gradient: Tensor) -> Tensor:
            handle.remove()
            scaled = gradient / gradient.abs().max() * 2.0**17  # a loss scale that is too large
            return scaled.half().to(gradient.dtype)

        handle = layers[0].out.weight.register_hook(hook)

    def lose_moment() -> None:
        optimizer.state[layers[1].up.weight]["exp_avg_sq"].zero_()

    return {
        80: lambda: set_rate(30 * rate),
        81: lambda: set_rate(rate),
        100: lambda: freeze(layers[-1]),
        120: lambda: setattr(layers[-2], "detached", True),
        150: lose_moment,
        180: overflow,
    }


EXPECTED = {
    "a learning rate that leaps": 80,
    "a layer frozen by mistake": 100,
    "a gradient cut off by detach": 120,
    "a second moment that is lost": 150,
    "a gradient that overflows": 180,
}


class Logger:
    def __init__(self) -> None:
        self.charts: set[str] = set()

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.charts |= set(metrics)


def train(
    model: Transformer, vocabulary: int, *, steps: int = 200, size: int = 4, length: int = 33, faults: bool = True, seed: int = 0, every: int = 10, **options: Any
) -> tuple[pyparam.Monitor, list[float], Logger]:  # fmt: skip
    """A plain loop; gives the Monitor, the seconds of each step, and what was logged."""
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    generator = torch.Generator().manual_seed(seed)
    events = planted(model, optimizer) if faults else {}
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


def main() -> None:
    """100 million parameters, 200 steps on the CPU; what was found, and what watching cost."""
    torch.manual_seed(0)
    vocabulary = 8192
    model = Transformer(width=768, layers=12, vocabulary=vocabulary, heads=12)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    monitor, times, logger = train(model, vocabulary, size=1, length=17)
    with open(sys.argv[1] if len(sys.argv) > 1 else "history.pickle", "wb") as file:
        pickle.dump((monitor.history, monitor.alarms, monitor.first_nonfinite, times, monitor.seconds), file)
    for alarm in monitor.alarms:
        print(alarm)
    print(monitor.first_nonfinite)
    unwatched = sum(times) - monitor.seconds
    print(
        f"{sum(times):.1f} s, of which measuring {monitor.seconds:.1f} s: {monitor.seconds / unwatched:.2%} of the rest"
    )
    print(f"{len(logger.charts)} charts")


if __name__ == "__main__":
    main()
