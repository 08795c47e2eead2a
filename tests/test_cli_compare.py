"""``pyparam compare``: output, JSON and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from pyparam._cli import app
from pyparam._cli.compare import Figure
from pyparam._compare.comparison import SORTABLE


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Tensor] = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(3), "old": torch.ones(1)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "same.pt")
    state["a.weight"] = state["a.weight"].clone()
    state["a.weight"][1, 2] = 1.5
    state["a.bias"] = torch.full((3,), 4.0)
    state["new"] = state.pop("old")
    save_file(state, tmp_path / "b.safetensors")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


@pytest.mark.usefixtures("files")
def test_the_same() -> None:
    for options in ([], ["--fingerprint"], ["--json"], ["--fingerprint", "--json"]):
        result = run("a.safetensors", "same.pt", *options)
        assert result.exit_code == 0, result.output
    assert run("a.safetensors", "same.pt").output == "equal: 3 parameters, the same bits\n"
    assert run("a.safetensors", "same.pt", "--fingerprint").output.endswith("\nthe same\n")


@pytest.mark.usefixtures("files")
def test_differences() -> None:
    result = run("a.safetensors", "b.safetensors")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "2 changed, 0 the same"
    assert lines[1:3] == ["  1 missing in b: old", "  1 missing in a: new"]
    assert [line.split()[0] for line in lines[3:]] == ["parameter", "a.bias", "a.weight"]


@pytest.mark.usefixtures("files")
def test_options() -> None:
    result = run("a.safetensors", "b.safetensors", "--worst", "1", "--by", "max_abs")
    assert result.output.splitlines()[-2].split()[:3] == ["a.bias", "3", "3"]
    assert result.output.endswith("and 1 more\n")
    result = run("a.safetensors", "b.safetensors", "--json", "--worst", "1")
    assert result.exit_code == 1
    data = json.loads(result.output)
    assert data["missing"] == ["old"]
    assert sorted(data["changed"]) == ["a.bias", "a.weight"]
    assert data["worst"] == ["a.bias"]


@pytest.mark.usefixtures("files")
def test_fingerprints() -> None:
    result = run("a.safetensors", "b.safetensors", "--fingerprint")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert sorted(lines[2:-1]) == ["  a.bias", "  a.weight", "  new  only in B", "  old  only in A"]
    assert lines[-1] == "4 differ"
    data = json.loads(run("a.safetensors", "b.safetensors", "--fingerprint", "--json").output)
    assert data["equal"] is False
    assert sorted(data["differing"]) == ["a.bias", "a.weight", "new", "old"]
    assert lines[0] == f"A  {data['a']['total']}  3 parameters"


@pytest.mark.usefixtures("files")
def test_models() -> None:
    result = run("demo", "demo")
    assert result.exit_code == 0, "one model, made twice"
    assert run("a.safetensors", "torch.nn:Identity").exit_code == 1


def test_every_figure_can_be_asked_for() -> None:
    assert tuple(figure.value for figure in Figure) == SORTABLE


@pytest.mark.usefixtures("files")
def test_mistakes() -> None:
    for arguments, words in [
        (["a.safetensors", "c.safetensors"], "there is no file 'c.safetensors'"),
        (["a.safetensors"], "Missing argument 'B'"),
        (["a.safetensors", "b.safetensors", "--by", "name"], "'name' is not one of 'max_abs'"),
        (["a.safetensors", "b.safetensors", "--worst", "-1"], "--worst"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2
        assert words in result.output
