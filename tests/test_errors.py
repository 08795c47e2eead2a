"""Errors in the caller's words."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pyparam
from pyparam._base.errors import Reworded, named_errors, spoken_by


def test_words_change_and_the_kind_stays() -> None:
    table = pyparam.ParamTable(["a", "b"], [torch.ones(1), torch.ones(1)])
    with (
        pytest.raises(TypeError, match="^mine: parameter 'b' is sparse, not like parameter 'a'$") as caught,
        spoken_by("mine", "op"),
        named_errors(table),
    ):
        raise TypeError("op: tensors[1] is sparse, not like tensors[0]")
    assert caught.value.__suppress_context__


def test_other_kinds_and_other_words_go_through_untouched() -> None:
    same = ValueError("nothing to change")
    with pytest.raises(ValueError, match="nothing") as caught, Reworded(lambda words: words):
        raise same
    assert caught.value is same
    with pytest.raises(KeyError, match=r"tensors\[0\]"), Reworded(lambda words: "changed"):
        raise KeyError("tensors[0]")


def on_meta(tensor: torch.Tensor) -> Any:
    return {"x": tensor, "y": torch.ones(2, device="meta")}


def without_memory(tensor: torch.Tensor) -> Any:
    tensor.untyped_storage().resize_(0)
    return {"x": tensor}


@pytest.mark.parametrize(
    "verb",
    [
        lambda x: pyparam.measure(without_memory(x)),
        lambda x: pyparam.fingerprint(on_meta(x)),
        lambda x: pyparam.compare([("x", x), ("x", x)], [x]),
        lambda x: pyparam.total_norm(on_meta(x)),
        lambda x: pyparam.flatten({"x": x, "y": torch.eye(2).to_sparse()}),
        lambda x: pyparam.parameters_to_vector([x, torch.eye(2).to_sparse()]),
    ],
    ids=["measure", "fingerprint", "compare", "total_norm", "flatten", "parameters_to_vector"],
)
def test_a_refusal_keeps_no_tensor_alive(verb: Callable[[torch.Tensor], Any]) -> None:
    # The collector is off: what only it would find is a cycle, and holds a model's memory meanwhile.
    gc.collect()
    gc.disable()
    try:
        tensor = torch.ones(2)
        alive = weakref.ref(tensor)
        try:
            verb(tensor)
        except (TypeError, ValueError):
            pass
        else:
            pytest.fail("was not refused")
        del tensor
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:.*measure")
def test_what_measure_leaves_out_keeps_no_tensor_alive() -> None:
    gc.collect()
    gc.disable()
    try:
        tensor = torch.ones(2)
        alive = weakref.ref(tensor)
        stats = pyparam.measure(on_meta(tensor))
        del tensor
        assert list(stats.unread) == ["y"]
        assert alive() is None
    finally:
        gc.enable()
