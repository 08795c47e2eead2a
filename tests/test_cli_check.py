"""pyparam check: findings on the command line, in lines and in JSON, and what its exit status says."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app
from pyparam._findings import CHECKS, KINDS

runner = CliRunner()


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    state = {f"layers.{i}.fc.weight": torch.randn(64, 64) for i in range(8)}
    state["layers.2.fc.weight"][3] = 0
    shared = torch.randn(4, 4)
    state |= {"a.weight": shared, "b.weight": shared}
    torch.save(state, tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


def check(*arguments: str):
    return runner.invoke(app, ["check", *arguments])


def test_lines_say_what_why_and_what_next(path) -> None:
    done = check(path)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "warning  1 parameter is zero in part (likely)",
        "           layers.2.fc.weight  1 row of 64: row 3",
        "         why:  Units of zero weights give nothing, and inputs whose weights are zero are not seen. Zeros "
        "to the end are what a copy leaves that was cut short, and a run of them a hole in a file.",
        "         next: Compare with an earlier checkpoint (pyparam compare); where units were pruned on purpose, "
        "ignore it.",
        "info     2 names are tied",
        "           a.weight",
        "           b.weight",
        "1 warning, 1 note",
    ]  # fmt: skip


@pytest.mark.parametrize(("level", "status"), [("error", 0), ("warning", 1), ("info", 1), ("never", 0)])
def test_fail_on(path, level, status) -> None:
    assert check(path, "--fail-on", level).exit_code == status


def test_ignoring_kinds_and_names(path) -> None:
    assert check(path, "--ignore", "zero-parts").exit_code == 0
    done = check(path, "--ignore", "tied", "--ignore", "layers.2.*", "--fail-on", "info")
    assert (done.exit_code, done.stdout) == (0, "nothing was found\n")


def test_json(path) -> None:
    done = check(path, "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["counts"] == {"error": 0, "warning": 1, "info": 1}
    assert [(f["kind"], f["confidence"]) for f in told["findings"]] == [
        ("zero-parts", "likely"),
        ("tied", "certain"),
    ]
    assert told["findings"] == [found.to_dict() for found in pyparam.findings(path)]


def test_it_needs_nothing_of_the_report(path, monkeypatch) -> None:
    import sys

    for name in ("plotly", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert check(path).exit_code == 1


def test_a_mistake(path) -> None:
    done = check(path, "--ignore", "zeroparts")
    assert done.exit_code == 2
    assert "findings: ignore='zeroparts' is neither a kind (non-finite, " in done.stderr
    assert done.stderr.endswith("nor a glob of names; close to it: 'zero-parts'\n")
    with pytest.raises(TypeError, match="ignore is the string 'tied'; expected a list of kinds and globs"):
        pyparam.findings({}, ignore="tied")


def test_every_check_has_a_kind_of_the_table() -> None:
    table = pyparam.findings.__doc__
    assert table is not None
    assert all(kind in table for kind in KINDS)
    assert len(set(CHECKS)) == len(CHECKS)


def test_the_demo_is_healthy() -> None:
    done = check("demo")
    assert (done.exit_code, done.stdout) == (0, "nothing was found\n")


def test_a_file_without_tensors_is_not_called_good_without_a_word(tmp_path) -> None:
    torch.save({"epoch": 3}, tmp_path / "wrong.pt")
    done = check(str(tmp_path / "wrong.pt"))
    assert done.exit_code == 0
    assert done.output.splitlines()[1:] == [
        "there was nothing to look at: it has no parameters and no tensors"
    ]
