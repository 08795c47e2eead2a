"""``table_of``: every kind of source becomes a table; what is none is refused, with what to pass instead."""

from __future__ import annotations

import collections
import pathlib

import numpy as np
import pytest
import torch
from reference_sources import assert_same_entries
from safetensors.torch import save_file
from torch import nn

import pyparam
from pyparam._base.native import _C
from pyparam._sources import table_of


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 3)
        self.head.weight = nn.Parameter(torch.ones(3, 3))
        self.again = self.head

    def forward(self, x):
        return self.again(self.head(self.body(x)))


# --- modules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remove_duplicate", [True, False])
def test_a_module(remove_duplicate):
    net = Net()
    table = table_of(net, remove_duplicate=remove_duplicate)
    assert_same_entries(table, net.named_parameters(remove_duplicate=remove_duplicate))
    assert len(table) == (6 if remove_duplicate else 8)


def test_buffers_of_a_module():
    net = Net()
    table = table_of(net, buffers=True)
    assert set(table.names) == {name for name, _ in [*net.named_parameters(), *net.named_buffers()]}
    assert table["body.1.running_mean"] is net.body[1].running_mean


def test_owners_of_a_module():
    net = Net()
    table = table_of(net)
    assert dict(zip(table.names, table.owners, strict=True))["body.0.bias"] is net.body[0]


# --- tables and the protocol -------------------------------------------------------------------------------


def test_a_table_is_itself():
    table = table_of(Net())
    assert table_of(table) is table


def test_any_object_may_give_a_table():
    class Inspected:
        def __init__(self, net):
            self.net = net

        def __pyparam_table__(self, *, buffers, remove_duplicate):
            return table_of(self.net, buffers=buffers, remove_duplicate=remove_duplicate)

    net = Net()
    assert_same_entries(table_of(Inspected(net)), net.named_parameters())
    assert "body.1.running_var" in table_of(Inspected(net), buffers=True)


def test_the_protocol_must_give_a_table():
    class Wrong:
        def __pyparam_table__(self, *, buffers, remove_duplicate):
            return {}

    with pytest.raises(
        TypeError, match=r"Wrong\.__pyparam_table__ must return a ParamTable, it returned a dict"
    ):
        table_of(Wrong())


# --- mappings ----------------------------------------------------------------------------------------------


def test_a_state_dict_lists_tied_names_too():
    net = Net()
    state = net.state_dict()
    table = table_of(state)
    assert_same_entries(table, state.items())
    assert "again.weight" in table


def test_a_state_dict_with_parameters_keeps_them():
    state = Net().state_dict(keep_vars=True)
    assert_same_entries(table_of(state), state.items())


