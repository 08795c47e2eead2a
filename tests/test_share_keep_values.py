"""keep_ties: what the block gave to a name stays, and an optimizer trains what the model holds."""

from __future__ import annotations

import re

import pytest
import reference_share as reference
import torch
from torch import nn

import pyparam


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.emb(x))


class Sliced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.arange(12.0).view(6, 2))
        self.q, self.k, self.v = (nn.Parameter(part) for part in self.qkv.data.tensor_split(3))


def assigned(model: nn.Module, name: str, value: float, dtype: torch.dtype = torch.float32) -> None:
    shape = model.get_parameter(name).shape
    model.load_state_dict({name: torch.full(shape, value, dtype=dtype)}, assign=True, strict=False)


def replaced(model: nn.Module, name: str, value: float) -> None:
    path, _, attribute = name.rpartition(".")
    new = nn.Parameter(torch.full_like(model.get_parameter(name), value))
    setattr(model.get_submodule(path), attribute, new)


def emptied_then_loaded(model: nn.Module, name: str, value: float) -> None:
    model.to("meta").to_empty(device="cpu")
    model.load_state_dict({name: torch.full(model.get_parameter(name).shape, value)}, strict=False)


@pytest.mark.parametrize("name", ["emb.weight", "head.weight"])
@pytest.mark.parametrize("give", [assigned, replaced, emptied_then_loaded])
def test_the_name_that_was_given_values_keeps_them(name, give):
    model = Tied()
    with pyparam.keep_ties(model):
        give(model, name, 7.0)
    assert model.emb.weight is model.head.weight
    assert model.head.weight.eq(7).all()


def test_a_loaded_dtype_stays_too():
    model = Tied()
    with pyparam.keep_ties(model):
        assigned(model, "head.weight", 7.0, torch.bfloat16)
    assert model.emb.weight is model.head.weight
    assert model.emb.weight.dtype is torch.bfloat16


def test_a_name_that_was_left_alone_has_the_values_beside_one_that_was_made_empty():
    model = Tied()
    values = model.emb.weight.detach().clone()
    with pyparam.keep_ties(model):
        model.emb.weight = nn.Parameter(torch.empty_like(values))
    assert torch.equal(model.emb.weight, values)


def test_slices_that_were_loaded_are_written_into_their_whole():
    model = Sliced()
    with pyparam.keep_ties(model):
        model.load_state_dict({name: torch.full((2, 2), 5.0) for name in "qv"}, assign=True, strict=False)
    assert model.qkv.flatten().tolist() == [5.0] * 4 + [4.0, 5.0, 6.0, 7.0] + [5.0] * 4
    assert model.k.flatten().tolist() == [4.0, 5.0, 6.0, 7.0]


def test_a_whole_that_was_loaded_is_read_by_its_slices():
    model = Sliced()
    with pyparam.keep_ties(model):
        assigned(model, "qkv", 3.0)
    assert all(getattr(model, name).eq(3).all() for name in "qkv")


def test_a_whole_and_a_slice_that_agree_are_both_taken():
    model = Sliced()
    with pyparam.keep_ties(model):
        assigned(model, "qkv", 3.0)
        assigned(model, "k", 3.0)
    assert model.qkv.eq(3).all()


def test_two_names_that_were_given_other_values_raise_and_nothing_changes():
    model = Tied()

    def both() -> None:
        with pyparam.keep_ties(model):
            assigned(model, "emb.weight", 1.0)
            assigned(model, "head.weight", 2.0)

    words = "retie_: 'emb.weight' and 'head.weight' are one tensor, and both were given values, which differ"
    with pytest.raises(ValueError, match=re.escape(words)):
        both()
    assert model.emb.weight.eq(1).all()
    assert model.head.weight.eq(2).all()


def test_a_whole_and_a_slice_that_disagree_raise_and_nothing_changes():
    model = Sliced()

    def both() -> None:
        with pyparam.keep_ties(model):
            assigned(model, "qkv", 3.0)
            assigned(model, "k", 4.0)

    words = "retie_: 'qkv' and 'k' share memory, and were given values that differ where they do"
    with pytest.raises(ValueError, match=re.escape(words)):
        both()
    assert model.qkv.eq(3).all()
    assert model.k.eq(4).all()
    assert model.q.flatten().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_made_empty_alone_is_no_disagreement():
    model = nn.Sequential(Tied(), Sliced())
    before = pyparam.ties(model)
    with pyparam.keep_ties(model):
        model.to("meta").to_empty(device="cpu")
    assert pyparam.ties(model) == before


# ---------------------------------------------------------------- optimizers


def loaded_by_assignment(model: nn.Module) -> None:
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def through_meta(model: nn.Module) -> None:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.to("meta").to_empty(device="cpu").load_state_dict(state)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    def closure() -> torch.Tensor:
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def trains(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    before = [p.detach().clone() for p in model.parameters()]
    step(model, optimizer, x)
    step(model, optimizer, x)
    for old, new in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, new)
        assert new.isfinite().all()


def holds_all(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    return sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("change", [loaded_by_assignment, through_meta])
def test_the_optimizer_trains_the_models_parameters_after_keep_ties(kind, change):
    torch.manual_seed(1)
    model = Tied()
    x = torch.arange(6)
    optimizer = OPTIMIZERS[kind](model.parameters())
    step(model, optimizer, x)
    state = optimizer.state[model.emb.weight]
    moments = {k: v for k, v in state.items() if k in ("exp_avg", "momentum_buffer")}
    with pyparam.keep_ties(model, optimizer=optimizer):
        change(model)
    for key, value in moments.items():
        assert torch.equal(optimizer.state[model.emb.weight][key], value)
    assert holds_all(optimizer, model)
    trains(model, optimizer, x)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_optimizer_trains_after_tie_untie_and_retie(kind):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    x = torch.ones(2, 3)
    optimizer = OPTIMIZERS[kind](model.parameters())
    step(model, optimizer, x)
    pyparam.tie_(model, "0.weight", "1.weight", optimizer=optimizer)
    assert holds_all(optimizer, model)
    trains(model, optimizer, x)
    recorded = pyparam.ties(model)
    pyparam.untie_(model, "1.weight", optimizer=optimizer)
    assert holds_all(optimizer, model)
    trains(model, optimizer, x)
    pyparam.retie_(model, recorded, optimizer=optimizer)
    assert holds_all(optimizer, model)
    trains(model, optimizer, x)


def test_an_optimizer_of_the_target_alone_trains_the_source():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    optimizer = torch.optim.LBFGS([model[1].weight])
    pyparam.tie_(model, "0.weight", "1.weight", optimizer=optimizer)
    assert holds_all(optimizer, model)
    trains(model, optimizer, torch.ones(2, 3))


def test_parameters_the_optimizer_never_held_stay_out():
    model = Tied()
    other = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([other], lr=0.1)
    with pyparam.keep_ties(model, optimizer=optimizer):
        loaded_by_assignment(model)
    assert optimizer.param_groups[0]["params"] == [other]


def test_not_an_optimizer():
    with pytest.raises(TypeError, match=r"keep_ties: optimizer must be a torch\.optim\.Optimizer, got int"):
        pyparam.keep_ties(reference.tied(), optimizer=3).__enter__()
