"""Objects that only say they are tensors: isinstance() believes them, and their memory is no tensor's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

import pyparam


def impostor() -> Any:
    mock = Mock(spec=torch.Tensor, grad=None, is_meta=False, layout=torch.strided)
    assert isinstance(mock, torch.Tensor)
    return mock


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_parameter("fake", Mock(spec=nn.Parameter, grad_fn=None))
    return net


@pytest.mark.parametrize(
    "verb",
    [pyparam.walk, pyparam.flatten, pyparam.measure, pyparam.ties, pyparam.total_norm, pyparam.pack_],
    ids=lambda verb: verb.__name__,
)
def test_one_among_a_model_s_parameters_is_named(verb: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(TypeError, match=r"'0\.fake' is no tensor but a Mock"):
        verb(model())


def test_the_model_s_own_listing_still_gives_it() -> None:
    net = model()
    assert dict(pyparam.named_parameters(net))["0.fake"] is net[0].fake


def test_one_in_a_model_that_is_shown_is_named() -> None:
    with pytest.raises(TypeError, match=r"'fake' of a Linear is no tensor but a Mock"):
        pyparam.show(model())


@pytest.mark.parametrize(
    "source",
    [{"a": torch.ones(2), "b": None}, [torch.ones(2), None], [("a", torch.ones(2)), ("b", None)]],
    ids=["mapping", "tensors", "pairs"],
)
@pytest.mark.parametrize(
    "verb",
    [pyparam.walk, pyparam.flatten, pyparam.measure, pyparam.fingerprint, pyparam.ties, pyparam.inspect],
    ids=lambda verb: verb.__name__,
)
def test_one_in_another_source_is_named(verb: Callable[[Any], Any], source: Any) -> None:
    fake = impostor()
    if isinstance(source, dict):
        source = source | {"b": fake}
    else:
        source = [source[0], ("b", fake) if isinstance(source[0], tuple) else fake]
    with pytest.raises(TypeError, match=r"'[b1]' is no tensor but a Mock"):
        repr(verb(source))


@pytest.mark.parametrize(
    "call",
    [
        lambda fake: pyparam.flatten([torch.ones(2)], out=fake),
        lambda fake: pyparam.scatter_([torch.ones(2)], fake),
        lambda fake: pyparam.unflatten(fake, [torch.ones(2)]),
        lambda fake: pyparam.parameters_to_vector([torch.ones(2), fake]),
        lambda fake: pyparam.vector_to_parameters(fake, [torch.ones(2)]),
        lambda fake: pyparam.vector_to_parameters(torch.ones(4), [torch.ones(2), fake]),
        lambda fake: pyparam.clip_grad_norm_([fake], 1.0),
        lambda fake: pyparam.compare({"a": fake}, {"a": torch.ones(2)}),
    ],
)
def test_one_as_an_argument_is_refused(call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="is no tensor but a Mock"):
        call(impostor())


def test_a_refused_scatter_writes_nothing() -> None:
    kept = torch.ones(2)
    with pytest.raises(TypeError, match=r"'1' is no tensor but a Mock"):
        pyparam.vector_to_parameters(torch.zeros(4), [kept, impostor()])
    assert kept.tolist() == [1, 1]
