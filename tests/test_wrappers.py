"""Names of wrapped models: one rule for every verb that takes a name."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import pyparam
from pyparam._base.wrappers import WRAPPERS, Names, alike, bare, other_names
from pyparam._sources.registered import registered


def test_bare():
    assert bare("_orig_mod.module.0._checkpoint_wrapped_module.weight") == "0.weight"
    assert bare("encoder.module.weight") == "encoder.module.weight"
    assert bare("module") == "module"
    assert bare("_orig_mod.w") == "w"


class Holder(nn.Module):
    """Holds a module under a name, as wrappers do."""

    def __init__(self, key: str, held: nn.Module) -> None:
        super().__init__()
        self.add_module(key, held)


def each(wrap):
    return lambda net: nn.Sequential(*map(wrap, net))


def ours() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))


WRAPS = {
    "compile": (torch.compile, "_orig_mod.0."),
    "DataParallel": (nn.DataParallel, "module.0."),
    "both": (lambda net: torch.compile(nn.DataParallel(net)), "_orig_mod.module.0."),
    "checkpoint": (each(checkpoint_wrapper), "0._checkpoint_wrapped_module."),
    "FSDP": (each(lambda net: Holder("_fsdp_wrapped_module", net)), "0._fsdp_wrapped_module."),
    "all": (
        lambda net: Holder(
            "module", Holder("_forward_module", Holder("_fsdp_wrapped_module", each(checkpoint_wrapper)(net)))
        ),
        "module._forward_module._fsdp_wrapped_module.0._checkpoint_wrapped_module.",
    ),
}
VERBS = {
    "get_parameter": pyparam.get_parameter,
    "get_parameter of an Inspector": lambda model, name: pyparam.inspect(model).get_parameter(name),
    "inspect": lambda model, name: pyparam.inspect(model)[name],
    "inspect of a state dict": lambda model, name: pyparam.inspect(dict(model.named_parameters()))[name],
    "walk": lambda model, name: pyparam.walk(model)[name],
    "select": lambda model, name: pyparam.walk(model).select(name)[0],
    "index": lambda model, name: pyparam.index(model)[name],
    "tie_": lambda model, name: pyparam.tie_(model, name, name.replace("0", "2", 1)),
    "untie_": pyparam.untie_,
    "tie_ of a state dict": lambda model, name: pyparam.tie_(
        dict(model.named_parameters()), name, name.replace("0", "2", 1)
    ),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("front", ["", "_orig_mod.", "module."])
def test_every_verb_takes_a_name_without_its_wrappers(wrap, verb, front):
    wrapped, full = WRAPS[wrap]
    if front and verb == "select":
        return  # a pattern is none of the names
    model = wrapped(ours())
    weight = dict(model.named_parameters())[full + "weight"]
    assert VERBS[verb](model, f"{front}0.weight") is weight


@pytest.mark.parametrize("wrap", WRAPS)
def test_figures_by_a_name_without_its_wrappers(wrap):
    wrapped, full = WRAPS[wrap]
    model = wrapped(ours())
    stats = pyparam.measure(model, histogram=True)
    assert stats["0.weight"].name == full + "weight"
    assert "0.weight" in stats
    assert stats.underflow(torch.float16)["0.weight"].zero == 0
    assert stats.histogram("0.weight").counts.sum() == 4
    assert "0.nothing" not in stats
    state = {name: tensor.detach() for name, tensor in model.named_parameters()}
    assert pyparam.compare(state, state)["0.weight"].name == full + "weight"
    prints = pyparam.fingerprint(state)
    assert prints["0.weight"] == prints[full + "weight"]
    assert "0.weight" in prints


@pytest.mark.parametrize("wrap", WRAPS)
def test_buffers_and_modules_by_names_without_their_wrappers(wrap):
    model = WRAPS[wrap][0](ours())
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm1d))
    assert pyparam.get_buffer(model, "1.running_mean") is norm.running_mean
    assert norm in pyparam.get_submodule(model, "1").modules()
    assert norm in [inspector.module for inspector in pyparam.inspect(model)["1"].modules()]
    assert pyparam.index(model, buffers=True)["1.running_mean"] is norm.running_mean
    with pytest.raises(AttributeError):
        pyparam.get_buffer(model, "1.weight")


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize(
    "rule",
    ["0.weight", "0.w*", "*0.weight", "[0].weight", re.compile(r"^0\.weight$")],
    ids=["name", "prefix", "suffix", "glob", "expression"],
)
@pytest.mark.parametrize("before", [0, 70])
def test_rules_match_names_without_their_wrappers(wrap, rule, before):
    wrapped, full = WRAPS[wrap]
    model = wrapped(ours())
    rules = {f"nothing{i}": pyparam.init.zeros_ for i in range(before)}
    told = pyparam.init.initialize_(
        model, {**rules, rule: pyparam.init.ones_, "*": pyparam.init.zeros_}, seed=1
    )
    assert len(told.unused) == before
    assert told["0.weight"].name == full + "weight"
    assert {name for name, p in model.named_parameters() if p.any()} == {full + "weight"}


def test_a_later_rule_on_the_full_name_comes_later():
    model = Holder("module", ours())
    one, two = (lambda t, *, seed, stream: t.fill_(1.0), lambda t, *, seed, stream: t.fill_(2.0))
    pyparam.init.initialize_(model, {"0.*": one, "module.0.*": two, "*": pyparam.init.zeros_}, seed=1)
    assert model.module[0].weight.tolist() == [[1, 1], [1, 1]]
    pyparam.init.initialize_(model, {"module.0.*": two, "0.*": one, "*": pyparam.init.zeros_}, seed=1)
    assert model.module[0].weight.tolist() == [[2, 2], [2, 2]]


class Twofold(nn.Module):
    """Of "w" nobody can say which is meant; "b" is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(1))
        self.module = nn.Module()
        self._orig_mod = nn.Module()
        for held in (self.module, self._orig_mod):
            held.w = nn.Parameter(torch.ones(1))
            held.b = nn.Parameter(torch.ones(1))


