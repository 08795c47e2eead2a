"""Tables of mapped files: made natively, and the same tensors that names give."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import dtypes
import pytest
import torch
from safetensors.torch import save_file

import pyparam
from pyparam import walk
from pyparam._share.ties import tie_sets
from pyparam._sources.mapped_table import MappedTable
from pyparam._sources.table import ParamTable

EVERY = [torch.bool, *dtypes.INTEGERS, *dtypes.FLOATS, *dtypes.FLOAT8, torch.complex64]


def state() -> dict[str, torch.Tensor]:
    made = {
        str(dtype): torch.arange(24, dtype=torch.uint8).repeat(8).view(dtype).clone()
        if dtype is not torch.bool
        else torch.tensor([True, False])
        for dtype in EVERY
    }
    made["empty"] = torch.empty(0, 3)
    made["scalar"] = torch.tensor(3.0)
    made["cube"] = torch.arange(24.0).view(2, 3, 4)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(state(), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride()) and torch.equal(
        a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)
    )


@pytest.mark.parametrize("shift", [0, 1, 4], ids="shifted by {}".format)
def test_a_table_has_what_the_names_give(path: Path, tmp_path: Path, shift: int) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    moved = tmp_path / "moved.safetensors"
    # Spaces after the header shift every tensor, so that few are aligned.
    moved.write_bytes(
        (length + shift).to_bytes(8, "little") + data[8 : 8 + length] + b" " * shift + data[8 + length :]
    )
    by_name = pyparam.open(moved)
    table = walk(pyparam.open(moved))
    assert table.names == list(by_name)
    for name, tensor in table:
        assert same_bits(tensor, by_name[name]), name
        assert same_bits(tensor, state()[name]), name
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        assert not tensor.requires_grad
        assert type(tensor) is torch.Tensor


def test_a_name_gives_the_object_of_a_table_that_is_held(path: Path) -> None:
    checkpoint = pyparam.open(path)
    before = checkpoint["cube"]
    table = walk(checkpoint)
    assert table["cube"] is before
    assert checkpoint["scalar"] is table["scalar"]
    assert walk(checkpoint)["scalar"] is table["scalar"]


def test_a_write_is_seen_by_every_holder_and_no_page_of_it_is_dropped(path: Path) -> None:
    checkpoint = pyparam.open(path)
    table = walk(checkpoint)
    table["cube"].zero_()
    assert not checkpoint["cube"].any()
    pyparam.measure(checkpoint), pyparam.fingerprint(checkpoint)
    assert not table["cube"].any()
    assert pyparam.open(path)["cube"].any()


def test_tensors_keep_the_map_and_the_checkpoint_keeps_no_table(path: Path) -> None:
    checkpoint = pyparam.open(path)
    table = walk(checkpoint)
    tensor, gone = table["cube"], weakref.ref(table)
    del table
    gc.collect()
    assert gone() is None
    checkpoint.close()
    del checkpoint
    gc.collect()
    assert torch.equal(tensor, state()["cube"])


def test_a_closed_checkpoint_makes_no_table(path: Path) -> None:
    checkpoint = pyparam.open(path)
    checkpoint.close()
    with pytest.raises(ValueError, match=r"a\.safetensors is closed"):
        walk(checkpoint)


def test_shards_are_rows_of_one_table(tmp_path: Path) -> None:
    import json

    shards = {f"model-{i}-of-2.safetensors": {f"{i}.a": torch.full((3,), float(i))} for i in (1, 2)}
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name)
    names = {key: name for name, tensors in shards.items() for key in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    table = walk(pyparam.open(tmp_path))
    assert {name: tensor.tolist() for name, tensor in table} == {"1.a": [1.0] * 3, "2.a": [2.0] * 3}


def test_tied_names_of_a_file_are_two_tensors_over_the_same_bytes(tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.a = torch.nn.Parameter(torch.ones(4))
    model.b = model.a
    pyparam.save_file(model, tmp_path / "tied.safetensors")
    table = walk(pyparam.open(tmp_path / "tied.safetensors"))
    assert table["a"] is not table["b"]
    assert table["a"].data_ptr() == table["b"].data_ptr()
    assert [tie.names for tie in pyparam.ties(tmp_path / "tied.safetensors")] == [("a", "b")]


# --- without tensors -----------------------------------------------------------------------------------------


def moved(path: Path, to: Path, shift: int) -> Path:
    """The same file with spaces behind its header, so that few tensors are aligned."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    to.write_bytes((length + shift).to_bytes(8, "little") + header + b" " * shift + rest)
    return to


