"""Checkpoints in several files: directories and indices."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import pyparam
from pyparam._sources.checkpoint import CheckpointWarning


def sharded(directory, weight_map, **tensors):
    """Writes one safetensors file a value of ``weight_map``, and the index."""
    for shard in set(weight_map.values()):
        held = {
            name: tensors.get(name, torch.ones(1)) for name, where in weight_map.items() if where == shard
        }
        save_file(held, directory / shard)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("how", ["directory", "index"])
def test_sharded_safetensors(tmp_path, how):
    weight_map = {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}
    index = sharded(tmp_path, weight_map, a=torch.arange(3), b=torch.arange(4))
    opened = pyparam.open(tmp_path if how == "directory" else index)
    assert list(opened) == ["b", "a"]
    assert opened["a"].tolist() == [0, 1, 2]
    assert opened["b"].tolist() == [0, 1, 2, 3]
    assert opened.byte_range("a").file == tmp_path / weight_map["a"]
    assert sorted(opened.files) == sorted(tmp_path / shard for shard in weight_map.values())
    assert opened.metadata == {"total_size": 8}
    assert "2 tensors, 56 B, 2 files" in repr(opened)


def test_sharded_bin(tmp_path):
    for i in (1, 2):
        torch.save({f"w{i}": torch.full((2,), i)}, tmp_path / f"pytorch_model-0000{i}-of-00002.bin")
    weight_map = {f"w{i}": f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    opened = pyparam.open(tmp_path)
    assert {name: tensor.tolist() for name, tensor in opened.items()} == {"w1": [1, 1], "w2": [2, 2]}


def test_shards_linked_from_elsewhere(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    index = sharded(tmp_path / "blobs", {"a": "model-00001-of-00001.safetensors"})
    for file in (index, tmp_path / "blobs" / "model-00001-of-00001.safetensors"):
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    assert list(pyparam.open(tmp_path / "snapshot")) == ["a"]


def test_an_entry_the_index_leaves_out_is_left_out(tmp_path):
    index = sharded(tmp_path, {"a": "x.safetensors", "b": "x.safetensors"})
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    with pytest.warns(CheckpointWarning, match=r"leaves out what its files hold, .*: 'b' in x\.safetensors"):
        assert list(pyparam.open(index)) == ["a"]


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("gone.safetensors", r"puts entry 'a' in 'gone\.safetensors', which is missing"),
        ("../x.safetensors", r"'\.\./x\.safetensors', which is outside the directory of the index"),
        ("sub/../../x.safetensors", r"which is outside the directory"),
        ("..\\x.safetensors", r"which is outside the directory"),
        ("/etc/passwd", r"'/etc/passwd', which is outside the directory"),
        ("C:\\x.safetensors", r"which is outside the directory"),
        ("", r"'', which is no file name"),
        ("a\0b", r"which is no file name"),
        (3, r"in 3, which is no file name"),
        (None, r"in None, which is no file name"),
        (".", r"which is missing"),
    ],
)
def test_an_index_that_names_a_file_it_may_not(tmp_path, shard, message):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    inner = tmp_path / "inner"
    inner.mkdir()
    index = inner / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match=message) as raised:
        pyparam.open(index)
    assert str(index) in str(raised.value)


def test_an_index_that_lists_what_the_file_lacks(tmp_path):
    index = sharded(tmp_path, {"a": "x.safetensors"})
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}}))
    with pytest.raises(ValueError, match=r"lists entry 'b' in x\.safetensors, which does not hold it"):
        pyparam.open(index)


def test_an_index_that_names_itself(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(ValueError, match="is an index itself"):
        pyparam.open(index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an index of a checkpoint: Expecting"),
        ("[]", "has no weight_map"),
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "two entries are named 'a'"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_index(tmp_path, text, message):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        pyparam.open(index)
    assert str(index) in str(raised.value)


def test_a_directory_with_one_file(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "anything.safetensors")
    (tmp_path / "config.json").write_text("{}")
    opened = pyparam.open(tmp_path)
    assert list(opened) == ["a"]


def test_a_directory_prefers_safetensors(tmp_path):
    torch.save({"bin": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    save_file({"safe": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(pyparam.open(tmp_path)) == ["safe"]


def test_numbered_parts_without_an_index(tmp_path):
    for i in (1, 2):
        save_file({f"w{i}": torch.ones(i)}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    assert list(pyparam.open(tmp_path)) == ["w1", "w2"]
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold one checkpoint with all its parts"):
        pyparam.open(tmp_path)


def test_numbered_parts_that_repeat_an_entry(tmp_path):
    for i in (1, 2):
        save_file({"w": torch.ones(i)}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    with pytest.raises(ValueError, match="two files hold an entry named 'w'"):
        pyparam.open(tmp_path)


def test_a_directory_with_several(tmp_path):
    for name in "ab":
        save_file({"w": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        ValueError, match=r"holds several checkpoints \(a\.safetensors, b\.safetensors\): open one"
    ):
        pyparam.open(tmp_path)


def test_a_directory_with_none(tmp_path):
    with pytest.raises(ValueError, match="is a directory without a checkpoint") as raised:
        pyparam.open(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_distributed_checkpoint(tmp_path):
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"cannot be read as a distributed checkpoint: .*the pickle is truncated"
    ):
        pyparam.open(tmp_path)


def test_a_transformers_model_in_shards(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=100
    )
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    opened = pyparam.open(tmp_path)
    state = model.state_dict()
    assert set(opened) == set(state)
    assert all(torch.equal(opened[name], state[name]) for name in state)
