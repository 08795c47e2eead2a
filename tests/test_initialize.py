"""initialize_: rules, PyTorch's defaults, meta models, the report; and uninitialized."""

from __future__ import annotations

import functools
import math
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_to_fill import failing, kaiming, model, same, snapshot
from scipy import stats
from torch import Tensor, nn

from pyparam import init
from pyparam.init import initialize_

# ---- rules ------------------------------------------------------------------------------------------------


def test_each_parameter_is_filled_from_the_stream_of_its_name() -> None:
    m = model()
    initialize_(m, {"*": init.uniform_}, seed=5)
    for name, p in m.named_parameters():
        assert torch.equal(p, init.uniform_(torch.empty_like(p), seed=5, stream=name))


def test_the_first_rule_that_matches_wins() -> None:
    m = model()
    report = initialize_(
        m,
        [
            ("2.1.bias", functools.partial(init.constant_, val=7.0)),
            ("*bias", init.zeros_),
            (nn.BatchNorm1d, functools.partial(init.constant_, val=2.0)),
            ((nn.Linear, "weig*"), init.ones_),
            ("*", functools.partial(init.constant_, val=3.0)),
        ],
        seed=0,
    )
    assert {name: p.unique().tolist() for name, p in m.named_parameters()} == {
        "0.weight": [1.0],
        "0.bias": [0.0],
        "1.weight": [2.0],
        "1.bias": [0.0],
        "2.1.weight": [1.0],
        "2.1.bias": [7.0],
    }
    assert report.unused == ["*"]


@pytest.mark.parametrize(
    ("condition", "matched"),
    [
        ("0.weight", {"0.weight"}),
        ("*bias", {"0.bias", "1.bias", "2.1.bias"}),
        ("2.*", {"2.1.weight", "2.1.bias"}),
        ("*.1.*", {"2.1.weight", "2.1.bias"}),
        ("?.weight", {"0.weight", "1.weight"}),
        ("[01].bias", {"0.bias", "1.bias"}),
        (re.compile(r"^\d\.w"), {"0.weight", "1.weight"}),
        (nn.Linear, {"0.weight", "0.bias", "2.1.weight", "2.1.bias"}),
        (nn.modules.batchnorm._NormBase, {"1.weight", "1.bias"}),
        (nn.Sequential, set()),
        ((nn.Linear, "bias"), {"0.bias", "2.1.bias"}),
        (lambda name, p: p.dim() == 2, {"0.weight", "2.1.weight"}),
        ("*", {"0.weight", "0.bias", "1.weight", "1.bias", "2.1.weight", "2.1.bias"}),
        ("nothing", set()),
    ],
)
def test_conditions(condition: Any, matched: set[str]) -> None:
    report = initialize_(model(), {condition: init.ones_}, seed=0, default="keep")
    assert {line.name for line in report if line.sampler == "ones_"} == matched


def test_names_with_magic_characters_are_reached_by_escaping() -> None:
    import glob

    m = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "a0": nn.Linear(2, 2)})
    report = initialize_(m, {glob.escape("a[0].weight"): init.ones_}, seed=0, default="keep")
    assert [line.name for line in report if line.sampler == "ones_"] == ["a[0].weight"]


def test_unmatched_parameters_are_an_error_that_lists_them() -> None:
    m = model()
    before = snapshot(m)
    with pytest.raises(
        ValueError, match=r"no rule matches '0.bias', '1.bias', '2.1.bias'; add a rule, or say default="
    ):
        initialize_(m, {"*weight": init.ones_}, seed=0)
    assert same(m, before)
    wide = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(30)])
    with pytest.raises(ValueError, match="'19' and 10 more"):
        initialize_(wide, {}, seed=0)


def test_default_fills_what_no_rule_matches() -> None:
    m = model()
    before = snapshot(m)
    initialize_(m, {"*weight": init.ones_}, seed=0, default="keep")
    assert torch.equal(m[0].bias, before[1])
    initialize_(m, {"*weight": init.ones_}, seed=0, default=init.zeros_)
    assert m[0].bias.eq(0).all()
    report = initialize_(m, {"*weight": init.ones_}, seed=0, default="torch")
    assert report["0.bias"].sampler == "uniform_(a=-0.353553, b=0.353553)"


def replacing(tensor: Tensor, *, seed: int, stream: str) -> Tensor:
    return tensor.clone()


