"""load_ into models whose modules load by code of their own: PyTorch's, or somebody's."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.ao.quantization import PerChannelMinMaxObserver
from torch.nn.utils import parametrizations, spectral_norm

import pyparam
import pyparam._load.before as before_module
from pyparam._base.native import _C


def normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.InstanceNorm2d(3), nn.Linear(3, 2))


def weight_normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))


def spectral_normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2))


class Pair(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


def observed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    observer = PerChannelMinMaxObserver()
    observer(torch.randn(4, 2))
    return Pair(nn.Linear(3, 4), observer)


def hooked(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = Pair(nn.Linear(3, 4), nn.Linear(4, 2))
    net.register_load_state_dict_pre_hook(lambda *_: None)
    return net


def childs_hooked(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = Pair(nn.Linear(3, 4), nn.Linear(4, 2))
    net.parts[1].register_load_state_dict_post_hook(lambda *_: None)
    return net


class Own(nn.Linear):
    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)


def overridden(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Pair(Own(3, 4), nn.Linear(4, 2))


MODELS = [normed, weight_normed, spectral_normed, observed, hooked, childs_hooked, overridden]
each_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def held(net: nn.Module) -> list[Any]:
    """Objects and values."""
    return [(name, id(t), t.dtype, t.tolist()) for name, t in net.state_dict(keep_vars=True).items()]


def refused(net: nn.Module, values: Any, words: str, **options: Any) -> None:
    before = held(net)
    with pytest.raises(ValueError, match=re.escape(words)):
        pyparam.load_(net, values, **options)
    assert held(net) == before


def refused_with_every_source(net: nn.Module, values: dict[str, Any], words: str, tmp_path: Any) -> None:
    for as_it_is in (values, dict(values)):
        refused(net, as_it_is, words)
    safetensors.torch.save_file(dict(values), tmp_path / "m.safetensors")
    refused(net, tmp_path / "m.safetensors", words.replace("the source", "the source"))


@each_model
def test_values_are_not_rounded_unless_asked(make: Callable[..., nn.Module], tmp_path: Any) -> None:
    names = [name for name, t in make().state_dict().items() if t.is_floating_point() and t.numel()]
    for name in names:
        if name.endswith(".eps"):
            continue  # which PyTorch's observer replaces where no version is told
        values = make(1).state_dict()
        values[name] = values[name].double() + 1e-12
        words = f"load_: {name!r} is torch.float64 in the source and torch.float32 in the model, which would"
        refused_with_every_source(make(), values, f"{words} lose values; use cast=True", tmp_path)
        net = make()
        pyparam.load_(net, values, cast=True)
        assert torch.equal(net.state_dict()[name], values[name].float())


@each_model
def test_names_and_shapes(make: Callable[..., nn.Module]) -> None:
    for name in make().state_dict():
        values = make(1).state_dict()
        del values[name]
        if name.endswith(".eps"):
            continue  # which PyTorch's observer does not miss
        refused(make(), values, f"load_: the source lacks {name!r}")
        assert pyparam.load_(make(), values, strict=False).missing_keys == [name]
    values = make(1).state_dict()
    values["more"] = torch.ones(1)
    refused(make(), values, "load_: the model lacks 'more'")
    assert pyparam.load_(make(), values, strict=False) == ([], ["more"])
    for name, value in make().state_dict().items():
        if make is observed and name.startswith("parts.1."):
            continue  # takes the shapes that come
        values = make(1).state_dict()
        values[name] = torch.zeros(7, *value.shape, dtype=value.dtype)
        with pytest.raises(ValueError, match=rf"load_: (.|\n)*{re.escape(name)}"):
            pyparam.load_(make(), values)


@each_model
def test_loads_what_pytorch_loads(make: Callable[..., nn.Module], tmp_path: Any) -> None:
    values = make(1).state_dict()
    theirs = make()
    theirs.load_state_dict(values)
    safetensors.torch.save_file(dict(values), tmp_path / "m.safetensors")
    for source in (values, dict(values), tmp_path / "m.safetensors"):
        for assign in (False, True):
            net = make()
            assert pyparam.load_(net, source, assign=assign) == ([], [])
            ours = net.state_dict()
            assert list(ours) == list(theirs.state_dict())
            assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())


@each_model
def test_memory_that_is_gone(make: Callable[..., nn.Module]) -> None:
    values = make(1).state_dict()
    name = next(iter(values))
    values[name].untyped_storage().resize_(0)
    before = held(net := make())
    with pytest.raises(ValueError, match=re.escape(f"load_: the value of {name!r}")):
        pyparam.load_(net, values)
    assert held(net) == before


def counted_clones(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of elements that are held to be put back."""
    counts: list[int] = []
    kept = before_module.kept

    def counting(tensor: Tensor) -> Tensor:
        counts.append(tensor.numel())
        return kept(tensor)

    monkeypatch.setattr(before_module, "kept", counting)
    return counts


