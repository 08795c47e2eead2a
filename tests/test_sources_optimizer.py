"""Optimizers as sources: names through the model, by names that were saved, by order; in checkpoints too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyparam
from pyparam import optimizer_state


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def stepped(net: nn.Module, make=torch.optim.AdamW, **options) -> torch.optim.Optimizer:
    optimizer = make(net.parameters(), **options)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]


def moments(names: list[str]) -> list[str]:
    return [f"{name}.{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")]


def test_an_optimizer_by_itself() -> None:
    net = network()
    optimizer = stepped(net)
    assert pyparam.measure(optimizer).names == moments(list("012345"))
    named = torch.optim.AdamW(net.named_parameters())
    named.load_state_dict(optimizer.state_dict())
    assert pyparam.walk(optimizer).names == moments(list("012345"))
    stepped_named = torch.optim.SGD(net.named_parameters(), momentum=0.9)
    stepped_named.step()
    assert pyparam.walk(stepped_named).names == [f"{name}.momentum_buffer" for name in NAMES]
    assert len(pyparam.measure(torch.optim.Adam(net.parameters()))) == 0  # no step yet, no state


def test_names_by_identity_whatever_the_order() -> None:
    net = network()
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": others, "weight_decay": 0}, {"params": weights}])
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    table = optimizer_state(optimizer, net)
    assert table["2.weight.exp_avg"] is optimizer.state[net[2].weight]["exp_avg"]
    assert set(table.names) == set(moments(NAMES))

    class Wrapper:
        def __init__(self) -> None:
            self.optimizer = optimizer

    assert optimizer_state(Wrapper(), net).names == table.names


def test_verbs_take_it(tmp_path, capsys) -> None:
    net = network()
    before = optimizer_state(stepped(net), net)
    kept = {name: tensor.clone() for name, tensor in before}
    after = optimizer_state(stepped(net), net)
    assert "0.weight.exp_avg" in pyparam.compare(kept, after).changed()
    pyparam.show(stepped(net))
    assert "exp_avg_sq [8, 4]" in capsys.readouterr().out
    after["0.weight.exp_avg_sq"][0, 0] = float("nan")
    (found,) = pyparam.findings(after)
    assert found.names == ("0.weight.exp_avg_sq",)
    optimizer = stepped(net)
    optimizer.state[net[2].weight]["exp_avg_sq"].zero_()
    (found,) = pyparam.findings(optimizer)
    assert (found.kind, found.names) == ("second-moment", ("4.exp_avg_sq",))
    assert [f.names for f in pyparam.report(optimizer, tmp_path / "r.html").findings] == [("4.exp_avg_sq",)]


def test_other_optimizers() -> None:
    net = network()
    assert pyparam.walk(stepped(net, torch.optim.Adagrad)).names[:2] == ["0.step", "0.sum"]
    lbfgs = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure() -> torch.Tensor:
        lbfgs.zero_grad()
        loss = net(torch.ones(3, 4)).square().mean()
        loss.backward()
        return loss

    lbfgs.step(closure)
    assert "0.old_dirs.0" in pyparam.walk(lbfgs).names


# --- saved ----------------------------------------------------------------------------------------------------


def checkpoint(**more) -> tuple[nn.Sequential, dict]:
    net = network()
    return net, {"model": net.state_dict(), "optimizer": stepped(net).state_dict(), "epoch": 1, **more}


@pytest.mark.parametrize("saved", [True, False])
def test_the_weights_beside_give_the_names(tmp_path, saved) -> None:
    net, source = checkpoint()
    if saved:
        torch.save(source, tmp_path / "training.pt")
        source = tmp_path / "training.pt"
    assert optimizer_state(source).names == moments(NAMES)
    assert optimizer_state(source, net).names == moments(NAMES)


def test_the_names_that_were_saved_come_first(tmp_path) -> None:
    net = network()
    optimizer = torch.optim.SGD([(f"own.{n}", p) for n, p in net.named_parameters()], momentum=0.9)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.save(
        {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()]}, tmp_path / "a.ckpt"
    )
    assert optimizer_state(tmp_path / "a.ckpt").names == [f"own.{name}.momentum_buffer" for name in NAMES]
    assert optimizer_state(optimizer.state_dict()).names == [f"own.{name}.momentum_buffer" for name in NAMES]


def test_findings_name_the_parameter(tmp_path) -> None:
    _, source = checkpoint()
    source["optimizer"]["state"][4]["exp_avg_sq"].zero_()
    torch.save(source, tmp_path / "training.pt")
    for what in (source, tmp_path / "training.pt"):
        (found,) = [found for found in pyparam.findings(what) if found.kind == "second-moment"]
        assert found.names == ("optimizer.state.4.exp_avg_sq",)
        assert found.details[found.names[0]].endswith("(of 2.weight)")


def test_an_order_that_is_not_the_model_s() -> None:
    net, source = checkpoint()
    other = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(
        ValueError,
        match=r"'exp_avg' of parameter 0 is \[8, 4\] and '0.weight' is \[4, 8\]: the optimizer's order is not",
    ):
        optimizer_state(source, other)
    with pytest.raises(ValueError, match="the optimizer has 6 parameters and the model 2"):
        optimizer_state(source["optimizer"], nn.Linear(8, 4))
    grouped = torch.optim.SGD(
        [{"params": net[0].parameters()}, {"params": net[2].parameters()}], momentum=0.9
    )
    grouped.step()
    with pytest.raises(ValueError, match="the optimizer has 2 groups and saved no param_names, so its order"):
        optimizer_state(grouped.state_dict(), net)
    assert optimizer_state(grouped.state_dict()).names[0] == "0.momentum_buffer"


def test_what_is_no_optimizer() -> None:
    with pytest.raises(
        TypeError, match=r"expected an optimizer, its state_dict\(\) or a checkpoint .* got a dict"
    ):
        optimizer_state({"a": torch.ones(1)})
    _, source = checkpoint()
    with pytest.raises(ValueError, match="the checkpoint holds 2 optimizers \\('optimizer', 'other'\\)"):
        optimizer_state({**source, "other": source["optimizer"]})