@pytest.mark.parametrize("shift", [0, 1, 4], ids="shifted by {}".format)
def test_rows_say_what_their_tensors_say(path: Path, tmp_path: Path, shift: int) -> None:
    checkpoint = pyparam.open(moved(path, tmp_path / "moved.safetensors", shift))
    rows, tensors = checkpoint.table(), ParamTable(list(checkpoint), list(checkpoint.values()))
    assert isinstance(rows, MappedTable)
    (a, b) = rows._layout_kinds(), tensors._layout_kinds()
    assert torch.equal(a.kind_of, b.kind_of)
    assert (a.first, a.odd) == (b.first, b.odd)
    a, b = rows._name_tree(), tensors._name_tree()
    assert torch.equal(a.owners, b.owners)
    assert a.strings == b.strings
    sets = rows._apart_sets()
    assert (sets is None) == (shift > 0)  # what is not aligned is copied, by whoever asks
    if sets is not None:
        expected = tie_sets(tensors)
        for column in ("group", "layout", "bytes"):
            assert torch.equal(getattr(sets, column), getattr(expected, column)), column
    found, wanted = pyparam.measure(rows, histogram=True), pyparam.measure(tensors, histogram=True)
    assert torch.equal(found._values.view(torch.int64), wanted._values.view(torch.int64))
    assert torch.equal(found._counts, wanted._counts)
    assert all(torch.equal(x, y) for x, y in zip(found._bins or (), wanted._bins or (), strict=True))
    assert (found.shape, found.dtype, found.device) == (wanted.shape, wanted.dtype, wanted.device)


@pytest.fixture
def without_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(table: MappedTable) -> None:
        raise AssertionError("somebody asked for all tensors of a file")

    monkeypatch.setattr(MappedTable, "_native", property(asked))


@pytest.mark.usefixtures("without_all")
def test_what_makes_no_tensor_a_name(tmp_path: Path) -> None:
    values = torch.Generator().manual_seed(0)
    tensors = {
        f"layers.{i}.{name}": torch.randn(shape, generator=values)
        for i in range(6)
        for name, shape in (("weight", (4, 4)), ("bias", (4,)), ("none", (0,)))
    }
    save_file(tensors, tmp_path / "a.safetensors")
    checkpoint = pyparam.open(tmp_path / "a.safetensors")
    table = checkpoint.table()
    assert len(table) == 18
    assert pyparam.measure(checkpoint, quantiles=(0.5,)).total.numel == 6 * 20
    assert pyparam.ties(checkpoint) == []
    assert pyparam.findings(checkpoint) == []
    assert pyparam.report(checkpoint, tmp_path / "a.html").findings == ()
    assert pyparam.compare(checkpoint, pyparam.open(checkpoint.path)).equal
    other = {f"net.{name}": tensor * 2 if "3.w" in name else tensor for name, tensor in tensors.items()}
    other["net.layers.4.bias"] = torch.zeros(2, 2)
    assert pyparam.compare(checkpoint, other, rename_b="net.").changed() == [
        "layers.3.weight",
        "layers.4.bias",
    ]
    some = table._take([0, 17])
    assert [tuple(some._tensor(i).shape) for i in (0, 1)] == [
        tuple(tensors[name].shape) for name in some.names
    ]


@pytest.mark.parametrize("shift", [0, 1], ids="shifted by {}".format)
def test_rows_compare_as_their_tensors(tmp_path: Path, shift: int) -> None:
    many = 5000  # more than are made at once
    values = torch.randn(many, 3, generator=torch.Generator().manual_seed(0))
    made = {str(i): values[i].clone() for i in range(many)} | state()
    save_file(made, tmp_path / "a.safetensors")
    other = dict(made)
    other["7"] = other["7"].double()
    other["11"] = other["11"][:2]
    for i in range(0, many, 9):
        other[str(i)] = other[str(i)] + 1
    checkpoint = pyparam.open(moved(tmp_path / "a.safetensors", tmp_path / "b.safetensors", shift))
    found = pyparam.compare(checkpoint, dict(reversed(other.items())))
    wanted = pyparam.compare(dict(checkpoint), dict(reversed(other.items())))
    assert len(wanted.changed()) == 558
    assert found.to_dict() == wanted.to_dict()
    for column in ("_values", "_counts", "_sizes", "_ends"):
        assert torch.equal(getattr(found, column), getattr(wanted, column)), column
    assert pyparam.compare(other, checkpoint).to_dict() == pyparam.compare(other, dict(checkpoint)).to_dict()


def test_a_written_copy_of_what_is_not_aligned_is_compared(path: Path, tmp_path: Path) -> None:
    checkpoint = pyparam.open(moved(path, tmp_path / "moved.safetensors", 1))
    table = checkpoint.table()
    cube = table["cube"]
    cube.zero_()
    assert pyparam.compare(checkpoint, path).changed() == ["cube"]


def test_a_row_gives_one_object_before_and_after_all_are_made(path: Path) -> None:
    table = pyparam.open(path).table()
    cube = table["cube"]
    assert table["cube"] is cube
    assert dict(table)["cube"] is cube
    assert table["cube"] is cube
    kept = walk(pyparam.open(path))
    cube = kept["cube"]
    assert kept[list(kept.names).index("cube")] is cube
    assert kept.tensors[kept.names.index("cube")] is cube
    del kept
    torch.utils.swap_tensors(cube, torch.zeros(2, 3, 4))  # which nobody else holds
    assert not cube.any()


def test_a_taken_table_has_the_objects_that_were_held(path: Path) -> None:
    table = pyparam.open(path).table()
    cube = table["cube"]
    some = table._take([table.names.index("cube"), 0])
    assert some.names == ["cube", table.names[0]]
    assert some["cube"] is cube
    assert same_bits(some[1], table[0])