@pytest.mark.parametrize(
    ("rules", "error", "words"),
    [
        ({"*": "ones"}, ValueError, "rule '\\*': a sampler is a callable, 'torch' or 'keep', got 'ones'"),
        ({"*": 3}, TypeError, "a sampler is a callable, 'torch' or 'keep', got int"),
        ({3: init.ones_}, TypeError, "a rule's condition must be a glob"),
        ({"*": init.ones_, 3: init.ones_}, TypeError, "a rule's condition must be a glob"),
        ({int: init.ones_}, TypeError, "int in a rule is no nn.Module class"),
        ([("*",)], TypeError, "rules must be a mapping or"),
        (["*"], TypeError, "rules must be a mapping or"),
        (
            {"*": nn.init.ones_},
            TypeError,
            "torch.nn.init.ones_ draws from the global generator; use pyparam.init.ones_",
        ),
        ({"*": functools.partial(init.normal_, 0.0)}, TypeError, "fixes the tensor; use keywords only"),
        (
            {"*": functools.partial(init.normal_, sd=1)},
            TypeError,
            "parameter '0.weight': .*unexpected keyword argument 'sd'",
        ),
        (
            {"*": functools.partial(init.normal_, std=-1)},
            ValueError,
            "parameter '0.weight': normal_: expected std >= 0",
        ),
        (
            {"*": kaiming},
            ValueError,
            "parameter '0.bias': kaiming_normal_: fan in and fan out can not be computed",
        ),
        (
            {"2.1.bias": init.orthogonal_, "*": init.ones_},
            ValueError,
            "parameter '2.1.bias': .*2 or more dimensions",
        ),
        ({"2.1.bias": failing, "*": init.ones_}, ValueError, "parameter '2.1.bias': failing: it will not do"),
        (
            {"2.1.bias": replacing, "*": init.ones_},
            TypeError,
            "'2.1.bias': replacing returned another tensor",
        ),
        ({"*": lambda t: t}, TypeError, "takes no seed and no stream; a sampler is called as"),
    ],
)
def test_nothing_is_written_when_a_rule_is_wrong(rules: Any, error: type[Exception], words: str) -> None:
    m = model()
    before = snapshot(m)
    versions = [p._version for p in m.parameters()]
    with pytest.raises(error, match=words):
        initialize_(m, rules, seed=0)
    assert same(m, before)
    assert [p._version for p in m.parameters()] == versions


def test_a_parameter_that_cannot_be_drawn_is_named_and_nothing_is_written() -> None:
    m = nn.ParameterDict(
        {"good": torch.ones(3), "bad": nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)}
    )
    with pytest.raises(TypeError, match=r"parameter 'bad': normal_ writes float32.*dtype is torch.int8"):
        initialize_(m, {"*": init.normal_}, seed=0)
    m = nn.ParameterDict({"good": torch.ones(3), "shared": nn.Parameter(torch.ones(1).expand(3))})
    with pytest.raises(ValueError, match="parameter 'shared' has elements that share memory"):
        initialize_(m, {"*": init.normal_}, seed=0)
    m = nn.ParameterDict({"good": torch.ones(3), "sparse": nn.Parameter(torch.eye(3).to_sparse())})
    with pytest.raises(TypeError, match="parameter 'sparse' is sparse"):
        initialize_(m, {"*": init.normal_}, seed=0)
    assert m["good"].eq(1).all()
    lazy = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    with pytest.raises(
        TypeError, match=r"parameter '1.weight': the parameter of a lazy module has no shape yet"
    ):
        initialize_(lazy, {"*": init.ones_}, seed=0)


def test_sources_that_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="expected a model to write to, got a path"):
        initialize_("model.safetensors", seed=0)
    with pytest.raises(ValueError, match=r"initialize_: seed must be in \[0, 2\*\*64\), got -3"):
        initialize_(model(), seed=-3)


def test_custom_samplers_get_seed_and_name() -> None:
    seen = []

    def sampler(tensor: Tensor, *, seed: int, stream: str) -> None:
        seen.append((tuple(tensor.shape), seed, stream))
        tensor.fill_(4)

    m = model()
    report = initialize_(m, {"0.*": sampler, "*": init.zeros_}, seed=9)
    assert seen == [((16, 8), 9, "0.weight"), ((16,), 9, "0.bias")]
    assert m[0].weight.eq(4).all()
    assert report["0.weight"].mean is None


# ---- what does not matter, what stays ---------------------------------------------------------------------


def test_threads_order_and_grouping_do_not_matter() -> None:
    rules = {"*bias": init.zeros_, nn.BatchNorm1d: init.ones_, "*": kaiming}
    m = model()
    initialize_(m, rules, seed=3)
    expected = {name: p.detach().clone() for name, p in m.named_parameters()}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        initialize_(m, rules, seed=3)
    finally:
        torch.set_num_threads(threads)
    assert same(m, list(expected.values()))
    turned = dict(reversed([(n, torch.empty_like(p)) for n, p in expected.items()]))
    initialize_(turned, {"*bias": init.zeros_, "1.*": init.ones_, "*": kaiming}, seed=3)
    assert all(torch.equal(turned[name], expected[name]) for name in expected)


