"""copy_ and EMA, against torch.optim.swa_utils."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pyparam


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    return net


def step(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
        net[1].num_batches_tracked += 1


def test_as_averaged_model():
    net = model()
    average = pyparam.EMA(net, 0.9)
    peer = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    peer.update_parameters(net)
    for _ in range(4):
        step(net)
        average.update()
        peer.update_parameters(net)
    theirs, ours = peer.module.state_dict(), average.state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, theirs[name])
    assert ours["1.num_batches_tracked"] == 4


def test_swap_and_back():
    net = model()
    average = pyparam.EMA(net, 0.5)
    step(net)
    values = copy.deepcopy(net.state_dict())
    averages = copy.deepcopy(average.state_dict())
    average.swap()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in averages.items())
    assert net[2].weight is net[0].weight
    average.swap()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in values.items())
    other = pyparam.EMA(model(), 0.5)
    other.load_state_dict(average.state_dict())
    assert all(torch.equal(other.state_dict()[name], value) for name, value in averages.items())


def test_changed_model_is_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    average = pyparam.EMA(net, 0.5)
    net.append(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"EMA\.update: the model's names changed: '1\.bias', '1\.weight'"):
        average.update()
    del net[1]
    net[0] = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"EMA\.swap: '0\.weight' has shape \[3, 2\], expected \[2, 2\]"):
        average.swap()


def test_copy():
    target, source = model(), model()
    step(source)
    pyparam.copy_(target, source)
    assert all(torch.equal(a, b) for a, b in zip(target.buffers(), source.buffers(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    other = model()
    expected = torch.lerp(target[0].weight, other[0].weight, 0.25)
    pyparam.copy_(target, other, lerp=0.25)
    assert torch.equal(target[0].weight, expected)


def test_copy_refuses():
    net = nn.Linear(2, 2)
    before = copy.deepcopy(net.state_dict())
    zeros = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    for given, error, words in [
        (nn.Linear(2, 2, bias=False), ValueError, "copy_: only one side has 'bias'"),
        (nn.Linear(2, 3), ValueError, r"copy_: 'weight' has shape \[2, 2\], and its source \[3, 2\]"),
        (zeros | {"bias": torch.zeros(2, device="meta")}, TypeError, "copy_: 'bias' or its source is no"),
    ]:
        with pytest.raises(error, match=words):
            pyparam.copy_(net, given)
    doubles = {name: value.double() for name, value in zeros.items()}
    with pytest.raises(ValueError, match=r"copy_: 'weight' is torch\.float32 on cpu, and its source"):
        pyparam.copy_(net, doubles, lerp=0.5)
    with pytest.raises(ValueError, match=r"copy_: lerp must be in \[0, 1\], got 2"):
        pyparam.copy_(net, zeros, lerp=2)
    with pytest.raises(TypeError, match="copy_: lerp must be a number, got str"):
        pyparam.copy_(net, zeros, lerp="1")
    whole = torch.zeros(4)
    shared = {"a": whole[:3], "b": whole[1:]}
    with pytest.raises(ValueError, match="copy_: 'a' and 'b' share memory, which lerp= would move twice"):
        pyparam.copy_(shared, {"a": torch.ones(3), "b": torch.ones(3)}, lerp=0.5)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(TypeError, match=r"EMA: expected an nn\.Module, got dict"):
        pyparam.EMA({}, 0.5)
    with pytest.raises(ValueError, match=r"EMA: decay must be in \[0, 1\], got 1\.5"):
        pyparam.EMA(net, 1.5)
