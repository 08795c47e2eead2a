"""ParamTable: columns, indexing, selection, and what it keeps alive."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref

import pytest
import torch
from torch import nn

import pyparam
from pyparam._base.errors import named_errors
from pyparam._base.native import _C
from pyparam._sources import table_of


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), nn.Linear(3, 1))


NAMES = ["0.weight", "0.bias", "1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias", "2.weight", "2.bias"]


@pytest.fixture
def model():
    return net()


@pytest.fixture
def table(model):
    return table_of(model)


def test_a_table_keeps_names_order_and_identity():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    names, tensors = zip(*net.named_parameters(), strict=True)
    table = pyparam.ParamTable(names, tensors)
    assert table.names == list(names)
    assert len(table) == 4
    assert all(a is b for a, b in zip(table.tensors, net.parameters(), strict=True))
    assert torch.equal(dict(table)["1.bias"], net[1].bias)


def test_columns(model, table):
    assert table.names == NAMES
    assert table.attributes == ["weight", "bias"] * 4
    assert table.owners == [m for m in (model[0], model[1][0], model[1][1], model[2]) for _ in range(2)]
    assert [(name, id(tensor)) for name, tensor in table] == [(n, id(p)) for n, p in model.named_parameters()]


def test_columns_must_be_of_one_length():
    with pytest.raises(ValueError, match="names and tensors differ in length"):
        pyparam.ParamTable(["a"], [])


def test_no_owners_without_modules():
    table = table_of({"a.b": torch.ones(1)})
    assert table.owners == [None]
    assert table.attributes == ["b"]
    assert table.select("*").owners == [None]


def test_a_name_a_position_a_slice(model, table):
    assert table["1.0.bias"] is model[1][0].bias
    assert table[0] is model[0].weight
    assert table[-1] is model[2].bias
    assert table[2:4].names == ["1.0.weight", "1.0.bias"]
    assert table[::-1].names == NAMES[::-1]
    assert table[2:4].owners == [model[1][0]] * 2


def test_contains(table):
    assert "0.weight" in table
    assert "0" not in table
    assert 0 not in table


def test_a_missing_name_gives_close_ones(table):
    with pytest.raises(
        KeyError, match=r"no entry named '1\.0\.wieght' in a table of 8; close to it: '1\.0\.weight'"
    ):
        table["1.0.wieght"]
    with pytest.raises(KeyError, match=r"no entry named 'nothing like it' in a table of 8\"?$"):
        table["nothing like it"]


def test_a_missing_name_in_a_large_table_is_answered_soon():
    t = torch.ones(1)
    table = pyparam.ParamTable([f"layers.{i}.attention.query.weight" for i in range(50_000)], [t] * 50_000)
    with pytest.raises(KeyError, match=r"layers\.\d+\.attention\.query\.weight"):
        table["layers.7.atention.query.weight"]


@pytest.mark.parametrize("position", [8, -9])
def test_a_position_outside(table, position):
    with pytest.raises(IndexError, match=f"position {position} is outside a table of 8 entries"):
        table[position]


def test_an_index_of_another_kind(table):
    with pytest.raises(TypeError, match="indexed by a name, a position or a slice, not by a float"):
        table[1.5]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", NAMES),
        ("*.bias", ["0.bias", "1.0.bias", "1.1.bias", "2.bias"]),
        ("1.*.weight", ["1.0.weight", "1.1.weight"]),
        ("1*", ["1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"]),
        ("?.weight", ["0.weight", "2.weight"]),
        ("[02].weight", ["0.weight", "2.weight"]),
        ("[!0].weight", ["2.weight"]),
        ("weight", []),
        ("*.WEIGHT", []),
        ("", []),
        (re.compile(r"\.0\."), ["1.0.weight", "1.0.bias"]),
        (re.compile(r"^\d\.bias$"), ["0.bias", "2.bias"]),
        (lambda name, tensor: tensor.dim() == 2, ["0.weight", "1.0.weight", "2.weight"]),
        (["2.bias", "0.*"], ["0.weight", "0.bias", "2.bias"]),
        ([re.compile("^2"), lambda name, tensor: name == "0.bias"], ["0.bias", "2.weight", "2.bias"]),
        ([["0.bias"], ("2.bias",)], ["0.bias", "2.bias"]),
        ([], []),
    ],
)
def test_select(model, table, pattern, expected):
    selected = table.select(pattern)
    assert isinstance(selected, pyparam.ParamTable)
    assert selected.names == expected
    assert all(tensor is model.get_parameter(name) for name, tensor in selected)
    assert selected.owners == [model.get_submodule(name.rpartition(".")[0]) for name in expected]


def test_selections_chain(table):
    assert table.select("1.*").select("*.bias").names == ["1.0.bias", "1.1.bias"]


@pytest.mark.parametrize("pattern", [3, None, b"*", [3], torch.ones(2)])
def test_a_pattern_of_another_kind(table, pattern):
    with pytest.raises(
        TypeError, match="select: expected a glob, a compiled regular expression, a predicate"
    ):
        table.select(pattern)


def test_a_pattern_over_bytes(table):
    with pytest.raises(TypeError, match="a regular expression over bytes matches no name"):
        table.select(re.compile(b"x"))


def test_repr(table):
    assert repr(table) == "\n".join(
        [
            "ParamTable of 8 entries",
            "  0.weight    float32 [3, 2]",
            "  0.bias      float32 [3]",
            "  1.0.weight  float32 [3, 3]",
            "  1.0.bias    float32 [3]",
            "  1.1.weight  float32 [3]",
            "  1.1.bias    float32 [3]",
            "  ... 2 more",
        ]
    )
    assert repr(table[:1]) == "ParamTable of 1 entry\n  0.weight  float32 [3, 2]"
    assert repr(table[:0]) == "ParamTable of 0 entries"


def test_repr_of_a_lazy_parameter():
    assert repr(pyparam.ParamTable(["w"], [nn.UninitializedParameter()])).endswith("w  float32 uninitialized")


def test_equality_is_identity(model, table):
    assert table == table
    assert table != table_of(model)
    assert len({table, table_of(model)}) == 2


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_table_is_not_copied(table, copier):
    with pytest.raises(
        TypeError, match=r"cannot be pickled or copied; dict\(table\) gives a plain state dict"
    ):
        copier(table)


def test_a_table_does_not_keep_the_model():
    model = net()
    gone = weakref.ref(model)
    kept = weakref.ref(model[0])
    table = table_of(model)
    selected = table.select("0.*")
    assert selected.owners == [model[0]] * 2
    del model
    gc.collect()
    assert gone() is None
    assert kept() is None
    assert table.owners == [None] * 8
    assert selected.owners == [None] * 2
    assert table["0.weight"].shape == (3, 2)


def test_a_selection_does_not_keep_the_other_tensors():
    table = table_of({"a": torch.ones(1), "b": torch.ones(1)})
    other = weakref.ref(table["b"])
    selected = table.select("a")
    del table
    gc.collect()
    assert other() is None
    assert selected["a"].tolist() == [1]


def test_errors_of_an_op_speak_of_the_parameter(table):
    with pytest.raises(ValueError, match=r"flatten: parameter '1\.0\.weight' is sparse"), named_errors(table):
        raise ValueError("flatten: tensors[2] is sparse")


def test_names_as_a_tree_give_the_names():
    names = ["top", "a.w", "a.b.w", "a.b.v", "c.w"]
    tree = _C.name_tree(_C.ParamTable(names, [torch.zeros(1)] * len(names)))
    assert isinstance(tree, _C.NameTree)
    paths = [""]
    for parent, key in zip(tree.parents.tolist()[1:], tree.keys.tolist()[1:], strict=True):
        paths.append(f"{paths[parent]}{tree.strings[key]}.")
    attributes = [tree.strings[key] for key in tree.attributes.tolist()]
    assert [paths[owner] + key for owner, key in zip(tree.owners.tolist(), attributes, strict=True)] == names


def test_steps_of_histograms_add_up_to_their_bins():
    offsets = torch.tensor([0, 3, 3, 5])
    bins = torch.tensor([3, 4, 9, 6, 7], dtype=torch.int32)
    counts = torch.tensor([1, 2, 3, 4, 5])
    lengths, steps, merged = _C.histogram_steps(offsets, bins, counts, 1)
    assert lengths.tolist() == [3, 0, 1]
    assert steps.tolist() == [1, 1, 2, 3]  # 1, 2, 4 and 3
    assert merged.tolist() == [1, 2, 3, 9]