def test_identity_strides_grad_mode_and_random_state_stay() -> None:
    m = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    m[0].bias.requires_grad_(False)
    weight, strides = m[0].weight, m[0].weight.stride()
    state = torch.get_rng_state()
    initialize_(m, seed=0)
    assert m[0].weight is weight
    assert weight.stride() == strides
    assert weight.requires_grad
    assert not m[0].bias.requires_grad
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_tied_parameters_are_filled_once_under_their_first_name() -> None:
    m = nn.ModuleDict({"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    m["head"].weight = m["embed"].weight
    report = initialize_(m, {"*": init.normal_}, seed=1)
    assert [line.name for line in report] == ["embed.weight"]
    assert torch.equal(m["head"].weight, init.normal_(torch.empty(10, 4), seed=1, stream="embed.weight"))


def test_two_parameters_over_one_storage_end_as_the_later_one() -> None:
    data = torch.empty(200_000)
    m = nn.ParameterDict({"a": nn.Parameter(data), "b": nn.Parameter(data)})
    initialize_(m, {"*": init.normal_}, seed=1)
    assert torch.equal(m["a"], init.normal_(torch.empty(200_000), seed=1, stream="b"))


def test_nothing_keeps_the_model_alive() -> None:
    m = model()
    gone = weakref.ref(m)
    report = initialize_(m, seed=0)
    del m, report
    assert gone() is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_any_grad_mode(mode: Callable[[], Any]) -> None:
    m = model()
    with mode():
        initialize_(m, {"*": init.ones_}, seed=0)
    assert all(p.eq(1).all() for p in m.parameters())


def test_empty_models() -> None:
    assert len(initialize_(nn.Sequential(), seed=0)) == 0
    assert len(initialize_(nn.ReLU(), {"*": init.ones_}, seed=0)) == 0
    m = nn.Linear(1, 3)
    m.weight = nn.Parameter(torch.empty(3, 0))
    initialize_(m, {"*bias": init.zeros_, "*": kaiming}, seed=0)
    assert m.bias.eq(0).all()


# ---- the report -------------------------------------------------------------------------------------------


def test_the_report_says_what_was_wanted_and_what_came() -> None:
    m = nn.Linear(200, 300)
    report = initialize_(
        m, {"bias": functools.partial(init.trunc_normal_, std=2.0, a=-2.0, b=4.0), "*": kaiming}, seed=0
    )
    assert len(report) == 2
    weight, bias = report
    assert (weight.name, weight.shape, weight.dtype, weight.sampler) == (
        "weight",
        (300, 200),
        torch.float32,
        "kaiming_normal_",
    )
    assert (weight.wanted_mean, weight.wanted_std) == (0.0, pytest.approx(0.1))
    assert weight.mean == pytest.approx(m.weight.mean().item(), abs=1e-7)
    assert weight.std == pytest.approx(m.weight.std(correction=0).item(), rel=1e-5)
    law = stats.truncnorm(-1, 2, loc=0, scale=2)
    assert bias.wanted_mean == pytest.approx(law.mean())
    assert bias.wanted_std == pytest.approx(law.std())
    assert report[0] is weight
    with pytest.raises(KeyError):
        report["nowhere"]
    assert repr(report).splitlines()[0].split() == [
        "name",
        "shape",
        "sampler",
        "mean",
        "wanted",
        "got",
        "std",
        "wanted",
        "got",
    ]
    assert "300×200" in repr(report)


def test_a_long_report_is_cut() -> None:
    m = nn.ParameterList([nn.Parameter(torch.empty(2)) for _ in range(1050)])
    assert repr(initialize_(m, {"*": init.ones_}, seed=0)).splitlines()[-1] == "… and 1,010 more"


@pytest.mark.parametrize(("a", "b"), [(-2, 2), (1, math.inf), (8, 9), (-40, -30), (-1, 20), (0.2, 0.21)])
def test_the_wanted_moments_of_truncated_normals(a: float, b: float) -> None:
    from pyparam.init._fill import TRUNCATED, Row, wanted

    mean, std = wanted(Row(TRUNCATED, 0.0, 1.0, a, b))
    values = init.trunc_normal_(torch.empty(200_000, dtype=torch.float64), a=a, b=b, seed=0, stream="x")
    assert mean == pytest.approx(values.mean().item(), abs=6 * std / 200_000**0.5)
    assert std == pytest.approx(values.std().item(), rel=0.01)
