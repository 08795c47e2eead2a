"""The callbacks in the real loops: Lightning, transformers' Trainer, Accelerate, each a tiny run."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyparam

# What the libraries warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def data(count: int = 32) -> TensorDataset:
    torch.manual_seed(0)
    x = torch.randn(count, 8)
    return TensorDataset(x, x.sum(1, keepdim=True))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]

# --- Lightning ------------------------------------------------------------------------------------------------


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


def module_of(lightning, **options):
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.at = options.get("detach_at")
            self.automatic_optimization = not options.get("manual", False)

        def training_step(self, batch, index):
            x, y = batch
            loss = (self.net(x) - y).square().mean()
            if self.automatic_optimization:
                return loss
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
            return None

        def configure_optimizers(self):
            if self.automatic_optimization:
                return torch.optim.AdamW(self.net.parameters(), 1e-3)
            return [
                torch.optim.SGD(self.net[0].parameters(), 0.01),
                torch.optim.SGD(self.net[2].parameters(), 0.01),
            ]

    return Module()


def fit(lightning, tmp_path, module, callback, **options):
    from lightning.pytorch.loggers import CSVLogger

    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, logger=CSVLogger(tmp_path), callbacks=[callback], log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data(), 4))
    return trainer


def test_lightning(lightning, tmp_path) -> None:
    from pyparam.integrations.lightning import MonitorCallback

    callback = MonitorCallback(every=5)
    trainer = fit(lightning, tmp_path, module_of(lightning), callback, gradient_clip_val=0.5)
    monitor = callback.monitor
    assert [record.step for record in monitor.history] == [0, 5, 10, 15]
    assert monitor.history[0].weights.names == [f"net.{name}" for name in NAMES]
    assert all(record.gradients.total.l2 <= 0.5 * (1 + 1e-4) for record in monitor.history)  # after clipping
    assert (monitor.history[-1].update_ratios > 0).all()
    assert "not attached" in repr(monitor)
    logged = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "pyparam/updates/total" in logged.splitlines()[0]
    assert trainer.global_step == 16


def test_lightning_accumulates_and_has_several_optimizers(lightning, tmp_path) -> None:
    from pyparam.integrations.lightning import MonitorCallback

    callback = MonitorCallback(every=1)
    fit(lightning, tmp_path / "a", module_of(lightning), callback, accumulate_grad_batches=4)
    assert [record.step for record in callback.monitor.history] == [0, 1, 2, 3]
    callback = MonitorCallback(every=4)
    fit(lightning, tmp_path / "b", module_of(lightning, manual=True), callback)
    steps = {(record.optimizer, record.step) for record in callback.monitor.history}
    assert steps == {(o, s) for o in (0, 1) for s in (0, 4, 8, 12)}


def test_lightning_stops_at_a_nan_with_its_name(lightning, tmp_path) -> None:
    from pyparam.integrations.lightning import MonitorCallback

    module = module_of(lightning)
    original = module.training_step

    def poisoned(batch, batch_idx):
        if module.global_step == 6:
            module.net[2].bias.data[0] = float("nan")
        return original(batch, batch_idx)

    module.training_step = poisoned
    with pytest.raises(pyparam.NonFiniteError) as raised:
        fit(lightning, tmp_path, module, MonitorCallback(every=100, check="every"))
    assert raised.value.found.step == 6


# --- transformers ---------------------------------------------------------------------------------------------


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x, labels):
        out = self.net(x)
        return {"loss": (out - labels).square().mean(), "logits": out}


def trainer_of(tmp_path, **options):
    transformers = pytest.importorskip("transformers")

    class Rows(torch.utils.data.Dataset):
        rows = data()

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, i):
            x, y = self.rows[i]
            return {"x": x, "labels": y}

    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, num_train_epochs=2, logging_steps=5, save_strategy="no",
        use_cpu=True, disable_tqdm=True, **{"report_to": [], **options},
    )  # fmt: skip
    return transformers.Trainer(Regression(), arguments, train_dataset=Rows())


def test_a_trainer(tmp_path) -> None:
    pytest.importorskip("transformers")
    from pyparam.integrations.transformers import MonitorCallback

    trainer = trainer_of(tmp_path, report_to=["tensorboard"])
    watch = MonitorCallback(every=5).add_to(trainer)
    trainer.train()
    assert [record.step for record in watch.monitor.history] == [0, 5, 10, 15]
    assert watch.monitor.history[0].weights.names == [f"net.{name}" for name in NAMES]
    assert "not attached" in repr(watch.monitor)
    logged = [entry for entry in trainer.state.log_history if "pyparam/updates/total" in entry]
    assert len(logged) == 3
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = list(tmp_path.rglob("events.out.*"))
    assert files
    tags = EventAccumulator(str(files[0].parent)).Reload().Tags()["scalars"]
    assert any(tag.endswith("pyparam/updates/total") for tag in tags)


def test_a_trainer_that_accumulates(tmp_path) -> None:
    pytest.importorskip("transformers")
    from pyparam.integrations.transformers import MonitorCallback

    trainer = trainer_of(tmp_path, gradient_accumulation_steps=4)
    watch = MonitorCallback(every=1)
    trainer.add_callback(watch)
    trainer.train()
    assert [record.step for record in watch.monitor.history] == [0, 1, 2, 3]
    assert (
        any("pyparam/nonfinite" in entry for entry in trainer.state.log_history)
        or trainer.state.max_steps < 5
    )


# --- Accelerate -----------------------------------------------------------------------------------------------


def test_accelerate(tmp_path) -> None:
    accelerate = pytest.importorskip("accelerate")
    from pyparam.integrations.accelerate import monitor

    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=2, log_with="tensorboard", project_dir=tmp_path
    )
    accelerator.init_trackers("run")
    model = net()
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.01), DataLoader(data(), 4)
    )
    with monitor(accelerator, model, optimizer, every=2) as watch:
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward((model(x) - y).square().mean())
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    accelerator.end_training()
    assert [record.step for record in watch.history] == [0, 2]
    assert all(record.gradients.total.l2 <= 1 + 1e-4 for record in watch.history)
    assert list(tmp_path.rglob("events.out.*"))


def test_on_record_is_the_callback_s_own() -> None:
    pytest.importorskip("transformers")
    from pyparam.integrations.transformers import MonitorCallback

    with pytest.raises(
        TypeError, match="MonitorCallback: on_record is the callback's own; read callback.monitor"
    ):
        MonitorCallback(on_record=print)


def test_the_package_imports_no_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, pyparam, pyparam.integrations\n"
        "assert not {'lightning', 'pytorch_lightning', 'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subprocess.run([sys.executable, "-c", code], check=True)
