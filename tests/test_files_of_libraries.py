"""Checkpoints that training libraries write themselves: opened, shown, measured, compared."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import sys
import types
from enum import Enum

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyparam
from pyparam._sources.part import part_of


def shown(path):
    out = io.StringIO()
    pyparam.show(path, file=out)
    return out.getvalue().splitlines()


def normed():
    """193 values in 6 parameters, 33 in 3 buffers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1))


# --- transformers' Trainer --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainers_run(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("trainer")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    rows = [{"input_ids": torch.arange(4) + i, "labels": torch.arange(4) + i} for i in range(4)]
    settings = transformers.TrainingArguments(
        str(folder), max_steps=2, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    transformers.Trainer(model=model, args=settings, train_dataset=rows).train()
    return folder, model


def test_a_trainers_checkpoint(trainers_run):
    folder, model = trainers_run
    last = folder / "checkpoint-2"
    lines = shown(last)
    count = sum(p.numel() for p in model.parameters())
    assert any(line.startswith(f"{count:,} values in 21 parameters") for line in lines)
    assert any(line.startswith("progress: epoch 2.0, global_step 2, max_steps 2") for line in lines)
    (beside,) = (line for line in lines if line.startswith("beside it: "))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        assert f"{name} (" in beside
    assert "model.safetensors" not in beside
    assert pyparam.measure(last).total.numel == count
    assert pyparam.compare(last, model).equal
    assert pyparam.fingerprint(last) == pyparam.fingerprint(model)
    assert len(pyparam.compare(folder / "checkpoint-1", last).changed()) == 21
    with pytest.raises(
        ValueError, match=r"a transformers Trainer's run; open .*checkpoint-1 or .*checkpoint-2"
    ):
        pyparam.open(folder)


def test_what_lies_beside_a_trainers_model(trainers_run):
    last = trainers_run[0] / "checkpoint-2"
    assert shown(last / "optimizer.pt")[0].startswith("optimizer state (state): ")
    opened = pyparam.open(last / "rng_state.pth")
    assert list(opened) == ["cpu"]
    assert opened.extras["python"][0] == 3
    assert opened.extras["numpy"][1].shape == (624,)
    words = r"training_args\.bin holds a transformers\.training_args\.TrainingArguments; expected tensors"
    with pytest.raises(ValueError, match=words):
        pyparam.open(last / "training_args.bin")


# --- Lightning --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lightnings_checkpoint(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, rate, where):
            super().__init__()
            self.save_hyperparameters()
            self.net = normed()

        def training_step(self, batch, index):
            return self.net(batch[0]).sum()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), self.hparams.rate)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    module = Module(0.25, pathlib.PurePosixPath("/data"))
    trainer = lightning.Trainer(
        max_epochs=2,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(8, 8)), batch_size=4))
    path = next((tmp_path / "checkpoints").glob("*.ckpt"))
    lines = shown(path)
    assert lines[0].startswith(
        "model (state_dict): 193 values in 6 parameters and 33 in 3 buffers, 908 B; "
        "optimizer state (optimizer_states): 392 values in 18 tensors"
    )
    assert f"progress: epoch 1, global_step 4, pytorch-lightning_version {lightning.__version__}" in lines
    assert "settings: rate=0.25, where=/data" in lines
    assert pyparam.compare(part_of(path, "model"), module).equal
    with pytest.raises(ValueError, match=r"a Lightning run; open .*\.ckpt"):
        pyparam.open(tmp_path)


# --- Accelerate -------------------------------------------------------------------------------------------


