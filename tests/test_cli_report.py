"""``pyparam report``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reports import GPT, HOSTILE, faulty

from pyparam._cli import app

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-m", "pyparam", "report", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=environment, check=False,
    )  # fmt: skip


def test_the_command(tmp_path):
    done = run("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("report.html  ")
    assert first.endswith(" MiB")
    assert rest == ["nothing wrong was found"]
    assert (tmp_path / "report.html").exists()


def test_the_command_finds_and_compares(tmp_path):
    torch.save(faulty().state_dict(), tmp_path / "after.pt")
    torch.save(GPT().state_dict(), tmp_path / "before.pt")
    done = run("after.pt", "--against", "before.pt", "-o", "a.html", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["path"] == "a.html"
    assert told["findings"][0]["kind"] == "non-finite"
    assert told["findings"][0]["names"] == ["h.1.linear1.weight"]
    assert told["comparison"]["unexpected"] == [HOSTILE]
    assert told["bytes"] == (tmp_path / "a.html").stat().st_size
    done = run("after.pt", "--against", "before.pt", cwd=tmp_path)
    assert done.returncode == 1
    assert "error    1 parameter has values that are not finite\n" in done.stdout
    assert "           h.1.linear1.weight  1 NaN of 8,192\n" in done.stdout
    assert "parameters changed" in done.stdout


def test_the_command_opens_a_browser(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or False)
    with pytest.raises(SystemExit) as stopped:
        app(["report", "demo", "--open", "--title", "A net"])
    assert stopped.value.code == 0
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert "no browser was found to open it" in capsys.readouterr().err
    assert "<title>A net" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_command_without_plotly(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(SystemExit) as stopped:
        app(["report", "demo"])
    assert stopped.value.code == 2
    assert 'pyparam: report needs plotly, which is not installed (pip install "pyparam[report]")' in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope.pt",), "there is no file 'nope.pt'"),
        (("demo", "-o", "none/a.html"), "there is no directory"),
        (("demo", "--against", "nope.pt"), "there is no file 'nope.pt'"),
    ],
)
def test_mistakes_are_a_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        app(["report", *arguments])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
