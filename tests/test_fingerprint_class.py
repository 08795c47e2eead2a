"""The class Fingerprint, what it refuses, and its op."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import weakref

import pytest
import reference_fingerprint as reference
import torch
from hashing import one
from torch import Tensor, nn
from torch.library import opcheck
from unreadable import UNREADABLE

import pyparam
from pyparam import Fingerprint, fingerprint

# --- the class ---------------------------------------------------------------------------------------------


def test_fingerprint_is_a_value() -> None:
    module = nn.Linear(3, 2)
    a, b = fingerprint(module), fingerprint(module)
    assert a == b
    assert hash(a) == hash(b)
    assert a != "something else"
    assert len(a) == 2
    assert a.names == ("weight", "bias")
    assert "weight" in a
    assert "missing" not in a
    assert dict(a) == {"weight": a["weight"], "bias": a["bias"]}
    assert repr(a) == f"Fingerprint({a.total}, 2 parameters)"
    assert repr(fingerprint([torch.ones(1)])).endswith("1 parameter)")
    assert len(a.total) == len(a["bias"]) == 32


def test_a_fingerprint_outlives_its_table_and_its_process() -> None:
    found = fingerprint(pyparam.walk(nn.Linear(3, 2)))
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert again == found
        assert dict(again) == dict(found)
        assert again.diff(found) == again.diverged == []


def test_diff_names_what_differs() -> None:
    a = {"x": torch.ones(3), "y": torch.ones(2), "z": torch.ones(1)}
    b = {"new": torch.ones(1), "y": torch.ones(2), "x": torch.zeros(3)}
    assert fingerprint(a).diff(fingerprint(b)) == ["x", "z", "new"]
    assert fingerprint(a).diff(fingerprint(dict(reversed(a.items())))) == []


def test_dict_round_trip_through_json() -> None:
    a = fingerprint(nn.Linear(3, 2))
    data = json.loads(json.dumps(a.to_dict()))
    back = Fingerprint.from_dict(data)
    assert back == a
    assert dict(back) == dict(a)
    assert back.names == a.names
    assert data["format"] == Fingerprint.format


def damaged(**changes: object) -> dict[str, object]:
    return {**fingerprint(nn.Linear(3, 2)).to_dict(), **changes}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (damaged(kind="other"), "expected kind 'pyparam.fingerprint', got 'other'"),
        (damaged(format=99), "format 99 is not the format 1 of this release"),
        (damaged(parameters=3), "'parameters' must map names to digits"),
        (damaged(parameters={"weight": "12"}), "'weight' must be 32 hexadecimal digits, got '12'"),
        (damaged(parameters={"weight": "zz" * 16}), "'weight' must be 32 hexadecimal digits"),
        (damaged(parameters={"weight": "00" * 16}), "the total does not belong to these parameters"),
        (damaged(total=None), "'total' must be 32 hexadecimal digits, got None"),
    ],
)
def test_from_dict_refuses(data: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fingerprint.from_dict(data)


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Fingerprint\.from_dict: expected a mapping, got int"):
        Fingerprint.from_dict(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Fingerprint\.diff: expected a Fingerprint, got dict"):
        fingerprint({}).diff({})  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no entry named 'b' in a fingerprint of 1"):
        fingerprint({"a": torch.ones(1)})["b"]
    names = pyparam._base.native._C.NameColumn(["a", "b"])
    with pytest.raises(ValueError, match="2 names need 32 bytes of digests; got 16"):
        pyparam._base.native._C.fingerprint_total(names, bytes(16))


# --- tensors that have no bytes to read --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", UNREADABLE)
def test_refused_by_name(kind: str) -> None:
    make, error, words = UNREADABLE[kind]
    with pytest.raises(error, match=rf"^fingerprint: parameter 'bad\.one' {words}"):
        fingerprint({"good": torch.ones(2), "bad.one": make()})


def test_nothing_is_kept_alive() -> None:
    tensor = torch.ones(3)
    before = sys.getrefcount(tensor)
    found = fingerprint([("x", tensor)])
    with pytest.raises(ValueError, match="meta"):
        fingerprint([("x", tensor), ("y", torch.ones(1, device="meta"))])
    assert sys.getrefcount(tensor) == before
    dead = weakref.ref(tensor)
    del tensor
    assert dead() is None
    assert found.names == ("x",)


def test_repeated_names_are_refused() -> None:
    table = pyparam.ParamTable(["a", "b", "a"], [torch.ones(1), torch.ones(1), torch.zeros(1)])
    with pytest.raises(ValueError, match="fingerprint: two parameters are named 'a'; names must be unique"):
        fingerprint(table)
    assert fingerprint(pyparam.ParamTable(["a", "b", ""], list(table.tensors))).names == ("a", "b", "")


def test_plain_subclasses_are_ordinary_tensors() -> None:
    class Plain(Tensor):
        pass

    assert one(torch.arange(5).as_subclass(Plain)) == one(torch.arange(5))


# --- the op ------------------------------------------------------------------------------------------------


def test_opcheck() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5, requires_grad=True), torch.empty(0), torch.randn(4, 3).t()]
    opcheck(torch.ops.pyparam.fingerprint.default, (tensors,))


def test_op_result() -> None:
    got = torch.ops.pyparam.fingerprint([torch.ones(3), torch.empty(0)])
    assert got.shape == (2, 2)
    assert got.dtype == torch.int64
    low, high = got[0].tolist()
    assert one(torch.ones(3)) == reference.digits((low % (1 << 64), high % (1 << 64)))
    assert torch.ops.pyparam.fingerprint([torch.ones(3, device="meta")]).is_meta


def test_op_under_compile_and_script() -> None:
    tensors = [torch.randn(3), torch.randn(2, 2)]

    def call(tensors: list[Tensor]) -> Tensor:
        return torch.ops.pyparam.fingerprint(tensors)

    want = call(tensors)
    assert torch.equal(torch.compile(call, fullgraph=True, backend="eager")(tensors), want)
    scripted = torch.jit.CompilationUnit(
        "def call(x: List[Tensor]):\n    return torch.ops.pyparam.fingerprint(x)\n"
    )
    assert torch.equal(scripted.call(tensors), want)


def test_op_refuses_other_backends_in_words() -> None:
    with pytest.raises(TypeError, match=r"fingerprint: tensors\[1\] is sparse \(layout Sparse\)"):
        torch.ops.pyparam.fingerprint([torch.ones(3), torch.ones(3).to_sparse()])
