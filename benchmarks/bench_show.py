"""``show`` against torchinfo.summary, and the repr of an Inspector against print."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
from models import MODELS, chain, mixture, net
from pairing import keep, seconds, versus
from torch import nn

import pyparam
from pyparam._view.text import summarize

torchinfo = pytest.importorskip("torchinfo")


def show(model: nn.Module) -> str:
    file = io.StringIO()
    pyparam.show(model, file=file)
    return file.getvalue()


def torchinfo_text(model: nn.Module) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(torchinfo.summary(model, verbose=0))


@pytest.mark.parametrize(
    "make", [MODELS["mlp"], net, lambda: mixture(2, 64)], ids=["mlp", "net", "small mixture"]
)
def test_show(benchmark: Any, make: Any) -> None:
    """Not on the chain: torchinfo does not come back from 200 levels."""
    model = make()
    total = sum(p.numel() for p in model.parameters())
    assert summarize(model).parameters.unique == total
    assert torchinfo.summary(model, verbose=0).total_params == total
    versus(benchmark, lambda: show(model), lambda: torchinfo_text(model), rounds=5)


def test_show_mixture(benchmark: Any) -> None:
    """The peer takes some 20 s, so it has one round, against the median of ours over several."""
    model = MODELS["mixture"]()
    total = sum(p.numel() for p in model.parameters())
    assert summarize(model).parameters.unique == total
    ours = sorted(seconds(lambda: show(model)) for _ in range(9))[4]
    peer = seconds(lambda: torchinfo_text(model))
    keep(ours, peer)
    benchmark.extra_info.update(ratio=round(peer / ours, 1), peer=peer, floor=60)
    benchmark.pedantic(lambda: show(model), rounds=5)
    print(f"\n{benchmark.name}: {ours:.3f} s against {peer:.1f} s: {peer / ours:.0f}× (floor 60×)")


@pytest.mark.parametrize("name", ["mlp", "tree", "mixture"])
def test_repr(benchmark: Any, name: str) -> None:
    model = MODELS[name]()
    inspector = pyparam.inspect(model)
    assert repr(inspector).startswith(type(model).__name__)
    versus(benchmark, lambda: repr(inspector), lambda: repr(model), rounds=3)


def test_index(benchmark: Any) -> None:
    """What an access through the mirror costs beside the model's own."""
    model = MODELS["mlp"]()
    inspector = pyparam.inspect(model)
    assert inspector[2].bias is model[2].bias
    versus(benchmark, lambda: inspector[2].bias, lambda: model[2].bias, rounds=200)


def test_name(benchmark: Any) -> None:
    """By qualified name, 200 levels down."""
    model = chain(200)
    inspector = pyparam.inspect(model)
    name = "rest." * 199 + "layer.bias"
    assert inspector[name] is model.get_parameter(name)
    versus(benchmark, lambda: inspector[name], lambda: model.get_parameter(name), rounds=200)
