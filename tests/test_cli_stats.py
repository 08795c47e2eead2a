"""``pyparam stats``: what it prints, and its exit status."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from pyparam._cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["stats", *map(str, arguments)])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file({"layer.weight": torch.full((3, 4), 2.0), "layer.bias": torch.zeros(4)}, path)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.safetensors"
    save_file({"fine": torch.ones(2), "broken": torch.tensor([1.0, math.nan])}, path)
    return path


def test_all_finite(good: Path) -> None:
    done = run(good)
    assert done.exit_code == 0
    assert "layer.weight" in done.stdout
    assert "[3, 4]" in done.stdout
    assert "2 parameters, 64 B" in done.stdout


def test_not_finite(bad: Path) -> None:
    done = run(bad)
    assert done.exit_code == 1
    assert "not finite: broken" in done.stdout


def test_json(bad: Path) -> None:
    done = run(bad, "--json", "--histogram", "--sort", "l2")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["parameters"]] == ["fine", "broken"]
    assert found["nonfinite"] == ["broken"]
    assert found["parameters"][1]["std"] is None
    assert found["total"]["numel"] == 4
    assert found["underflow"]["float16"] == {"zero": 0.0, "subnormal": 0.0, "overflow": 0.0}


def test_histogram_and_limit(good: Path) -> None:
    done = run(good, "--histogram", "--limit", 1)
    assert "q0.5" in done.stdout
    assert "in float8_e4m3fn: 0.000% would become zero" in done.stdout
    assert "the first 1 of 2 rows" in done.stdout


def test_gradients(good: Path) -> None:
    done = run("demo", "--grad")
    assert done.exit_code == 0
    assert "18 without a gradient" in done.stdout


def test_mistakes(good: Path, tmp_path: Path) -> None:
    assert run(good, "--sort", "size").exit_code == 2
    assert run(tmp_path / "missing.safetensors").exit_code == 2
