"""The five planted faults under Lightning and transformers' Trainer: each named with layer and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty_training import Transformer, batch, planted
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import pyparam

# What the libraries warn of is not ours to mend.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.unsanitized]

STEPS, VOCABULARY = 190, 64


class Sequences(Dataset):
    def __init__(self, size: int) -> None:
        self.rows = batch(VOCABULARY, size, 17, torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.rows[index]}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = Transformer(32, 4, VOCABULARY)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"loss": self.inner.loss(tokens)}


def options(found: list[pyparam.NonFinite]) -> dict[str, Any]:
    return {"every": 10, "spectral": True, "on_alarm": lambda alarm: None, "on_nonfinite": found.append}


def check(monitor: pyparam.Monitor, bad: list[pyparam.NonFinite], prefix: str) -> None:
    at = {(found.step, found.quantity): found for found in pyparam.departures(monitor.history)}
    frozen = tuple(name for name in monitor.history[0].weights.names if f"{prefix}layers.3." in name)
    cut = tuple(f"{prefix}layers.2.{name}" for name in ("norm2.weight", "norm2.bias", "up.weight", "up.bias"))
    moment = f"{prefix}layers.1.up.weight"
    assert at[80, "learning rate"].most == pytest.approx(30)
    assert len(frozen) == 12
    assert at[100, "update norm"].names == frozen
    assert at[120, "gradient norm"].names == at[120, "update norm"].names == cut
    assert at[150, "update norm"].names == (moment,)
    lost = next(alarm for alarm in monitor.alarms if alarm.rule == "second moment lost")
    assert (lost.step, lost.names) == (150, [moment])
    assert (bad[0].step, bad[0].quantity) == (180, "gradient")
    assert bad[0].names == [f"{prefix}layers.0.out.weight"]


def test_lightning(tmp_path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from pyparam.integrations.lightning import MonitorCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, rows: dict[str, Tensor], index: int) -> Tensor:
            return self.model(**rows)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.model.parameters(), 3e-4)

    class Plant(lightning.Callback):
        events: dict[int, Callable[[], None]] | None = None

        def on_train_batch_start(self, trainer, module, rows, index) -> None:
            if self.events is None:
                self.events = planted(module.model.inner, trainer.optimizers[0])
            self.events.get(index, lambda: None)()

    bad: list[pyparam.NonFinite] = []
    watch = MonitorCallback(**options(bad))
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, logger=False, callbacks=[watch, Plant()], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(Sequences(4 * STEPS), 4))
    check(watch.monitor, bad, "model.inner.")


def test_a_trainer(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    from pyparam.integrations.transformers import MonitorCallback

    class Plant(transformers.TrainerCallback):
        events: dict[int, Callable[[], None]] | None = None

        def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
            if self.events is None:
                own = getattr(optimizer, "optimizer", optimizer)
                self.events = planted(model.inner, own)
            self.events.get(state.global_step, lambda: None)()

    # With max_grad_norm=0 the Trainer asks for the norm with an infinite limit, and one infinite gradient makes
    # all of them NaN.
    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, max_steps=STEPS, learning_rate=3e-4, max_grad_norm=1e9,
        lr_scheduler_type="constant", logging_steps=50, save_strategy="no", use_cpu=True, disable_tqdm=True,
        report_to=[], remove_unused_columns=False, label_names=["tokens"],
    )  # fmt: skip
    trainer = transformers.Trainer(
        Model(), arguments, train_dataset=Sequences(4 * STEPS), callbacks=[Plant()]
    )
    bad: list[pyparam.NonFinite] = []
    watch = MonitorCallback(**options(bad)).add_to(trainer)
    trainer.train()
    check(watch.monitor, bad, "inner.")
