"""``pyparam.open`` finds out what a file is; ``Checkpoint`` is a mapping over what it found."""

from __future__ import annotations

import ast
import collections
import gc
import os
import pickle
import zipfile

import pytest
import torch
from reference_sources import installed
from safetensors.torch import save_file

import pyparam

# --- what a file is ----------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pyparam.open(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"GGUF\3\0\0\0", "is not a valid GGUF file: it is truncated"),
        (b"\x1f\x8b\x08\0", "is compressed with gzip"),
        (b"hello world, this is text", "is not a checkpoint"),
    ],
)
def test_another_format(tmp_path, content, message):
    (tmp_path / "x.dat").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.dat " + message):
        pyparam.open(tmp_path / "x.dat")


def test_a_zip_that_torch_did_not_write(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("weights.txt", b"x")
    with pytest.raises(ValueError, match=r"x\.zip is a zip archive, and not one that torch wrote"):
        pyparam.open(tmp_path / "x.zip")


def test_neither_a_file_nor_a_directory(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a file nor a directory"):
        pyparam.open(tmp_path / "pipe")


def test_an_onnx_model():
    path = installed("silero_vad") / "data" / "silero_vad.onnx"
    with pytest.raises(ValueError, match=r"silero_vad\.onnx is an ONNX model"):
        pyparam.open(path)


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files through /proc")
def test_no_file_stays_open(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{]")
    torch.save({"a": ast.Name("x")}, tmp_path / "broken.pt")
    gc.collect()
    before = open_files()
    for _ in range(3):
        for name in ("a.safetensors", "a.pt"):
            opened = pyparam.open(tmp_path / name)
            assert opened["a"].tolist() == [1]
            del opened
        for name in ("broken.safetensors", "broken.pt"):
            with pytest.raises(ValueError, match=name):
                pyparam.open(tmp_path / name)
    gc.collect()
    assert open_files() == before


def test_a_tensor_outlives_its_checkpoint_and_its_file(tmp_path):
    save_file({"a": torch.arange(3)}, tmp_path / "x.safetensors")
    tensor = pyparam.open(tmp_path / "x.safetensors")["a"]
    gc.collect()
    (tmp_path / "x.safetensors").unlink()
    assert tensor.tolist() == [0, 1, 2]


def test_a_file_that_cannot_be_mapped(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(
        OSError, match=r"cannot map the file into memory: Cannot allocate memory: .*x\.safetensors"
    ):
        pyparam.open(tmp_path / "x.safetensors")


# --- the mapping -------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    save_file({"a.weight": torch.arange(4), "a.bias": torch.ones(1)}, tmp_path / "x.safetensors")
    return pyparam.open(tmp_path / "x.safetensors")


def test_a_checkpoint_is_a_mapping(checkpoint):
    assert isinstance(checkpoint, collections.abc.Mapping)
    assert set(checkpoint.keys()) == {"a.weight", "a.bias"}
    assert checkpoint.get("nothing") is None
    assert "a.weight" in checkpoint
    assert 3 not in checkpoint
    assert checkpoint["a.weight"] is checkpoint["a.weight"]
    assert checkpoint == checkpoint
    assert checkpoint != {}
    assert len({checkpoint}) == 1
    with pytest.raises(TypeError):
        checkpoint["a.weight"] = torch.ones(1)


def test_a_missing_name(checkpoint):
    with pytest.raises(
        KeyError, match=r"no entry named 'a\.wieght' in checkpoint .* of 2; close to it: 'a\.weight'"
    ):
        checkpoint["a.wieght"]
    with pytest.raises(KeyError, match="no entry named 'x'"):
        checkpoint.tensor_info("x")
    with pytest.raises(KeyError, match="no entry named 'x'"):
        checkpoint.byte_range("x")
    with pytest.raises(KeyError, match=r"indexed by names, not by 3 \(int\)"):
        checkpoint[3]


def test_a_closed_checkpoint(checkpoint):
    with checkpoint as same:
        assert same is checkpoint
        taken = checkpoint["a.weight"]
    assert checkpoint.closed
    assert taken.tolist() == [0, 1, 2, 3]
    assert checkpoint.tensor_info("a.weight").shape == (4,)
    assert "closed" in repr(checkpoint)
    with pytest.raises(ValueError, match=r"x\.safetensors is closed"):
        checkpoint["a.bias"]
    checkpoint.close()


def test_a_checkpoint_is_not_pickled(checkpoint):
    with pytest.raises(TypeError, match="stands for open files and cannot be pickled"):
        pickle.dumps(checkpoint)


def test_metadata_cannot_be_changed(checkpoint):
    with pytest.raises(TypeError):
        checkpoint.metadata["x"] = 1
    with pytest.raises(TypeError):
        checkpoint.extras["x"] = 1
