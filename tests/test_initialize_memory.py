"""initialize_ on meta and TorchScript models; uninitialized."""

from __future__ import annotations

import copy
import warnings
import weakref
from typing import Any

import pytest
import torch
from models_to_fill import LAYERS, failing, model, same, script, snapshot
from torch import Tensor, nn

from pyparam import init
from pyparam.init import initialize_, uninitialized

kaiming = init.kaiming_normal_


# ---- meta models ------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.norm.bias.requires_grad_(False)


def test_a_meta_model_becomes_what_a_real_one_would() -> None:
    with torch.device("meta"):
        m = Tied()
    weight = m.embed.weight
    weight.note = "kept"  # type: ignore[attr-defined]
    report = initialize_(m, seed=3, device="cpu")
    real = Tied()
    initialize_(real, seed=3)
    assert same(m, snapshot(real))
    assert m.embed.weight is weight is m.head.weight
    assert weight.note == "kept"
    assert type(weight) is nn.Parameter
    assert not m.norm.bias.requires_grad
    assert m.norm.running_mean.eq(0).all()
    assert m.norm.running_var.eq(1).all()
    assert m.norm.num_batches_tracked.item() == 0
    assert report.rebuilt == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert {name for name, _ in m.named_parameters()} == {name for name, _ in real.named_parameters()}
    assert uninitialized(m) == []


def test_a_held_parameter_is_replaced_everywhere_and_ties_stay() -> None:
    with torch.device("meta"):
        m = Tied()
    old = m.embed.weight
    watcher = weakref.ref(old)  # swapping is impossible under a weak reference
    initialize_(m, seed=3, device="cpu")
    assert m.embed.weight is not old
    assert m.embed.weight is m.head.weight
    assert m.embed.weight.device.type == "cpu"
    assert watcher() is old


def test_an_optimizer_made_before_sees_the_materialised_parameters() -> None:
    with torch.device("meta"):
        m = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
    initialize_(m, seed=0, device="cpu")
    before = m.weight.detach().clone()
    m(torch.ones(3)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, m.weight)


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("inv_freq", torch.ones(4), persistent=False)
        self.alias = self.inv_freq


def frequencies(tensor: Tensor, *, seed: int, stream: str) -> None:
    tensor.copy_(torch.arange(4.0))


def test_buffers_that_cannot_be_rebuilt_are_an_error_before_anything_changes() -> None:
    with torch.device("meta"):
        m = Rotary()
    with pytest.raises(ValueError, match="nothing says what the meta buffers 'inv_freq' hold; give buffers="):
        initialize_(m, seed=0, device="cpu")
    assert m.linear.weight.is_meta
    report = initialize_(m, seed=0, device="cpu", buffers={"*inv_freq": frequencies})
    assert torch.equal(m.inv_freq, torch.arange(4.0))
    assert report.rebuilt == ["inv_freq"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "parameter 'weight' is on the meta device and has no memory; say device="),
        ({"device": "meta"}, ValueError, "device must be one with memory, got 'meta'"),
        (
            {"device": "cpu", "rules": {"*": "keep"}},
            ValueError,
            "'weight' is on the meta device: there is nothing to keep",
        ),
        ({"device": "cpu", "rules": {"*": failing}}, ValueError, "failing: it will not do"),
    ],
)
def test_errors_leave_a_meta_model_meta(options: dict[str, Any], error: type[Exception], words: str) -> None:
    m = nn.Linear(3, 3, bias=False, device="meta")
    weight = m.weight
    with pytest.raises(error, match=words):
        initialize_(m, seed=0, **options)
    assert m.weight is weight
    assert weight.is_meta


def test_device_leaves_what_has_memory_where_it_is() -> None:
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    first = m[0].weight
    pointer = first.data_ptr()
    initialize_(m, seed=0, device="cpu")
    assert m[0].weight is first
    assert first.data_ptr() == pointer
    assert not m[1].weight.is_meta


# ---- TorchScript ------------------------------------------------------------------------------------------


