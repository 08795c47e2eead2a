"""The training with planted faults in a plain loop, under Lightning and under transformers' Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from faulty_training import Transformer, batch, planted, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import pyparam


class Run(NamedTuple):
    monitor: pyparam.Monitor
    nonfinite: list[pyparam.NonFinite]
    prefix: str
    """Of the transformer's names in what was watched."""


class Shape(NamedTuple):
    """Of one training."""

    vocabulary: int = 64
    batch: int = 4
    length: int = 17
    steps: int = 190
    fused: bool = False


class Sequences(Dataset):
    def __init__(self, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows = batch(shape.vocabulary, shape.batch * shape.steps, shape.length, generator)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.rows[index]}


class Model(nn.Module):
    """As the Trainer wants it."""

    def __init__(self, inner: Transformer) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"loss": self.inner.loss(tokens)}


def _options(found: list[pyparam.NonFinite], options: dict[str, Any]) -> dict[str, Any]:
    told = {"every": 10, "spectral": True, "on_alarm": lambda alarm: None, "on_nonfinite": found.append}
    return {**told, **options}


def plain(inner: Transformer, at: Mapping[str, int], shape: Shape, folder: Path, **options: Any) -> Run:
    found: list[pyparam.NonFinite] = []
    monitor, _, _ = train(
        inner, shape.vocabulary, steps=shape.steps, size=shape.batch, length=shape.length, at=at,
        fused=shape.fused, on_nonfinite=found.append, **options,
    )  # fmt: skip
    return Run(monitor, found, "")


def lightning(inner: Transformer, at: Mapping[str, int], shape: Shape, folder: Path, **options: Any) -> Run:
    import lightning.pytorch as pl

    from pyparam.integrations.lightning import MonitorCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(inner)

        def training_step(self, rows: dict[str, Tensor], index: int) -> Tensor:
            return self.model(**rows)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.model.parameters(), 3e-4, fused=shape.fused)

    class Plant(pl.Callback):
        events: dict[int, Callable[[], None]] | None = None

        def on_train_batch_start(self, trainer: Any, module: Any, rows: Any, index: int) -> None:
            if self.events is None:
                self.events = planted(inner, trainer.optimizers[0], at)
            self.events.get(index, lambda: None)()

    found: list[pyparam.NonFinite] = []
    watch = MonitorCallback(**_options(found, options))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, logger=False, callbacks=[watch, Plant()], default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(Sequences(shape), shape.batch))
    assert watch.monitor is not None
    return Run(watch.monitor, found, "model.inner.")


def trainer(inner: Transformer, at: Mapping[str, int], shape: Shape, folder: Path, **options: Any) -> Run:
    import transformers

    from pyparam.integrations.transformers import MonitorCallback

    class Plant(transformers.TrainerCallback):
        events: dict[int, Callable[[], None]] | None = None

        def on_step_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
        ) -> None:
            if self.events is None:
                self.events = planted(inner, getattr(optimizer, "optimizer", optimizer), at)
            self.events.get(state.global_step, lambda: None)()

    # With max_grad_norm=0 the Trainer asks for the norm with an infinite limit, and one infinite gradient makes
    # all of them NaN.
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=shape.batch, max_steps=shape.steps, learning_rate=3e-4,
        max_grad_norm=1e9, lr_scheduler_type="constant", logging_steps=50, save_strategy="no", use_cpu=True,
        disable_tqdm=True, report_to=[], remove_unused_columns=False, label_names=["tokens"],
        optim="adamw_torch_fused" if shape.fused else "adamw_torch",
    )  # fmt: skip
    found: list[pyparam.NonFinite] = []
    made = transformers.Trainer(Model(inner), arguments, train_dataset=Sequences(shape), callbacks=[Plant()])
    watch = MonitorCallback(**_options(found, options)).add_to(made)
    made.train()
    assert watch.monitor is not None
    return Run(watch.monitor, found, "inner.")


LOOPS = {"plain": plain, "lightning": lightning, "trainer": trainer}

Named = dict[str, tuple[int, tuple[str, ...]]]


def named(run: Run) -> Named:
    """Of each fault the step and the parameters that it was named with, as the transformer has them."""
    departures = pyparam.departures(run.monitor.history)

    def left(quantity: str, stopped: bool) -> list[pyparam.Departure]:
        return [d for d in departures if d.quantity == quantity and (d.most == 0) == stopped]

    def own(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
        return tuple(name.removeprefix(run.prefix) for name in names)

    rate = left("learning rate", False)[0]
    stopped = [(d.step, own(d.names)) for d in left("update norm", True)]
    lost = next(alarm for alarm in run.monitor.alarms if alarm.rule == "second moment lost")
    bad = run.nonfinite[0]
    return {
        "rate": (rate.step, own(rate.names)),
        "frozen": stopped[0],
        "detached": stopped[1],
        "moment": (lost.step, own(lost.names)),
        "overflow": (bad.step, own(bad.names)),
    }


def expected(inner: Transformer, at: Mapping[str, int]) -> Named:
    names = [name for name, _ in inner.named_parameters()]
    last = len(inner.layers) - 1
    cut = ("norm2.weight", "norm2.bias", "up.weight", "up.bias")
    return {
        "rate": (at["rate"], ("group 0",)),
        "frozen": (at["frozen"], tuple(name for name in names if name.startswith(f"layers.{last}."))),
        "detached": (at["detached"], tuple(f"layers.{last - 1}.{name}" for name in cut)),
        "moment": (at["moment"], ("layers.1.up.weight",)),
        "overflow": (at["overflow"], ("layers.0.out.weight",)),
    }
