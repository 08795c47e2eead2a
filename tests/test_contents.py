"""What a training checkpoint is made of, and what is told of its file."""

import io

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app
from pyparam._findings.survey import survey
from pyparam._sources.contents import kinds_of, sections_of
from pyparam._sources.part import part_of
from pyparam._view.text import summarize

VALUES = 82_689


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    net(torch.randn(8, 64)).sum().backward()
    optimizer.step()
    assert sum(p.numel() for p in net.parameters()) == VALUES
    return net, optimizer


def plain(net, optimizer):
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


def lightning(net, optimizer):
    return {
        "epoch": 3,
        "global_step": 7,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"net.{k}": v for k, v in net.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-3, "layers": [1, 2]},
    }


def deepspeed(net, optimizer):
    return {
        "module": net.state_dict(),
        "buffer_names": [],
        "optimizer": {
            "single_partition_of_fp32_groups": [torch.zeros(VALUES)],
            "base_optimizer_state": [{"exp_avg": torch.zeros(VALUES), "exp_avg_sq": torch.zeros(VALUES)}],
        },
        "param_shapes": [{"0.weight": torch.Size([256, 64])}],
        "ds_version": "0.15.0",
        "global_steps": 7,
    }


def averaged(net, optimizer):
    ema = {k: v + 1 for k, v in net.state_dict().items()}
    return {"model": net.state_dict(), "ema": ema, "optimizer": optimizer.state_dict(), "step": 5}


def nested_average(net, optimizer):
    ema = {f"model_ema.{k.replace('.', '')}": v + 1 for k, v in net.state_dict().items()}
    model = {f"model.{k}": v for k, v in net.state_dict().items()}
    return {"state_dict": model | ema, "epoch": 1, "optimizer_states": [optimizer.state_dict()]}


def lightning_ema(net, optimizer):
    """As callbacks that keep an average in their own state."""
    made = lightning(net, optimizer)
    ema = {name: value + 1 for name, value in made["state_dict"].items()}
    made["callbacks"]["EMACallback{'decay': 0.99}"] = {"ema_state_dict": ema, "steps": torch.tensor(3)}
    return made


def numbered_ema(net, optimizer):
    """As NeMo's first EMA, by position."""
    made = lightning(net, optimizer)
    made["callbacks"] = {"EMA": {"cur_step": 3, "ema_weights": [p + 1 for p in net.parameters()]}}
    return made


def weight_averaging(net, optimizer):
    """As Lightning's WeightAveraging."""
    made = lightning(net, optimizer)
    made["current_model_state"] = made["state_dict"]
    made["state_dict"] = {name: value + 1 for name, value in made["state_dict"].items()}
    return made | {"averaging_state": {"n_averaged": torch.tensor(3)}}


def timm(net, optimizer):
    ema = {name: value + 1 for name, value in net.state_dict().items()}
    return {
        "epoch": 3,
        "arch": "mlp",
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state_dict_ema": ema,
    }


def averaged_model(net, optimizer):
    average = torch.optim.swa_utils.AveragedModel(net).state_dict()
    return {"model": net.state_dict(), "avg_model": average, "optimizer": optimizer.state_dict()}


def shadow_params(net, optimizer):
    """As EMAModel of diffusers and ExponentialMovingAverage of torch_ema save it."""
    shadow = {"decay": 0.99, "shadow_params": [p.detach() + 1 for p in net.parameters()]}
    return {"model": net.state_dict(), "ema": shadow, "optimizer": optimizer.state_dict()}


WITH_AVERAGE = [
    averaged,
    nested_average,
    lightning_ema,
    numbered_ema,
    weight_averaging,
    timm,
    averaged_model,
    shadow_params,
]
LAYOUTS = [plain, lightning, deepspeed, *WITH_AVERAGE]


def shown(source, **options):
    out = io.StringIO()
    pyparam.show(source, file=out, **options)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_is_counted_as_such(trained, tmp_path, layout):
    path = tmp_path / "train.pt"
    torch.save(layout(*trained), path)
    lines = shown(path, depth=1)
    assert lines[0].startswith("model")
    assert f": {VALUES:,} values in 6 parameters, 323 KiB" in lines[0]
    model = summarize(path).to_dict()["parts"][0]
    assert (model["kind"], model["values"], model["tensors"], model["bytes"]) == (
        "model",
        VALUES,
        6,
        VALUES * 4,
    )
    alone = part_of(path, "model")
    assert sum(t.numel() for t in alone.values()) == VALUES
    assert pyparam.measure(alone).total.numel == VALUES