def test_torchscript_models_follow_the_same_rules(tmp_path: Any) -> None:
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    scripted = script(copy.deepcopy(eager))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(scripted, tmp_path / "model.pt")
        loaded = torch.jit.load(tmp_path / "model.pt")
    for rules in (None, {nn.LayerNorm: init.ones_, "*bias": init.zeros_, nn.Linear: kaiming}):
        initialize_(eager, rules, seed=4)
        for m in (scripted, loaded):
            initialize_(m, rules, seed=4)
            assert all(torch.equal(a, b) for a, b in zip(eager.parameters(), m.parameters(), strict=True))
    assert uninitialized(loaded) == []


# ---- uninitialized ----------------------------------------------------------------------------------------


def test_a_freshly_built_model_has_nothing_uninitialized() -> None:
    for name, make in LAYERS.items():
        left = uninitialized(make())
        assert left.certain == []
        if name in ("Transformer", "TransformerEncoder"):  # made of deep copies, which say nothing
            assert left
        else:
            assert left == [], name


def of_parameters(names: list[str]) -> list[str]:
    """Without running statistics, which are named where the memory they got shows that nothing wrote there."""
    return [name for name in names if "running" not in name]


def test_after_to_empty_and_a_partial_load_the_rest_is_named() -> None:
    for empty in (lambda m: m.to_empty(device="cpu"), lambda m: init.to_empty(m, device="cpu")):
        with torch.device("meta"):
            m = model()
        empty(m)
        assert len(of_parameters(uninitialized(m))) == 6
        full = model().state_dict()
        m.load_state_dict({k: v for k, v in full.items() if k.startswith("0.")}, strict=False)
        assert of_parameters(uninitialized(m)) == ["1.weight", "1.bias", "2.1.weight", "2.1.bias"]
        m[2][1].reset_parameters()
        assert of_parameters(uninitialized(m)) == ["1.weight", "1.bias"]
        initialize_(m, seed=0)
        m[1].reset_running_stats()
        assert uninitialized(m) == []
        assert repr(uninitialized(m)) == "Uninitialized: none"


def test_marked_memory_knows_each_element_and_each_way_of_writing() -> None:
    m = init.to_empty(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), device="cpu")
    m[0].weight.data.normal_()
    m[0].bias.detach().numpy()[:] = 1
    m[1].weight.data[1:] = 0
    left = uninitialized(m)
    assert left == ["1.weight", "1.bias"]
    assert left.certain == ["1.weight", "1.bias"]
    assert left.reasons["1.weight"] == "4 of 16 elements hold the mark of to_empty"
    assert "1.weight: 4 of 16 elements" in repr(left)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
)
def test_the_mark_survives_in_every_dtype(dtype: torch.dtype) -> None:
    m = init.to_empty(nn.ParameterList([nn.Parameter(torch.zeros(5, dtype=dtype))]), device="cpu")
    assert uninitialized(m).certain == ["0"]
    assert m[0].isnan().all()
    with torch.no_grad():
        m[0].fill_(float("nan"))
    assert uninitialized(m) == []


def test_the_version_is_evidence_but_no_proof() -> None:
    m = nn.ParameterDict({"made": nn.Parameter(torch.zeros(3))})
    left = uninitialized(m)
    assert left == ["made"]
    assert left.certain == []
    assert "false alarm" in left.reasons["made"]
    marked = init.to_empty(nn.Linear(2, 2), device="cpu")
    marked.load_state_dict(nn.Linear(2, 2).state_dict(), assign=True)
    assert uninitialized(marked) == []


def test_meta_and_lazy_parameters_have_no_values() -> None:
    left = uninitialized(
        nn.Sequential(nn.Linear(2, 2, bias=False, device="meta"), nn.LazyLinear(3, bias=False))
    )
    assert left.certain == ["0.weight", "1.weight"]
    assert left.reasons == {
        "0.weight": "it is on the meta device",
        "1.weight": "its lazy module has not run, so it has no shape",
    }


def test_to_empty_says_what_is_no_module_and_no_device() -> None:
    with pytest.raises(TypeError, match="to_empty: expected an nn.Module, got dict"):
        init.to_empty({"weight": torch.zeros(1)}, device="cpu")
    model = nn.Linear(2, 2, device="meta")
    with pytest.raises(ValueError, match="to_empty: no device 'gpu': "):
        init.to_empty(model, device="gpu")
    assert model.weight.is_meta
