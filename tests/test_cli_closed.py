"""The command line without an output: closed by whoever started it."""

import os
import subprocess
import sys

import pytest
import torch


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["show", "a.pt"], 0),
        (["stats", "a.pt"], 1),
        (["compare", "a.pt", "a.pt", "--json"], 0),
        (["show", "none.pt"], 2),
        (["--version"], 0),
    ],
)
def test_a_closed_output_is_no_traceback(arguments, status, tmp_path):
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "a.pt")
    program = [sys.executable, "-m", "pyparam", *arguments]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *program],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.abspath(".")},
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stderr == "") == (status != 2)
