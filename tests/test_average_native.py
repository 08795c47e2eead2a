"""Averages are moved natively: every dtype as torch.lerp moves it, and nothing where one is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import pyparam

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
]


class Holder(nn.Module):
    """Buffers under their names."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def within_rounding(ours: Tensor, theirs: Tensor) -> bool:
    """To the last place: PyTorch rounds once or twice, depending on where in its vectors an element is."""
    eps = torch.finfo(ours.dtype).eps
    return torch.allclose(ours, theirs, rtol=2 * eps, atol=4 * eps, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [0.0, 0.1, 0.5, 0.75, 0.999, 1.0])
def test_an_update_is_lerp(dtype: torch.dtype, decay: float) -> None:
    shapes = {"a": (0,), "b": (), "c": (37,), "d": (0, 4), "e": (300, 700), "f": (5, 3)}
    generator = torch.Generator().manual_seed(3)
    first = {n: torch.randn(s, dtype=dtype, generator=generator) for n, s in shapes.items()}
    then = {n: torch.randn(s, dtype=dtype, generator=generator) for n, s in shapes.items()}
    then["f"] = then["f"].t().contiguous().t()
    first["f"] = first["f"].t().contiguous().t()
    then["c"][5], first["c"][6], then["c"][7] = math.inf, math.nan, 1e-40
    net = Holder(**first)
    average = pyparam.EMA(net, decay)
    for name, value in then.items():
        setattr(net, name, value)
    average.update()
    for name, value in average.state_dict().items():
        expected = torch.lerp(first[name], then[name], 1 - decay)
        if decay in (0.0, 1.0):
            finite = then[name].isfinite() & first[name].isfinite()
            assert torch.equal(value[finite], (first if decay == 1.0 else then)[name][finite])
        if dtype.is_complex:  # where PyTorch multiplies infinity by a complex weight, which makes it NaN
            value, expected = (t[then[name].isfinite() & first[name].isfinite()] for t in (value, expected))
        assert within_rounding(value, expected), name


def test_versions_and_integers() -> None:
    net = Holder(w=torch.zeros(3), n=torch.tensor(3), flag=torch.tensor([True, False]))
    average = pyparam.EMA(net, 0.5)
    before = {name: value._version for name, value in average.state_dict().items()}
    net.w, net.n, net.flag = torch.ones(3), torch.tensor(9), torch.tensor([False, True])
    average.update()
    state = average.state_dict()
    assert (state["w"].tolist(), state["n"].item(), state["flag"].tolist()) == ([0.5] * 3, 9, [False, True])
    assert all(value._version > before[name] for name, value in state.items())


def test_a_refusal_writes_nothing() -> None:
    net = Holder(a=torch.ones(2), b=torch.ones(2))
    average = pyparam.EMA(net, 0.5)
    net.a, net.b = torch.zeros(2), torch.zeros(2, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"EMA\.update: 'b' is torch\.float32 on cpu, and its source torch\.float64 on cpu"
    ):
        average.update()
    assert average.state_dict()["a"].tolist() == [1, 1]
    eight = Holder(a=torch.ones(2), b=torch.ones(2).to(torch.float8_e5m2))
    average = pyparam.EMA(eight, 0.5)
    eight.a = torch.zeros(2)
    words = r"EMA\.update: 'b' is torch\.float8_e5m2, in which PyTorch does not interpolate"
    with pytest.raises(TypeError, match=words):
        average.update()
    assert average.state_dict()["a"].tolist() == [1, 1]


def test_a_model_with_code_of_its_own_moves_alike() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with_hook = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with_hook.load_state_dict(net.state_dict())
    with_hook.register_load_state_dict_post_hook(lambda *_: None)
    averages = [pyparam.EMA(model, 0.9) for model in (net, with_hook)]
    for model, average in zip((net, with_hook), averages, strict=True):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        average.update()
    ours, theirs = (average.state_dict() for average in averages)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_averages_beside_each_other_in_one_storage() -> None:
    whole = torch.arange(8.0)
    targets = {"a": whole[:3], "b": whole[3:]}
    pyparam.copy_(targets, {"a": torch.zeros(3), "b": torch.zeros(5)}, lerp=0.5)
    assert torch.equal(whole, torch.arange(8.0) / 2)
