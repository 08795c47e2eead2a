"""What initialize_ returns, and seeds that are left out."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref

import pytest
import torch
from torch import nn

from pyparam import init
from pyparam.init import initialize_


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


def test_the_report_holds_nothing_of_the_model() -> None:
    net = model()
    report = initialize_(net, seed=0)
    gone = [weakref.ref(p) for p in net.parameters()]
    storages = [p.untyped_storage()._weak_ref() for p in net.parameters()]
    del net
    gc.collect()
    assert all(ref() is None for ref in gone)
    assert all(torch.UntypedStorage._expired(ref) for ref in storages)
    assert report["1.weight"].shape == (2, 3)


@pytest.mark.parametrize("again", [lambda r: pickle.loads(pickle.dumps(r)), copy.deepcopy, copy.copy])
def test_the_report_is_copied_and_pickled(again) -> None:
    rules = {
        re.compile("^9"): init.ones_,
        (nn.Conv1d, "*"): init.ones_,
        lambda name, p: False: init.ones_,
        "*": init.normal_,
    }
    report = initialize_(model(), rules, seed=5)
    twin = again(report)
    assert list(twin) == list(report)
    assert repr(twin).splitlines()[:-1] == repr(report).splitlines()[:-1]
    assert (twin.seed, twin.rebuilt, len(twin.unused)) == (5, [], 3)


def test_a_rule_that_matched_nothing_is_said() -> None:
    rules = {"*.wieght": init.ones_, nn.Conv2d: init.ones_, re.compile("^x"): init.ones_, "*": init.normal_}
    report = initialize_(model(), rules, seed=0)
    assert repr(report).splitlines()[-1] == "matched nothing: '*.wieght', Conv2d, re.compile('^x')"
    assert "matched nothing" not in repr(initialize_(model(), seed=0))


def test_a_model_is_cast_in_swap_mode_while_the_report_is_kept() -> None:
    net = model()
    report = initialize_(net, seed=0)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert net[0].weight.dtype is torch.float64
    assert report["0.weight"].dtype is torch.float32


# ---- seeds ------------------------------------------------------------------------------------------------


def test_a_seed_left_out_is_drawn_and_told() -> None:
    torch.manual_seed(7)
    first = model()
    report = initialize_(first)
    again = model()
    initialize_(again, seed=report.seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert initialize_(model()).seed != report.seed
    torch.manual_seed(7)
    model()
    assert initialize_(model()).seed != initialize_(model()).seed


SAMPLERS = {
    "uniform_": lambda w: init.uniform_(w, -1, 1),
    "normal_": lambda w: init.normal_(w, std=0.01),
    "trunc_normal_": init.trunc_normal_,
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": init.xavier_normal_,
    "kaiming_uniform_": init.kaiming_uniform_,
    "kaiming_normal_": init.kaiming_normal_,
    "orthogonal_": init.orthogonal_,
    "sparse_": lambda w: init.sparse_(w, 0.1),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_apply_of_a_function_works_as_with_torch(name: str) -> None:
    def fill(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            SAMPLERS[name](module.weight)

    net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
    torch.manual_seed(3)
    net.apply(fill)
    values = [layer.weight.detach().clone() for layer in net]
    assert not torch.equal(values[0], values[1])
    torch.manual_seed(3)
    net.apply(fill)
    assert all(torch.equal(layer.weight, value) for layer, value in zip(net, values, strict=True))


def test_with_a_seed_the_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    initialize_(model(), seed=1)
    init.normal_(torch.empty(4), seed=1)
    after = model()  # draws by itself
    del after
    assert not torch.equal(torch.get_rng_state(), before)
    state = torch.get_rng_state()
    init.normal_(torch.empty(4), seed=1, stream="x")
    assert torch.equal(torch.get_rng_state(), state)


# ---- mistakes ---------------------------------------------------------------------------------------------


def test_rules_that_are_none() -> None:
    words = "initialize_: rules must be a mapping or (condition, sampler) pairs, got normal_; to fill by one sampler"
    with pytest.raises(TypeError, match=re.escape(words)):
        initialize_(model(), init.normal_, seed=0)
    with pytest.raises(TypeError, match="rules must be a mapping or .* got 3"):
        initialize_(model(), 3, seed=0)
    with pytest.raises(TypeError, match="rules must be a mapping or .* got 'torch'"):
        initialize_(model(), "torch", seed=0)


@pytest.mark.parametrize("rules", [None, {"*": init.ones_}])
def test_a_lazy_model_is_refused_by_name(rules) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    values = net[0].weight.detach().clone()
    words = "initialize_: parameter '1.weight': the parameter of a lazy module has no shape yet; run the module once"
    with pytest.raises(TypeError, match=re.escape(words)):
        initialize_(net, rules, seed=0)
    assert torch.equal(net[0].weight, values)