def test_nested_mappings_have_dotted_names():
    t = [torch.full((1,), i) for i in range(6)]
    nested = {
        "model": collections.OrderedDict([("a.weight", t[0]), ("b", {"bias": t[1]})]),
        "ema": [t[2], (t[3],)],
        "optimizer": {"state": {0: {"exp_avg": t[4], "step": 7}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "name": "x",
        "nothing": None,
        "last": t[5],
    }
    table = table_of(nested)
    assert table.names == [
        "model.a.weight", "model.b.bias", "ema.0", "ema.1.0", "optimizer.state.0.exp_avg", "last",
    ]  # fmt: skip
    assert all(ours is theirs for ours, theirs in zip(table.tensors, t, strict=True))


def test_empty_mappings():
    assert len(table_of({})) == 0
    assert len(table_of({"a": {}, "b": []})) == 0


def test_a_deep_mapping():
    nested: dict = {"w": torch.ones(1)}
    for _ in range(20_000):
        nested = {"x": nested}
    assert table_of(nested).names == ["x." * 20_000 + "w"]


def test_a_mapping_that_holds_itself():
    loop: dict = {"w": torch.ones(1)}
    loop["inner"] = [loop]
    with pytest.raises(ValueError, match="a dict holds itself, so its entries have no end"):
        table_of(loop)


def test_a_mapping_that_unfolds_without_end():
    shared: list = [torch.ones(1)]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(ValueError, match=r"shared containers unfold to \d+ names"):
        table_of({"a": shared})


def test_a_part_shared_by_two_names_is_listed_under_both():
    part = {"w": torch.ones(1)}
    assert table_of({"a": part, "b": part}).names == ["a.w", "b.w"]


def test_two_nested_entries_with_one_name():
    with pytest.raises(
        ValueError, match=r"two entries are named 'a\.b' once nested names are joined by dots"
    ):
        table_of({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}})


@pytest.mark.parametrize("key", [("a", "b"), None, 1.5, True])
def test_a_key_that_is_no_name(key):
    with pytest.raises(TypeError, match="names are strings or integers; got the key") as raised:
        table_of({"outer": {key: torch.ones(1)}})
    assert f"of type {type(key).__name__} below 'outer'" in str(raised.value)


def test_keys_do_not_matter_where_there_are_no_tensors():
    assert table_of({"a": torch.ones(1), "config": {(1, 2): 3}, None: 4}).names == ["a"]


def test_a_numpy_array_is_not_passed_over():
    with pytest.raises(TypeError, match=r"entry 'a\.b' is a numpy array: wrap it with torch\.from_numpy"):
        table_of({"a": {"b": np.ones(2), "t": torch.ones(1)}})


def test_a_module_inside_a_mapping_is_not_passed_over():
    with pytest.raises(TypeError, match=r"entry 'generator' is a module \(Linear\): pass the module, or its"):
        table_of({"generator": nn.Linear(1, 1)})


def test_a_name_that_is_not_text_stays_as_it_is():
    assert table_of({"\ud800": torch.ones(1)}).names == ["\ud800"]


# --- iterables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [list, tuple, iter, lambda items: (item for item in items)])
def test_tensors_are_named_by_position(wrap):
    tensors = [torch.ones(1), torch.zeros(2), torch.ones(1)]
    assert_same_entries(table_of(wrap(tensors)), [("0", tensors[0]), ("1", tensors[1]), ("2", tensors[2])])


def test_a_tensor_may_stand_twice_in_a_list():
    t = torch.ones(1)
    assert_same_entries(table_of([t, t]), [("0", t), ("1", t)])


def test_iterators_of_a_model():
    net = Net()
    assert_same_entries(table_of(net.named_parameters()), net.named_parameters())
    assert [t is p for t, p in zip(table_of(net.parameters()).tensors, net.parameters(), strict=True)] == [
        True
    ] * 6
    assert_same_entries(
        table_of(net.state_dict(keep_vars=True).items()), net.state_dict(keep_vars=True).items()
    )


def test_pairs_may_be_lists():
    t = torch.ones(1)
    assert_same_entries(table_of([["a", t]]), [("a", t)])


@pytest.mark.parametrize("empty", [[], (), iter(())])
def test_empty_iterables(empty):
    assert len(table_of(empty)) == 0


def test_two_pairs_with_one_name():
    with pytest.raises(ValueError, match="two entries are named 'a'"):
        table_of([("a", torch.ones(1)), ("a", torch.ones(1))])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([torch.ones(1), 3], r"entry 1 is of type int; expected a tensor or a \(name, tensor\) pair"),
        ([None], r"entry 0 is None"),
        ([np.ones(1)], r"entry 0 is of type ndarray"),
        ([nn.Linear(1, 1)], r"entry 0 is a module \(Linear\)"),
        ([{"params": []}], r"entry 0 is an optimizer's parameter group \(pass its \['params'\]\)"),
        ([("a", 3)], r"entry 'a' is of type int; expected a tensor"),
        ([("a", None)], r"entry 'a' is None; expected a tensor"),
        ([(torch.ones(1), "a")], r"entry 0 is of type tuple"),
        ([("a", torch.ones(1)), torch.ones(1)], r"entry 1 is a tensor after pairs"),
        ([torch.ones(1), ("a", torch.ones(1))], r"entry 1 is a pair after tensors"),
        ("ab", None),
    ],
)
def test_an_item_that_is_no_tensor(items, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if message is None:
        with pytest.raises(FileNotFoundError):  # text is a path
            table_of(items)
        return
    with pytest.raises(TypeError, match=message):
        table_of(items)


# --- paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_path(tmp_path, kind):
    save_file({"a": torch.arange(3)}, tmp_path / "x.safetensors")
    table = table_of(kind(tmp_path / "x.safetensors"))
    assert table.names == ["a"]
    assert table["a"].tolist() == [0, 1, 2]


def test_a_checkpoint(tmp_path):
    save_file({"a": torch.arange(3), "b": torch.ones(1)}, tmp_path / "x.safetensors")
    checkpoint = pyparam.open(tmp_path / "x.safetensors")
    table = table_of(checkpoint)
    assert table.names == list(checkpoint)
    assert table["a"] is checkpoint["a"]


# --- exported programs -------------------------------------------------------------------------------------


def test_an_exported_program_keeps_ties():
    program = torch.export.export(Net(), (torch.randn(2, 2),))
    table = table_of(program)
    assert_same_entries(table, program.named_parameters())
    assert_same_entries(
        table_of(program, buffers=True), [*program.named_parameters(), *program.named_buffers()]
    )


# --- what is none ------------------------------------------------------------------------------------------


def test_a_single_tensor():
    with pytest.raises(
        TypeError, match=r"a single Tensor is no source, .* would give its rows: pass \[tensor\]"
    ):
        table_of(torch.ones(2))
    with pytest.raises(TypeError, match="a single Parameter is no source"):
        table_of(nn.Parameter(torch.ones(2)))


def test_a_class():
    with pytest.raises(TypeError, match="the class Net is no source: pass an instance of it"):
        table_of(Net)


@pytest.mark.parametrize("source", [None, 3, b"path", object(), len])
def test_anything_else(source):
    with pytest.raises(
        TypeError, match=f"an? {type(source).__name__} is no source of parameters: expected an nn.Mod"
    ):
        table_of(source)


def test_errors_of_the_source_itself_pass_through():
    def broken():
        yield torch.ones(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        table_of(broken())


class Told(nn.Linear):
    """A module that says itself what its table is."""

    def __pyparam_table__(self, *, buffers: bool, remove_duplicate: bool) -> pyparam.ParamTable:
        return pyparam.ParamTable(["told"], [self.weight])


class Named(str, nn.Module):
    def __init__(self, text: str) -> None:
        nn.Module.__init__(self)


def test_a_module_that_is_another_source_too_is_taken_as_that_one(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "saved.safetensors")

    class Path(nn.Linear):
        def __fspath__(self) -> str:
            return str(tmp_path / "saved.safetensors")

    assert table_of(Told(1, 1)).names == ["told"]
    assert table_of(Path(1, 1)).names == ["x"]
    assert table_of(Named(tmp_path / "saved.safetensors")).names == ["x"]
    assert table_of(nn.Linear(1, 1)).names == ["weight", "bias"]


def test_a_class_that_becomes_another_source_is_seen_to():
    class Late(nn.Linear):
        pass

    module = Late(1, 1)
    assert table_of(module).names == ["weight", "bias"]
    Late.__pyparam_table__ = Told.__pyparam_table__
    assert table_of(module).names == ["told"]
    del Late.__pyparam_table__
    assert table_of(module).names == ["weight", "bias"]


def test_other_kinds_are_classes():
    with pytest.raises(TypeError, match=r"^set_other_kinds: expected classes, got 'str'$"):
        _C.set_other_kinds(("str",))
    assert table_of(nn.Linear(1, 1)).names == ["weight", "bias"]
