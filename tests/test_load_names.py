"""Names that do not match: load_ says what would make them, and doing what it says loads the model."""

import re

import pytest
import torch
from torch import nn

import pyparam


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


STATE = model(1).state_dict()
OTHER = {"exp_avg": torch.zeros(2), "step": torch.zeros(())}

SOURCES = {
    "data parallel": (under("module.", STATE), "rename='module.'"),
    "compiled": (under("_orig_mod.", STATE), "rename=lambda name: name.replace('_orig_mod.', '')"),
    "checkpointed inside": (
        {name.replace("2.", "2._checkpoint_wrapped_module."): value for name, value in STATE.items()},
        "rename=lambda name: name.replace('_checkpoint_wrapped_module.', '')",
    ),
    "a prefix": (under("encoder.net.", STATE), "rename='encoder.net.'"),
    "nested": ({"model": STATE, "optimizer": OTHER, "epoch": 3}, "part='model'"),
    "nested twice": ({"state": {"net": STATE}, "optimizer": OTHER}, "part='state.net'"),
    "lightning": ({"state_dict": under("net.", STATE), "optimizer_states": [OTHER]}, "part='state_dict.net'"),
}


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("case", SOURCES)
def test_what_the_error_says_loads(case, as_file, tmp_path):
    source, option = SOURCES[case]
    if as_file:
        torch.save(source, tmp_path / "m.pt")
        source = tmp_path / "m.pt"
    net, before = model(), model()
    with pytest.raises(
        ValueError, match="load_: the source lacks .* is removed from the source's names"
    ) as raised:
        pyparam.load_(net, source)
    assert str(raised.value).endswith(f"names: {option}")
    assert same(net, before)
    said = eval(f"dict({option})")
    assert pyparam.load_(net, source, **said) == ([], [])
    assert same(net, model(1))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "trunk."])
def test_a_wrapped_model(prefix):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module(prefix[:-1], model())

    net = Holder()
    words = f"once '{prefix}' is removed from the model's names: rename=('*', '{prefix}*') puts it before the source's"
    with pytest.raises(ValueError, match=re.escape(words)):
        pyparam.load_(net, STATE)
    assert pyparam.load_(net, STATE, rename=("*", f"{prefix}*")) == ([], [])
    assert same(net, model(1))


def test_a_model_wrapped_inside_has_no_rule():
    net = model()
    net[2] = nn.ModuleDict({"_checkpoint_wrapped_module": net[2]})
    with pytest.raises(
        ValueError, match=r"'_checkpoint_wrapped_module\.' is removed from the model's names$"
    ):
        pyparam.load_(net, STATE)


def test_a_name_that_is_close():
    given = {("0.wieght" if name == "0.weight" else name): value for name, value in STATE.items()}
    with pytest.raises(ValueError, match="the source lacks '0.weight'; close to it: '0.wieght'$"):
        pyparam.load_(model(), given)
    with pytest.raises(ValueError, match="the source lacks '0.weight'$"):
        pyparam.load_(model(), {name: value for name, value in STATE.items() if name != "0.weight"})


def test_parts_that_are_not_there(tmp_path):
    torch.save({"model": STATE, "optimizer": OTHER}, tmp_path / "m.pt")
    for verb, source in ((pyparam.load_, {"model": STATE}), (pyparam.load_file_, tmp_path / "m.pt")):
        with pytest.raises(ValueError, match=rf"{verb.__name__}: there is no part 'ema'; there is: model \("):
            verb(model(), source, part="ema")
        with pytest.raises(TypeError, match=f"{verb.__name__}: part is an int; expected a prefix of names"):
            verb(model(), source, part=3)
    net = model()
    assert pyparam.load_file_(net, tmp_path / "m.pt", part="model", assign=True) == ([], [])
    assert same(net, model(1))
