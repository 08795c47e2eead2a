"""Verbs on models that hold a wrapper, a nested, a conjugated or a lazy parameter: right, or refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyparam
from pyparam import init


class Packed4(torch.Tensor):
    """Weights in four bits: what it stands for is elsewhere, and it knows ``detach`` alone."""

    packed: Tensor

    @staticmethod
    def __new__(cls, packed: Tensor, shape: torch.Size) -> Packed4:
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)

    def __init__(self, packed: Tensor, shape: torch.Size) -> None:
        self.packed = packed

    def __tensor_flatten__(self) -> tuple[list[str], torch.Size]:
        return ["packed"], self.shape

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any, kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].packed, args[0].shape)
        raise NotImplementedError(f"Packed4 {func}")


def holding(parameter: Any) -> nn.Module:
    model = nn.Module()
    model.w = parameter
    model.b = nn.Parameter(torch.ones(2))
    return model


KINDS: dict[str, Callable[[], nn.Module]] = {
    "wrapper": lambda: holding(
        nn.Parameter(Packed4(torch.zeros(8, 4, dtype=torch.uint8), torch.Size([8, 8])), requires_grad=False)
    ),
    "nested": lambda: holding(nn.Parameter(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))),
    "conj": lambda: holding(nn.Parameter(torch.ones(2, dtype=torch.complex64).conj())),
    "lazy": lambda: holding(nn.UninitializedParameter()),
}

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("wrapper", "float32 [8, 8]"),
        ("nested", "float32 nested"),
        ("conj", "complex64 [2]"),
        ("lazy", "uninit"),
    ],
)
def test_a_table_shows_each_kind(kind: str, told: str) -> None:
    assert told in repr(pyparam.walk(KINDS[kind]()))


@pytest.mark.parametrize("kind", KINDS)
def test_uninitialized_tells_of_the_others(kind: str) -> None:
    found = init.uninitialized(KINDS[kind]())
    assert "b" in found.reasons
    assert ("w" in found.certain) == (kind == "lazy")


def test_the_mark_is_found_under_a_conjugated_view() -> None:
    model = holding(nn.Parameter(torch.ones(2, dtype=torch.complex64).conj()))
    marked = init.to_empty(model, device="cpu")
    assert init.uninitialized(marked).certain == ["w", "b"]


NO_SHAPE = r"is not initialised yet and has no shape; run a forward pass first"
NESTED = r"is a nested tensor, which has no one shape; expected a plain tensor \(unbind\(\) gives its parts\)"
IS_LAZY = r"the parameter of a lazy module has no shape yet; run the module once first"
REFUSED: dict[str, tuple[str, Callable[[nn.Module], Any], str]] = {
    "initialize_": (
        "nested",
        lambda m: init.initialize_(m, {"*": init.ones_}, seed=0),
        f"parameter 'w' {NESTED}",
    ),
    "initialize_ keep": (
        "nested",
        lambda m: init.initialize_(m, {"b": init.ones_}, default="keep", seed=0),
        f"parameter 'w' {NESTED}",
    ),
    "initialize_ gpt2": (
        "nested",
        lambda m: init.initialize_(m, init.gpt2_rules(2), seed=0),
        f"parameter 'w' {NESTED}",
    ),
    "initialize_ gpt2 lazy": (
        "lazy",
        lambda m: init.initialize_(m, init.gpt2_rules(2), seed=0),
        f"parameter 'w': {IS_LAZY}",
    ),
    "kaiming_normal_": ("nested", lambda m: init.kaiming_normal_(m.w, seed=0), f"the tensor {NESTED}"),
    "kaiming_uniform_": ("lazy", lambda m: init.kaiming_uniform_(m.w, seed=0), IS_LAZY),
    "normal_": ("nested", lambda m: init.normal_(m.w, seed=0), f"the tensor {NESTED}"),
    "eye_": ("nested", lambda m: init.eye_(m.w), f"the tensor {NESTED}"),
    "orthogonal_": ("nested", lambda m: init.orthogonal_(m.w, seed=0), f"the tensor {NESTED}"),
    "sparse_": ("nested", lambda m: init.sparse_(m.w, 0.5, seed=0), f"the tensor {NESTED}"),
    "constant_": ("nested", lambda m: init.constant_(m.w, 1.0), f"the tensor {NESTED}"),
    "to_empty": ("lazy", lambda m: init.to_empty(m, device="cpu"), f"'w' {NO_SHAPE}"),
    "EMA": ("nested", lambda m: pyparam.EMA(m, 0.5), f"'w' {NESTED}"),
    "EMA lazy": ("lazy", lambda m: pyparam.EMA(m, 0.5), f"'w' {NO_SHAPE}"),
    "copy_": ("nested", lambda m: pyparam.copy_(m, m), f"'w' {NESTED}"),
    "copy_ lazy": ("lazy", lambda m: pyparam.copy_(m, m), f"'w' {NO_SHAPE}"),
    "load_": ("nested", lambda m: pyparam.load_(m, m.state_dict()), f"'w' {NESTED}"),
    "tie_": ("nested", lambda m: pyparam.tie_(m, "w", "b"), f"'w' {NESTED}"),
    "parameters_to_vector": (
        "nested",
        lambda m: pyparam.parameters_to_vector(m.parameters()),
        "parameter '0' is a nested tensor; expected a strided tensor",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_parameter_that_cannot_be_taken_is_named(name: str) -> None:
    kind, verb, words = REFUSED[name]
    model = KINDS[kind]()
    with pytest.raises(TypeError, match=f"^{name.split()[0]}: {words}"):
        verb(model)
    assert model.b.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["wrapper", "conj", "lazy"])
def test_what_is_kept_need_not_be_writable(kind: str) -> None:
    model = KINDS[kind]()
    init.initialize_(model, {"b": init.zeros_}, default="keep", seed=0)
    assert model.b.tolist() == [0.0, 0.0]


def test_a_tree_leaves_out_what_has_no_shape() -> None:
    figure = pyparam.plot(KINDS["lazy"](), "tree")
    words = " ".join(text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts])
    words += figure.axes[0].get_title(loc="left")
    assert "Module: 2 values" in words


def test_a_vector_of_nested_parameters_is_refused_before_autograd_asks_for_sizes() -> None:
    code = """
import torch, pyparam
from torch import nn
try:
    pyparam.parameters_to_vector([nn.Parameter(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))])
except TypeError as error:
    print(error)
"""
    # On its own: what was loaded before decides who asks first.
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(
        "parameters_to_vector: parameter '0' is a nested tensor; expected a strided tensor"
    )
