"""``pyparam ties``."""

from __future__ import annotations

import json

import pytest
import torch
from reference_share import tied
from test_cli import run as run_process
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app
from pyparam._sources.tied import ties_from_text


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    buffer = torch.arange(10.0)
    state = {**tied().state_dict(), "whole": buffer, "part": buffer[2:4]}
    torch.save(state, path)
    return path


def test_a_line_a_tie(checkpoint):
    done = run("ties", str(checkpoint))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "3 ties: 6 of 10 names share 328 B",
        "",
        "storage    2.weight = 4.weight  [8, 8] float32",
        "storage    2.bias = 4.bias  [8] float32",
        "overlap    whole ~ part",
        "             whole: [10] float32, from byte 0, strides [1]",
        "             part: [2] float32, from byte 8, strides [1]",
    ]


def test_in_a_process_of_its_own(checkpoint):
    done = run_process("ties", str(checkpoint))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("ties", str(checkpoint)).stdout


def test_json(checkpoint):
    done = run("ties", str(checkpoint), "--json")
    told = json.loads(done.stdout)
    assert ties_from_text(json.dumps(told["ties"])) == pyparam.ties(checkpoint)
    assert (told["names"], told["shared_bytes"]) == (10, 328)


def test_a_file_that_was_saved_with_its_ties(tmp_path):
    path = tmp_path / "model.safetensors"
    pyparam.save_file(tied(), path)
    done = run("ties", str(path))
    assert "2 ties: 4 of 8 names share 288 B" in done.stdout
    assert "2.weight = 4.weight" in done.stdout


def test_many_names(tmp_path):
    path = tmp_path / "model.pt"
    w = torch.zeros(2)
    torch.save({f"n{i}": w for i in range(10)}, path)
    done = run("ties", str(path))
    assert "n0 = n1 = n2 = n3 = n4 = n5 = … (10 names)  [2] float32" in done.stdout


def test_no_ties():
    assert run("ties", "demo").stdout == "no ties: no two of 18 names share memory\n"
    assert json.loads(run("ties", "demo", "--json").stdout)["ties"] == []


def test_a_factory_and_its_buffers(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shadows.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n"
        "    model = nn.Linear(2, 2)\n    model.register_buffer('shadow', model.weight.data[0])\n    return model\n"
    )
    assert "no ties" in run("ties", "shadows:build").stdout
    assert "weight ~ shadow" in run("ties", "shadows:build", "--buffers").stdout


def test_a_mistake_is_one_line():
    done = run("ties", "nowhere.pt")
    assert done.exit_code == 2
    assert done.stderr.startswith("pyparam: there is no file 'nowhere.pt'")