def test_accelerates_state(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = normed()
    optimizer = torch.optim.AdamW(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    for name, safe in (("safe", True), ("pickled", False)):
        accelerator.save_state(str(tmp_path / name), safe_serialization=safe)
        lines = shown(tmp_path / name)
        assert "193 values in 6 parameters and 33 in 3 buffers, 908 B" in lines
        assert any(line.startswith("beside it: optimizer.bin (") for line in lines)
        assert pyparam.compare(tmp_path / name, model).equal
    assert pyparam.compare(tmp_path / "safe", tmp_path / "pickled").equal
    random = pyparam.open(tmp_path / "safe" / "random_states_0.pkl")
    assert list(random) == ["torch_manual_seed"]
    with pytest.raises(ValueError, match=r"a folder of Accelerate's states; open .*pickled or .*safe"):
        pyparam.open(tmp_path)


# --- DeepSpeed, as deepspeed/runtime/engine.py (_save_checkpoint, _save_zero_checkpoint) writes it ----------


@pytest.fixture
def deepspeeds(monkeypatch):
    """Classes whose objects DeepSpeed saves, importable while a test saves and not when it opens."""
    made = {}

    def define(module, name, *bases, **members):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            key = ".".join(parts[:end])
            if key not in sys.modules:
                made[key] = types.ModuleType(key)
                monkeypatch.setitem(sys.modules, key, made[key])
        kind = type(name, bases, members)
        kind.__module__, kind.__qualname__ = module, name
        setattr(sys.modules[module], name, kind)
        return kind

    scaler = define("deepspeed.runtime.fp16.loss_scaler", "LossScaler")()
    scaler.cur_scale, scaler.dynamic = 65536.0, False
    address = define("deepspeed.utils.tensor_fragment", "fragment_address")()
    address.numel, address.start = 4, 0
    stage = Enum("ZeroStageEnum", {"gradients": 2}, type=int, module="deepspeed.runtime.zero.config")
    define("deepspeed.runtime.zero.config", "x")
    sys.modules["deepspeed.runtime.zero.config"].ZeroStageEnum = stage
    return scaler, address, stage.gradients


def model_states(model, *, stage3=False):
    state = model.state_dict()
    parameters = {name: p.shape for name, p in model.named_parameters()}
    if stage3:
        state = {k: torch.empty(0) if k in parameters else v for k, v in state.items()}
    return {
        "module": state,
        "buffer_names": [name for name, _ in model.named_buffers()],
        "optimizer": None,
        "param_shapes": [collections.OrderedDict(parameters)],
        "frozen_param_shapes": {},
        "shared_params": {},
        "frozen_param_fragments": {},
        "lr_scheduler": {"last_batch_iteration": 3},
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 7,
        "global_samples": 56,
        "dp_world_size": 2,
        "mp_world_size": 1,
        "ds_config": {"train_batch_size": 8, "zero_optimization": {"stage": 2}},
        "ds_version": "0.19.8",
    }


def optim_states(count, deepspeeds):
    scaler, address, stage = deepspeeds
    flat = torch.arange(float(count))
    return {
        "optimizer_state_dict": {
            "loss_scaler": scaler,
            "dynamic_loss_scale": False,
            "overflow": False,
            "clip_grad": 1.0,
            "base_optimizer_state": {
                "state": {0: {"step": torch.tensor(7.0), "exp_avg": flat + 1, "exp_avg_sq": flat + 2}},
                "param_groups": [{"lr": 1e-3, "params": [0]}],
            },
            "single_partition_of_fp32_groups": [flat],
            "zero_stage": stage,
            "group_paddings": [0],
            "partition_count": [2],
            "ds_version": "0.19.8",
            "param_slice_mappings": [collections.OrderedDict({"0.weight": address})],
        },
        "ds_config": {"train_batch_size": 8},
        "ds_version": "0.19.8",
    }


def forget(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)


def test_deepspeeds_model_states(tmp_path):
    model = normed()
    path = tmp_path / "mp_rank_00_model_states.pt"
    torch.save(model_states(model), path)
    lines = shown(path)
    assert "193 values in 6 parameters and 33 in 3 buffers, 908 B" in lines
    assert "progress: global_steps 7, global_samples 56, ds_version 0.19.8" in lines
    assert "settings: train_batch_size=8" in lines
    assert pyparam.compare(part_of(path, "module"), model).equal


def test_deepspeeds_model_states_of_stage_3_tell_of_the_whole_model(tmp_path):
    path = tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    torch.save(model_states(normed(), stage3=True), path)
    assert shown(path)[0] == (
        "model (module): 0 values in 6 parameters and 33 in 3 buffers, 136 B; "
        "all ranks' files: 193 values in 6 parameters of the model"
    )


def test_deepspeeds_optimizer_states_need_nothing_of_deepspeed(tmp_path, monkeypatch, deepspeeds):
    paths = []
    for rank in range(2):
        paths.append(tmp_path / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        torch.save(optim_states(97, deepspeeds), paths[-1])
    torch.save(model_states(normed()), tmp_path / "mp_rank_00_model_states.pt")
    forget(monkeypatch)
    opened = pyparam.open(paths[0])
    assert "deepspeed" not in sys.modules
    assert opened["optimizer_state_dict.single_partition_of_fp32_groups.0"].tolist() == list(range(97))
    scaler = opened.extras["optimizer_state_dict.loss_scaler"]
    assert repr(scaler) == "<deepspeed.runtime.fp16.loss_scaler.LossScaler>"
    assert scaler.state == {"cur_scale": 65536.0, "dynamic": False}
    lines = shown(paths[0])
    assert lines[0].startswith("optimizer state (optimizer_state_dict): 292 values in 4 tensors")
    assert pyparam.compare(*paths).equal
    words = r"holds several checkpoints .*It is a DeepSpeed run.*; open .*mp_rank_00_model_states\.pt$"
    with pytest.raises(ValueError, match=words):
        pyparam.open(tmp_path)


# --- values beside tensors that need no code --------------------------------------------------------------


def beside_tensors():
    listed = collections.defaultdict(list)
    listed["x"].append(3)
    return {
        "args": argparse.Namespace(
            rate=0.5, out=pathlib.PurePosixPath("/a/b"), inner=argparse.Namespace(n=1)
        ),
        "best": numpy.float64(0.5),
        "flag": numpy.bool_(True),
        "text": numpy.str_("hé"),
        "array": numpy.arange(6, dtype=numpy.int32).reshape(2, 3).T,
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
        "took": datetime.timedelta(seconds=3),
        "listed": listed,
        "last": collections.deque([1, 2], maxlen=3),
        "kind": torch.optim.Adam,
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_that_need_no_code(tmp_path, protocol, zipped):
    saved = beside_tensors()
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save({"w": torch.ones(3), **saved}, tmp_path / "x.pt", **options)
    opened = pyparam.open(tmp_path / "x.pt")
    assert list(opened) == ["w"]
    extras = dict(opened.extras)
    assert extras.pop("args") == {"rate": 0.5, "out": saved["args"].out, "inner": {"n": 1}}
    assert numpy.array_equal(extras.pop("array"), saved["array"])
    assert str(extras.pop("kind")) == "torch.optim.adam.Adam"
    assert extras.pop("last") == [1, 2]
    assert extras == {key: saved[key] for key in extras}
    assert [type(extras[key]) for key in ("best", "text")] == [numpy.float64, numpy.str_]
    assert "settings: rate=0.5, out=/a/b" in shown(tmp_path / "x.pt")


def test_a_namespace_holds_tensors(tmp_path):
    torch.save({"args": argparse.Namespace(w=torch.ones(2), n=1)}, tmp_path / "x.pt")
    opened = pyparam.open(tmp_path / "x.pt")
    assert opened["args.w"].tolist() == [1, 1]
    assert opened.extras == {"args.n": 1}


class Own:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (numpy.array([Own()]), r"it refers to numpy\.dtype O8"),
        (numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), r"it refers to numpy\.dtype V12"),
        (numpy.ma.array([1]), r"it refers to numpy\.ma"),
        (collections.UserDict(a=1), r"it refers to [\w.]*UserDict"),
        (torch.nn.Parameter(torch.ones(1)).__reduce_ex__, r"it refers to (builtins|__builtin__)\.getattr"),
    ],
)
def test_values_that_need_code(tmp_path, value, message):
    torch.save({"w": torch.ones(1), "value": value}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        pyparam.open(tmp_path / "x.pt")


def test_a_tensor_of_a_class_of_its_own_is_no_plain_tensor(tmp_path):
    torch.save({"w": torch.ones(1).as_subclass(OwnTensor)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"it refers to [\w.]+\.OwnTensor"):
        pyparam.open(tmp_path / "x.pt")


class OwnTensor(torch.Tensor):
    pass
