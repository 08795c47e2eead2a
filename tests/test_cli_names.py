"""``pyparam show --names``: what a file lists, also one that needs code to load."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pyparam._cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["show", *map(str, arguments), "--names"])


@pytest.fixture
def module(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False)), tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_names_of_a_pickled_module(module):
    result = run(module)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["0.weight", "float32", "[3,", "2]", "24", "B"],
        ["0.bias", "float32", "[3]", "12", "B"],
        ["1.weight", "float32", "[1,", "3]", "12", "B"],
        ["3", "tensors"],
    ]


def test_as_json_and_selected(module):
    result = run(module, "--json", "--select", "*.bias")
    assert json.loads(result.stdout) == [{"name": "0.bias", "dtype": "float32", "shape": [3], "nbytes": 12}]
    assert run(module, "--select", "*.bias").stdout.endswith("1 of 3 tensors\n")


def test_what_is_no_file():
    result = run("demo")
    assert result.exit_code == 2
    assert "--names lists a checkpoint's names, and there is no file 'demo'" in result.stderr
