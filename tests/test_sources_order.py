"""Names in natural order where a file has none of its own, and what a directory or a header says besides."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from torch import nn

import pyparam
from pyparam._sources.checkpoint import CheckpointWarning
from pyparam._sources.order import natural, natural_key


def blocks(count=12):
    return {f"h.{i}.{name}": torch.full((2,), float(i)) for i in range(count) for name in ("bias", "weight")}


def test_natural_order():
    names = ["b.10", "b.9", "a2b10", "a2b9", "a10", "", "c", "b.09", "9", "10"]
    assert natural(names) == ["", "9", "10", "a2b9", "a2b10", "a10", "b.9", "b.09", "b.10", "c"]


def test_blocks_of_a_safetensors_file_come_in_order(tmp_path):
    save_file(blocks(), tmp_path / "x.safetensors")
    opened = pyparam.open(tmp_path / "x.safetensors")
    assert list(opened) == list(blocks())
    assert all(torch.equal(opened[name], tensor) for name, tensor in blocks().items())
    assert pyparam.measure(opened).names == list(blocks())


def test_an_order_that_somebody_chose_is_kept(tmp_path):
    header = {f"{n}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate("cab")}
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"123")
    assert list(pyparam.open(tmp_path / "x.safetensors")) == ["c", "a", "b"]


def test_blocks_of_an_index_come_in_order(tmp_path):
    names = list(blocks())
    for part, some in enumerate((names[:10], names[10:])):
        save_file({name: blocks()[name] for name in some}, tmp_path / f"{part}.safetensors")
    weight_map = {name: f"{int(i >= 10)}.safetensors" for i, name in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}, sort_keys=True))
    assert list(pyparam.open(index)) == names
    reverse = dict(reversed(weight_map.items()))
    index.write_text(json.dumps({"weight_map": reverse}))
    assert list(pyparam.open(index)) == list(reverse)


def test_a_variants_index(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.fp16-00001-of-00001.safetensors")
    index = tmp_path / "model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.fp16-00001-of-00001.safetensors"}}))
    assert list(pyparam.open(index)) == list(pyparam.open(tmp_path)) == ["a"]


def test_one_file_beside_an_index(tmp_path):
    save_file({"whole": torch.ones(1)}, tmp_path / "model.safetensors")
    save_file({"part": torch.ones(1)}, tmp_path / "x.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"part": "x.safetensors"}}))
    with pytest.warns(
        CheckpointWarning, match=r"holds both model\.safetensors and .*: model\.safetensors is read"
    ):
        assert list(pyparam.open(tmp_path)) == ["whole"]
    assert list(pyparam.open(index)) == ["part"]


def test_metadata_that_names_tensors_by_chance(tmp_path):
    tensors = {str(i): torch.full((4,), float(i)) for i in range(3)}
    metadata = {"format": "pt", "epoch": "2", "layer": "1"}
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    opened = pyparam.open(tmp_path / "x.safetensors")
    assert list(opened) == ["0", "1", "2"]
    assert opened.metadata == metadata
    assert pyparam.fingerprint(opened) == pyparam.fingerprint(tensors)


def test_ties_that_save_model_wrote(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(3, 2)
            self.head = nn.Linear(2, 3, bias=False)
            self.head.weight = self.embed.weight
            self.weight = self.embed.weight

    save_model(Model(), tmp_path / "x.safetensors", metadata={"base": "embed.weight"})
    opened = pyparam.open(tmp_path / "x.safetensors")
    assert sorted(opened) == ["embed.weight", "head.weight", "weight"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Repository not found\nsee https://x", r"is text, .* it begins with 'Repository not found'"),
        (b'{"error": "gated"}', r"is text, .* it begins with '\{\"error\": \"gated\"\}'"),
        ("\ufeffnicht gefunden: ß".encode(), r"is text, .* it begins with 'nicht gefunden: ß'"),
        (b"\n <!doctype html><html>", r"is a web page, .* it begins with '<!doctype html>"),
        (b"\x00" * 20, r"is not a valid safetensors file"),
    ],
)
def test_a_text_under_the_name_of_safetensors(tmp_path, content, message):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        pyparam.open(tmp_path / "x.safetensors")


def test_every_dtype_that_safetensors_writes_is_written(tmp_path):
    from safetensors.torch import _SIZE

    state = {str(dtype): torch.zeros(16, dtype=torch.uint8).view(dtype) for dtype in _SIZE}
    pyparam.save_file(state, tmp_path / "x.safetensors")
    opened = pyparam.open(tmp_path / "x.safetensors")
    assert {name: tensor.dtype for name, tensor in opened.items()} == {
        name: tensor.dtype for name, tensor in state.items()
    }


def test_what_a_file_calls_things_cannot_steer_a_terminal(tmp_path):
    header = json.dumps({"a\x1b[2Jb": {"dtype": "XX", "shape": [], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "x\x1b[31m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1")
    run = subprocess.run(
        [sys.executable, "-m", "pyparam", "show", str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "\x1b" not in run.stderr
    assert r"a\x1b[2Jb" in run.stderr
    assert r"x\x1b[31m.safetensors" in run.stderr


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet="ab.-0129é٣\U0001f600", max_size=8), max_size=12))
def test_the_native_order_is_that_of_padded_numbers(names):
    assert natural(names) == sorted(names, key=natural_key)


def test_names_that_are_no_utf8_are_sorted_too():
    names = ["\ud800.10", "\ud800.9", "a"]
    assert natural(names) == ["a", "\ud800.9", "\ud800.10"]
