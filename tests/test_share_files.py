"""Files that cannot be written or read, and what damaged ones say."""

import os
import re
import stat
import subprocess
import sys
import textwrap
import warnings

import pytest
import reference_share as reference
import safetensors
import safetensors.torch
import torch
from tied_models import Zoo, same_values, snapshot
from torch import nn

import pyparam
from pyparam._sources.tied import ties_from_text, ties_to_text


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# ---------------------------------------------------------------- the file


def test_a_file_that_is_replaced_keeps_its_permissions(path):
    path.write_bytes(b"old")
    path.chmod(0o640)
    pyparam.save_file(nn.Linear(2, 2), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_has_the_usual_permissions(path):
    usual = path.with_name("usual")
    usual.touch()
    pyparam.save_file(nn.Linear(2, 2), path)
    assert path.stat().st_mode == usual.stat().st_mode


def test_a_link_stays_a_link(path, tmp_path):
    target = tmp_path / "target"
    path.symlink_to(target)
    pyparam.save_file(nn.Linear(2, 2), path)
    assert path.is_symlink()
    assert target.stat().st_size > 0


def test_a_failing_write_leaves_the_old_file(path, monkeypatch):
    path.write_bytes(b"old")

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise safetensors.SafetensorError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match=r"save_file: '.*' could not be written: disk full"):
        pyparam.save_file(nn.Linear(2, 2), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


class Unpicklable:
    pass


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (Unpicklable, TypeError, "save_file: 'x' is Unpicklable; a safetensors file holds tensors only"),
        (
            lambda: torch.eye(2).to_sparse(),
            TypeError,
            "save_file: 'x' is sparse (torch.sparse_coo); save to_dense()",
        ),
        (
            lambda: torch.eye(2, device="meta"),
            TypeError,
            "save_file: 'x' is on the meta device and has no data",
        ),
        (nested, TypeError, "save_file: 'x' is nested; save its parts (unbind())"),
        (quantized, TypeError, "save_file: 'x' is quantized; save int_repr(), scale and zero point"),
        (nn.parameter.UninitializedParameter, TypeError, "save_file: 'x' is not initialised yet"),
        (
            lambda: torch.zeros(2, dtype=torch.complex128),
            ValueError,
            "save_file: 'x' has dtype torch.complex128, which safetensors does not have; save view_as_real()",
        ),
    ],
    ids=["object", "sparse", "meta", "nested", "quantized", "lazy", "complex128"],
)
def test_what_cannot_be_saved(make, error, words, path):
    with pytest.raises(error, match=re.escape(words)):
        pyparam.save_file({"first": torch.zeros(2), "x": make()}, path)
    assert not path.exists()


def test_wrappers_are_refused(path):
    from test_share_zoo import Wrapper

    with pytest.raises(
        TypeError, match=r"save_file: 'x' is a Wrapper; save the plain tensor that it stands for"
    ):
        pyparam.save_file({"x": Wrapper(torch.zeros(2))}, path)


def test_names_and_metadata_are_text(path):
    with pytest.raises(TypeError, match="save_file: expected names that are str, got 3"):
        pyparam.save_file({3: torch.zeros(2)}, path)
    with pytest.raises(TypeError, match="save_file: metadata must map str to str, got 'a': 1"):
        pyparam.save_file({}, path, metadata={"a": 1})
    for key in ("pyparam.ties", "pyparam.strides"):
        with pytest.raises(
            ValueError, match=re.escape(f"save_file: the metadata key {key!r} is written by save_file")
        ):
            pyparam.save_file({}, path, metadata={key: ""})
    assert not path.exists()


def test_no_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"save_file: there is no directory .*nowhere to write"):
        pyparam.save_file({}, tmp_path / "nowhere" / "x")


def unchanged_after(model, call, error, words):
    values = snapshot(model)
    with pytest.raises(error, match=words):
        call()
    assert same_values(model, values)


def test_names_must_match(path):
    pyparam.save_file({"weight": torch.ones(2, 2), "more": torch.ones(1), "most": torch.ones(1)}, path)
    model = nn.Linear(2, 2)
    unchanged_after(
        model, lambda: pyparam.load_file_(model, path), ValueError, "load_file_: the file lacks 'bias'"
    )
    pyparam.save_file(
        {"weight": torch.ones(2, 2), "bias": torch.ones(2), **{f"m{i}": torch.ones(1) for i in range(7)}},
        path,
    )
    unchanged_after(
        model,
        lambda: pyparam.load_file_(model, path),
        ValueError,
        "load_file_: the model lacks 'm0', 'm1', 'm2', 'm3', 'm4' and 2 more",
    )


def test_shapes_must_match(path):
    pyparam.save_file({"weight": torch.ones(2, 2), "bias": torch.ones(3)}, path)
    model = nn.Linear(2, 2)
    words = re.escape("load_file_: 'bias' has shape [3] in the file, expected [2]")
    unchanged_after(model, lambda: pyparam.load_file_(model, path), ValueError, words)
    unchanged_after(model, lambda: pyparam.load_file_(model, path, strict=False), ValueError, words)