@pytest.mark.parametrize(
    ("make", "elements"),
    [(normed, 0), (weight_normed, 4 + 4 + 16), (observed, 4 + 4 + 1), (hooked, 26), (childs_hooked, 26)],
)
def test_what_is_held_to_be_put_back(
    make: Callable[..., nn.Module], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted_clones(monkeypatch)
    values = make(1).state_dict()
    pyparam.load_(make(), values)
    assert sum(counts) == elements


def test_a_failure_in_code_of_a_module_leaves_plain_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    net = weight_normed()
    values = weight_normed(1).state_dict()
    values["1.parametrizations.weight.original1"] = torch.zeros(5, 5)
    refused(net, values, "size mismatch for 1.parametrizations.weight.original1")


def test_old_names_that_pytorchs_hooks_know() -> None:
    values = weight_normed(1).state_dict()
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        values[f"1.{old}"] = values.pop(f"1.parametrizations.weight.{new}")
    net = weight_normed()
    assert pyparam.load_(net, values) == ([], [])
    assert torch.equal(net[1].parametrizations.weight.original1, values["1.weight_v"])
    values["1.weight_v"] = values["1.weight_v"].double()
    words = "load_: '1.parametrizations.weight.original1' is torch.float64 in the source and torch.float32"
    refused(net, values, words)
    pyparam.load_(net, values, cast=True)


def test_an_observer_takes_other_shapes_and_gives_them_back() -> None:
    net = observed()
    values = observed(1).state_dict()
    values["parts.1.min_val"] = torch.tensor([1.0, 2.0])
    before = held(net)
    del values["parts.1.max_val"]
    with pytest.raises(ValueError, match=r"load_: the source lacks 'parts\.1\.max_val'"):
        pyparam.load_(net, values)
    assert held(net) == before
    values["parts.1.max_val"] = torch.tensor([3.0, 4.0])
    assert pyparam.load_(net, values) == ([], [])
    assert net.parts[1].min_val.tolist() == [1.0, 2.0]


def test_a_lazy_module_is_lazy_again() -> None:
    net = Pair(nn.LazyLinear(3), nn.Linear(2, 2))
    values = {"parts.0.weight": torch.ones(3, 2), "parts.0.bias": torch.ones(3)}
    values |= {"parts.1.weight": torch.ones(2, 2), "parts.1.bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"load_: the model lacks 'parts\.0\.more'"):
        pyparam.load_(net, values | {"parts.0.more": torch.ones(1)})
    assert isinstance(net.parts[0].weight, nn.UninitializedParameter)
    assert pyparam.load_(net, values) == ([], [])
    assert torch.equal(net.parts[0].weight, values["parts.0.weight"])


def test_a_hook_that_sees_its_neighbours() -> None:
    """Somebody's hook may look at anything: what stood before it in PyTorch's order is loaded."""
    net = Pair(nn.Linear(2, 2), nn.Linear(2, 2))
    seen = []
    net.parts[1].register_load_state_dict_post_hook(lambda *_: seen.append(net.parts[0].bias.tolist()))
    pyparam.load_(net, {name: torch.full_like(v, 3.0) for name, v in net.state_dict().items()})
    assert seen == [[3.0, 3.0]]


def test_a_hook_that_converts_needs_no_cast() -> None:
    net = nn.Linear(2, 2, bias=False)

    def to_float(module: nn.Module, state: Any, *_: Any) -> None:
        state["weight"] = state["weight"].float()

    net.register_load_state_dict_pre_hook(to_float)
    pyparam.load_(net, {"weight": torch.full((2, 2), 0.1, dtype=torch.float64)})
    assert torch.equal(net.weight, torch.full((2, 2), 0.1))


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.InstanceNorm1d])
def test_norms_of_a_file_that_tells_no_version(
    kind: Callable[..., nn.Module], track: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        net = nn.Sequential(kind(4, affine=True, track_running_stats=track), nn.Linear(4, 4))
        if track:
            net[0].num_batches_tracked.fill_(seed + 3)
        return net

    values = dict(make(1).state_dict())
    assert _C.match_state_dict(make(0), values) is not None
    without = {name: value for name, value in values.items() if not name.endswith("tracked")}
    more = values | {"0.running_mean": torch.ones(4)}
    for given in (values, without, more):
        for strict in (False, True):
            theirs, ours = make(0), make(0)
            try:
                told: Any = tuple(theirs.load_state_dict(copy.copy(given), strict=strict))
            except RuntimeError:
                refused(ours, given, "load_: ", strict=strict)
                continue
            assert pyparam.load_(ours, given, strict=strict) == told
            assert all(torch.equal(ours.state_dict()[n], v) for n, v in theirs.state_dict().items())


@pytest.mark.parametrize("verb", ["load_", "copy_"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("which", ["target", "source"])
def test_memory_that_is_gone_under_any_layout(verb: str, dtype: torch.dtype, which: str) -> None:
    """Also where bytes are not copied as they are: of another dtype, or not contiguous."""
    for turned in (False, True):
        net = nn.Linear(40, 50, bias=False)
        value = torch.ones(50, 40, dtype=dtype)
        if turned:
            net.weight.data = torch.zeros(40, 50).t()
            value = torch.ones(40, 50, dtype=dtype).t()
        gone = net.weight if which == "target" else value
        gone.untyped_storage().resize_(8)
        call = pyparam.load_ if verb == "load_" else pyparam.copy_
        with pytest.raises((TypeError, ValueError), match=r"memory is all there|memory was freed or resized"):
            call(net, {"weight": value})