def test_a_name_that_several_answer_to_is_an_error_that_lists_them():
    model = Twofold()
    both = r"'(module|_orig_mod)\.w'.*'(module|_orig_mod)\.w'"
    for name in (verb for verb in VERBS if verb not in ("select", "tie_", "tie_ of a state dict")):
        with pytest.raises((KeyError, AttributeError), match=both):
            VERBS[name](model, "w")
        assert VERBS[name](model, "b") is model.b
    with pytest.raises(AttributeError, match=f"tie_: the model has no parameter 'w'; did you mean {both}"):
        pyparam.tie_(model, "b", "w")
    assert len(pyparam.walk(model).select("w")) == 0
    assert "w" not in pyparam.walk(model)
    told = pyparam.init.initialize_(model, {"w": pyparam.init.ones_, "*": pyparam.init.zeros_}, seed=1)
    assert told.unused == ["w"]


def test_a_wrapper_that_lists_other_names_than_its_own():
    """Its named_parameters leaves its own part out: names that are listed and paths to them differ."""
    model = checkpoint_wrapper(ours())
    assert "0.weight" in dict(model.named_parameters())
    before = pyparam.ties(model)
    shared = pyparam.tie_(model, "0.weight", "2.weight")
    assert shared is model._checkpoint_wrapped_module[2].weight
    (tie,) = pyparam.ties(model)
    assert before == []
    with pyparam.keep_ties(model):
        model._checkpoint_wrapped_module[2].weight = nn.Parameter(torch.ones(2, 2))
    assert model._checkpoint_wrapped_module[0].weight is model._checkpoint_wrapped_module[2].weight
    own = pyparam.untie_(model, "2.weight")
    assert own is model._checkpoint_wrapped_module[2].weight
    assert own is not model._checkpoint_wrapped_module[0].weight
    pyparam.retie_(model, [tie])
    assert model._checkpoint_wrapped_module[0].weight is model._checkpoint_wrapped_module[2].weight
    with pytest.raises(
        AttributeError, match=r"tie_: the model has no parameter '0.wieght'; did you mean '0.weight'"
    ):
        pyparam.tie_(model, "0.wieght", "2.weight")


@pytest.mark.parametrize(("kind", "save"), [("pt", torch.save), ("safetensors", save_file)])
def test_a_checkpoint_of_a_wrapped_model(tmp_path, kind, save):
    save(nn.DataParallel(ours()).state_dict(), tmp_path / f"wrapped.{kind}")
    with pyparam.open(tmp_path / f"wrapped.{kind}") as opened:
        assert "0.weight" in opened
        first = opened["0.weight"]
        assert first is opened["module.0.weight"]
        assert first is opened.table()["0.weight"]
        assert opened.tensor_info("0.weight").shape == (2, 2)
        with pytest.raises(
            KeyError, match=r"no entry named '0.wieght' in .* close to it: '(module\.)?0.weight'"
        ):
            opened["0.wieght"]


def test_what_is_close_is_close_whatever_wraps_the_model():
    net = nn.ModuleDict({"_orig_mod": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))})
    with pytest.raises(
        AttributeError, match=r"no parameter '0\.wieght'; did you mean '_orig_mod\.0\.weight'"
    ):
        pyparam.tie_(net, "0.wieght", "1.weight")
    with pytest.raises(KeyError, match=r"close to it: '_orig_mod\.0\.weight'"):
        pyparam.walk(net)["0.wieght"]


def test_a_module_that_wraps_itself():
    loop = nn.Module()
    loop._modules["_orig_mod"] = loop
    with pytest.raises(AttributeError):
        pyparam.get_parameter(loop, "w")


@st.composite
def wrapped_models(draw, depth=3):
    module = nn.Module()
    for key in draw(st.sets(st.sampled_from(("w", "b")), max_size=2)):
        module.register_parameter(key, nn.Parameter(torch.zeros(1)))
    if depth:
        for key in draw(st.sets(st.sampled_from(("0", "module", *WRAPPERS[:2])), max_size=2)):
            module.add_module(key, draw(wrapped_models(depth=depth - 1)))
    return module


@given(wrapped_models())
def test_paths_and_lists_of_names_agree(model):
    """Verbs on modules go down the tree, those on tables look through names: one rule all the same."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    by_name = Names({name: i for i, name in enumerate(names)})
    others = other_names(names)
    asked = {bare(name) for name in names} | {f"_orig_mod.{name}" for name in names}
    for name in asked.difference(names):
        expected = [other for other in names if bare(other) == bare(name)]
        assert alike(name, names) == expected
        assert sorted(registered(model, name, "parameter")) == sorted(expected)
        found = by_name.find(name)
        assert (None if found is None else names[found]) == (expected[0] if len(expected) == 1 else None)
        if name == bare(name):
            assert [names[i] for i, other in others.items() if other == name] == (
                expected if len(expected) == 1 else []
            )
    assert not set(others.values()) & set(names)