def test_what_is_told_of_lightnings(trained, tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save(lightning(*trained), path)
    lines = shown(path, depth=0)
    assert lines[0] == (
        "model (state_dict): 82,689 values in 6 parameters, 323 KiB; "
        "optimizer state (optimizer_states): 165,384 values in 18 tensors, 646 KiB; "
        "other (callbacks): 1 value in 1 tensor, 4 B"
    )
    assert any(line.startswith("file: PyTorch (zip archive), 1 file, 97") for line in lines)
    assert "progress: epoch 3, global_step 7, pytorch-lightning_version 2.4.0" in lines
    assert "settings: lr=0.001" in lines
    assert next(iter(part_of(path, "model"))) == "net.0.weight"
    assert next(iter(part_of(path, "state_dict.net"))) == "0.weight"
    assert dict(part_of(path, "callbacks.ModelCheckpoint"))["best_model_score"] == 1


def test_averages_are_told_from_the_model(trained, tmp_path):
    for layout, prefix, first in ((averaged, "ema.", "0.weight"), (nested_average, "", None)):
        path = tmp_path / f"{layout.__name__}.pt"
        torch.save(layout(*trained), path)
        kinds = {section.kind: section for section in sections_of(list(pyparam.open(path)), saved=True)}
        assert [len(kinds[k].rows) for k in ("model", "average", "optimizer")] == [6, 6, 18]
        assert first is None or (kinds["average"].prefix, next(iter(part_of(path, "average")))) == (
            prefix,
            first,
        )


@pytest.mark.parametrize("layout", WITH_AVERAGE)
def test_an_average_is_counted_as_such(trained, tmp_path, layout):
    torch.save(layout(*trained), tmp_path / "train.pt")
    parts = {part["kind"]: part for part in summarize(tmp_path / "train.pt").to_dict()["parts"]}
    assert (parts["average"]["values"], parts["average"]["tensors"]) == (VALUES, 6)
    assert parts.get("other", {"values": 0})["values"] <= 2
    average = part_of(tmp_path / "train.pt", "average")
    net, _ = trained
    first = next(t for t in average.values() if t.shape == net[0].weight.shape)
    assert torch.equal(first, net[0].weight + (layout is not averaged_model))


def test_what_a_callback_holds_besides_an_average_is_other():
    model = [f"state_dict.{i}.{word}" for i in range(3) for word in ("weight", "bias")]
    held = ["callbacks.EMA.queue", "callbacks.EMA.other.weight", "callbacks.Swap.state.0.weight"]
    many = [f"callbacks.EMA.ema_weights.{i}" for i in range(9)]
    scores = [f"callbacks.EMA.scores.{i}" for i in range(3)]
    assert kinds_of([*model, *held, *many, *scores], saved=True) == ["model"] * 6 + ["other"] * 15


def test_a_module_called_ema_is_no_average():
    names = ["ema.weight", "ema.bias", "encoder.0.q", "encoder.0.k"]
    assert kinds_of(names, saved=True) == ["model"] * 4
    assert kinds_of(["ema.weight", "model.weight", "model.bias"], saved=False) == ["model"] * 3
    assert kinds_of(["ema.weight"], saved=True) == ["model"]
    assert kinds_of(["ema.0", "encoder.0.q", "encoder.0.k"], saved=True) == ["model"] * 3


def test_a_plain_state_dict_has_one_part(trained, tmp_path):
    net, _ = trained
    save_file(
        {f"model.{k}": v for k, v in net.state_dict().items()}, tmp_path / "m.safetensors", {"format": "pt"}
    )
    lines = shown(tmp_path / "m.safetensors", depth=0)
    assert "82,689 values in 6 parameters, 323 KiB" in lines
    assert "metadata: format pt" in lines
    assert summarize(tmp_path / "m.safetensors").to_dict()["parts"] == []


def test_values_of_each_dtype(tmp_path):
    tied = torch.ones(4)
    half = torch.ones(3, 5).half()
    state = {"a": tied, "b": tied, "c": half, "d": torch.ones(2), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "m.pt")
    assert "dtypes: 15 float16 in 1, 6 float32 in 3, 1 int64 in 1" in shown(tmp_path / "m.pt")
    torch.save({"a": tied, "d": torch.ones(2)}, tmp_path / "one.pt")
    assert not any(line.startswith("dtypes") for line in shown(tmp_path / "one.pt"))


def test_a_file_larger_than_what_it_lists(tmp_path):
    torch.save({"head": torch.zeros(1 << 20)[:10]}, tmp_path / "view.pt")
    assert any(
        line.startswith("not listed: 4.00 MiB of the 4.00 MiB are none")
        for line in shown(tmp_path / "view.pt")
    )
    torch.save({"head": torch.zeros(1 << 20)}, tmp_path / "whole.pt")
    assert not any(line.startswith("not listed") for line in shown(tmp_path / "whole.pt"))


def test_an_unknown_part(trained, tmp_path):
    torch.save(plain(*trained), tmp_path / "a.pt")
    words = r"there is no part 'ema'; there is: model \(model.\), optimizer \(optimizer.\)"
    with pytest.raises(ValueError, match=words):
        part_of(tmp_path / "a.pt", "ema")


@pytest.mark.parametrize("kind", [torch.optim.Adafactor, torch.optim.LBFGS])
def test_an_optimizer_is_known_by_its_layout_whatever_its_words(kind, tmp_path):
    model = nn.Linear(3, 2)
    optimizer = kind(model.parameters())

    def loss():
        optimizer.zero_grad()
        lost = model(torch.ones(4, 3)).square().mean()
        lost.backward()
        return lost

    optimizer.step(loss)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    assert shown(tmp_path / "optimizer.pt")[0].startswith("optimizer state (state): ")
    names = list(part_of(tmp_path / "optimizer.pt", "optimizer"))
    assert names
    assert all(name.startswith(("0.", "1.")) for name in names)
    with pytest.raises(ValueError, match=r"there is no part 'model'; there is: optimizer \(state\.\)$"):
        part_of(tmp_path / "optimizer.pt", "model")
    assert survey(pyparam.open(tmp_path / "optimizer.pt")).of_part("optimizer").all()
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(ValueError, match="there is no part 'model', and no tensor at all"):
        part_of(tmp_path / "none.pt", "model")


def test_part_on_the_command_line(trained, tmp_path):
    torch.save(plain(*trained), tmp_path / "a.pt")
    done = CliRunner().invoke(app, ["show", str(tmp_path / "a.pt"), "--part", "model"])
    assert done.exit_code == 0
    assert "82,689 values in 6 parameters, 323 KiB" in done.output
    done = CliRunner().invoke(app, ["show", str(tmp_path / "a.pt"), "--part", "nothing"])
    assert done.exit_code == 2
    assert "there is no part 'nothing'" in done.output