def test_a_meta_model_needs_assign(path):
    pyparam.save_file(nn.Linear(2, 2), path)
    with pytest.raises(
        ValueError,
        match=r"load_file_: '(weight|bias)' is on the meta device and can take no values; use assign",
    ):
        pyparam.load_file_(nn.Linear(2, 2, device="meta"), path)


def test_ties_that_the_model_cannot_have(path):
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2))
    model.register_buffer("shadow", torch.ones(2))
    w = torch.zeros(2)
    pyparam.save_file({"weight": w, "shadow": w}, path)
    unchanged_after(
        model,
        lambda: pyparam.load_file_(model, path),
        TypeError,
        "'weight' is a parameter and 'shadow' is a b",
    )


def test_files_that_are_none(path):
    with pytest.raises(FileNotFoundError):
        pyparam.load_file_(nn.Linear(2, 2), path)
    path.write_bytes(b"\x00" * 3)
    with pytest.raises(ValueError, match=r"load_file_: .* is not a valid safetensors file"):
        pyparam.load_file_(nn.Linear(2, 2), path)
    with pytest.raises(TypeError, match=r"load_file_: expected an nn\.Module, got dict"):
        pyparam.load_file_({}, path)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[3]",
        '[{"names": ["a"], "kind": "parameter", "exact": true}]',
        '[{"names": ["weight", "bias"], "kind": "friendship", "exact": true}]',
        '[{"kind": "parameter"}]',
        '[{"names": ["weight", "bias"], "kind": "overlap", "exact": true, "layouts": [{}]}]',
        '[{"names": ["weight", "bias"], "kind": "overlap", "exact": true, "layouts": '
        '[{"offset": 0, "shape": [2], "stride": [-1], "dtype": "float32"}, '
        '{"offset": 0, "shape": [2], "stride": [1], "dtype": "float32"}]}]',
        '[{"names": ["weight", "bias"], "kind": "overlap", "exact": true, "layouts": '
        '[{"offset": 0, "shape": [2], "stride": [1], "dtype": "nn"}, '
        '{"offset": 0, "shape": [2], "stride": [1], "dtype": "float32"}]}]',
    ],
)
def test_damaged_metadata(text, path):
    tensors = dict(nn.Linear(2, 2).state_dict())
    safetensors.torch.save_file(tensors, path, metadata={"pyparam.ties": text})
    with pytest.raises(ValueError, match=r"load_file_: (the metadata of '.*'|.*its pyparam.ties) is damaged"):
        pyparam.load_file_(nn.Linear(2, 2), path)


@pytest.mark.parametrize("text", ["{", '{"weight": [1]}', '{"nowhere": [1]}', "[1]"])
def test_damaged_strides(text, path):
    safetensors.torch.save_file(dict(nn.Linear(2, 2).state_dict()), path, metadata={"pyparam.strides": text})
    with pytest.raises(ValueError, match=r"load_file_: (the metadata of '.*'|.*its pyparam.ties) is damaged"):
        pyparam.load_file_(nn.Linear(2, 2), path)


def test_ties_as_text_and_back():
    ties = pyparam.ties(Zoo(), buffers=True)
    again = ties_from_text(ties_to_text(ties))
    assert again == ties
    assert [tie.layouts for tie in again] == [tie.layouts for tie in ties]


def test_an_opened_file_has_every_name(path):
    model = reference.tied()
    pyparam.save_file(model, path)
    opened = pyparam.open(path)
    assert set(opened) == set(model.state_dict())
    assert same_values(model, opened)
    assert opened.byte_range("4.weight") == opened.byte_range("2.weight")
    assert {tie.names for tie in pyparam.ties(path)} == {("2.weight", "4.weight"), ("2.bias", "4.bias")}
    assert pyparam.ties(opened) == pyparam.ties(path)


def test_an_opened_file_of_safetensors_own_writer_has_every_name(path):
    model = reference.tied()
    safetensors.torch.save_model(model, path)
    assert set(pyparam.open(path)) == set(model.state_dict())


def test_other_metadata_is_no_name(path):
    safetensors.torch.save_file(
        {"a": torch.zeros(1), "b": torch.ones(1)}, path, metadata={"a": "b", "c": "d"}
    )
    opened = pyparam.open(path)
    assert set(opened) == {"a", "b"}
    assert pyparam.ties(opened) == []


def test_an_opened_file_with_damaged_ties(path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, metadata={"pyparam.ties": "[3]"})
    with pytest.raises(ValueError, match=r"is not a valid safetensors file: its pyparam\.ties is damaged"):
        pyparam.open(path)


def test_another_process_restores_the_ties(path):
    pyparam.save_file(reference.sequential(), path)
    script = textwrap.dedent(
        f"""
        import pyparam
        from torch import nn
        relu = nn.ReLU
        inner = [nn.Linear(8, 8), relu(), nn.Linear(8, 8), relu()]
        net = nn.Sequential(nn.Linear(4, 8), relu(), *inner, nn.Linear(8, 1))
        pyparam.load_file_(net, {str(path)!r})
        print(net[2].weight is net[4].weight)
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "True"
