"""Checkpoints whose tensors take memory of their own: listed by their headers, read some values at a time."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
import torch.distributed.checkpoint as dcp

import pyparam
from pyparam._compare import stream
from pyparam._sources import table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.stand_in import is_stand_in, value_of

gguf = pytest.importorskip("gguf")

# Saved without a process group, which torch says each time.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def weights(seed=0, layers=6):
    generator = torch.Generator().manual_seed(seed)
    made = {"embed.weight": torch.randn(16, 32, generator=generator)}
    for i in range(layers):
        made[f"blk.{i}.weight"] = torch.randn(32, 32, generator=generator)
        made[f"blk.{i}.bias"] = torch.randn(32, generator=generator)
    return made


def write_dcp(path, state):
    dcp.save(state, storage_writer=dcp.FileSystemWriter(path), no_dist=True)
    return path


def write_gguf(path, state):
    writer = gguf.GGUFWriter(path, "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in state.items():
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return path


@pytest.fixture(params=["dcp", "gguf"])
def path(request, tmp_path):
    return {"dcp": write_dcp, "gguf": write_gguf}[request.param](tmp_path / request.param, weights())


@pytest.fixture
def made(monkeypatch):
    """The values that checkpoints give, as weak references, and how many bytes of them lived at once."""
    living: list[weakref.ref] = []
    most = [0]
    give = Checkpoint.__getitem__

    def giving(self, name):
        tensor = give(self, name)
        living.append(weakref.ref(tensor))
        held = {id(t): t for ref in living if (t := ref()) is not None}
        most[0] = max(most[0], sum(t.nbytes for t in held.values()))
        return tensor

    monkeypatch.setattr(Checkpoint, "__getitem__", giving)
    return living, most


def test_show_ties_and_names_read_no_value(path, made, capsys):
    summary = pyparam.inspect(path)
    assert repr(summary)
    pyparam.show(path, memory=True)
    text = capsys.readouterr().out
    assert "6,848 values in 13 " in text
    assert "float32" in text
    assert "cpu" in text
    assert " meta " not in text
    assert pyparam.ties(path) == []
    table = table_of(path, values=False)
    assert table.select("*.bias").names == [f"blk.{i}.bias" for i in range(6)]
    assert made[0] == []


def test_an_inspector_gives_values(path):
    look, opened = pyparam.inspect(path), pyparam.open(path)
    assert torch.equal(look.blk[2].weight, opened["blk.2.weight"])
    assert torch.equal(look["blk.2.bias"], opened["blk.2.bias"])
    assert not any(tensor.is_meta for tensor in look.blk[1:3].parameters())
    named = dict(look.named_parameters())
    assert named.keys() == opened.keys()
    assert not any(tensor.is_meta for tensor in named.values())
    assert not any(tensor.is_meta for tensor in look.state_dict().values())
    assert pyparam.measure(look)["blk.0.weight"].mean == pyparam.measure(path)["blk.0.weight"].mean


def test_a_stand_in_is_refused_by_who_does_not_ask_for_its_value(path):
    table = table_of(path, values=False)
    assert all(map(is_stand_in, table.tensors))
    assert torch.equal(value_of(table["blk.0.bias"]), pyparam.open(path)["blk.0.bias"])
    with pytest.raises(ValueError, match=r"measure: parameter '.*' is on the meta device"):
        pyparam.measure(table)


def test_compare_reads_some_at_a_time(path, made, monkeypatch):
    whole = {name: tensor.clone() for name, tensor in pyparam.open(path).items()}
    made[0].clear()
    made[1][0] = 0
    changed = {**whole, "blk.3.weight": whole["blk.3.weight"] + 1, "blk.4.bias": whole["blk.4.bias"].half()}
    del changed["blk.5.bias"]
    changed["more"] = torch.zeros(2)
    monkeypatch.setattr(stream, "BATCH", 5000)
    for sides in ((path, changed), (changed, path)):
        found = pyparam.compare(*sides, atol=2.0)
        assert made[1][0] <= 5000
        expected = pyparam.compare(*(whole if side is path else side for side in sides), atol=2.0)
        assert sorted(found.names) == sorted(expected.names)
        assert sorted(found.missing) == sorted(expected.missing)
        assert sorted(found.unexpected) == sorted(expected.unexpected)
        assert [found[name] for name in expected.names] == [expected[name] for name in expected.names]
        assert found.recognised == expected.recognised
        assert found.accepted.keys() == expected.accepted.keys() == {"blk.3.weight"}
        assert not found.equal
    assert pyparam.compare(path, path).equal
    gc.collect()
    assert not any(ref() is not None for ref in made[0])  # nothing holds what was read


def test_structure_by_layouts_first(tmp_path, made):
    experts = {f"moe.experts.{i}.up.weight": torch.randn(4, 6) for i in range(5)}
    stacked = {"moe.experts.up": torch.stack([*experts.values()])}
    a, b = (write_dcp(tmp_path / name, state) for name, state in (("a", experts), ("b", stacked)))
    (found,) = pyparam.compare(a, b).structure
    assert found.kind == "stacked"
    assert found.equal
    assert made[1][0] <= 5 * 96 + 2 * 96


def test_what_a_distributed_checkpoint_holds_beside_tensors_counts(tmp_path):
    one, same, other = (
        write_dcp(tmp_path / name, {"model": weights(layers=1), "step": step, "lr": math.pi})
        for name, step in (("one", 1), ("same", 1), ("other", 2))
    )
    assert pyparam.compare(one, same).equal
    assert pyparam.fingerprint(one) == pyparam.fingerprint(same)
    found = pyparam.compare(one, other)
    assert not found.equal
    assert found.values_changed == {"step": (1, 2)}
    assert pyparam.fingerprint(one) != pyparam.fingerprint(other)


def test_a_part_stays_in_pieces(tmp_path):
    path = write_dcp(tmp_path / "run", {"model": weights(layers=1), "step": 1})
    opened = pyparam.open(path)
    part = opened.picked(["model.embed.weight"], ["embed.weight"], "model.")
    out = torch.empty(2, 3)
    part.read("embed.weight", (1, 4), (2, 3), out)
    assert torch.equal(out, opened["model.embed.weight"][1:3, 4:7])
    assert part.format == opened.format == "torch.distributed.checkpoint"
