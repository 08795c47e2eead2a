"""What every command has in common: help, JSON, colours, progress, completion, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_cli import ROOT
from typer.testing import CliRunner

from pyparam._cli import app
from pyparam._cli.options import complete_source

COMMANDS = ("show", "stats", "spectrum", "compare", "ties", "report")


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), prog_name="pyparam")


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS")
    }
    return {**kept, "PYTHONPATH": path, "TERM": "xterm-256color", **more}


def on_terminal(*arguments: str, **more: str) -> str:
    """The standard output of a process for which it is a terminal."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pyparam", *arguments],
        stdout=there,
        stdin=subprocess.DEVNULL,
        env=environment(**more),
    )
    os.close(there)
    seen = b""
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        seen += part
    os.close(here)
    process.wait()
    return seen.decode()


@pytest.fixture
def files(tmp_path, monkeypatch):
    torch.manual_seed(0)
    state = {"layer.weight": torch.randn(3, 4), "layer.bias": torch.zeros(4)}
    torch.save(state, tmp_path / "a.pt")
    torch.save({**state, "layer.bias": torch.tensor([0.0, float("nan"), 0, 0])}, tmp_path / "b.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- help and JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_says_how_it_ends(command) -> None:
    for flag in ("--help", "-h"):
        done = run(command, flag)
        assert done.exit_code == 0
        assert f"  pyparam {command} " in done.stdout.split("Examples:")[1]
        assert "Exit status:" in done.stdout
        assert "--json" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80 or command == "report"


def test_the_program_s_own_help() -> None:
    done = run("--help")
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)
    assert "--install-completion" in done.stdout
    text = " ".join(done.stdout.split())
    assert "2 after a mistake, 130 when interrupted, 141 when the reader of the output went away" in text
    assert run("--version").stdout.startswith("pyparam ")


KEYS = {
    ("show", "a.pt"): {"type", "modules", "parameters", "buffers", "shared", "rows", "parts", "facts"},
    ("show", "demo"): {"net", "mixture"},
    ("stats", "a.pt"): {"parameters", "total", "nonfinite", "missing", "unread", "quantized"},
    ("stats", "a.pt", "--histogram"): {"parameters", "total", "nonfinite", "missing", "unread", "quantized", "underflow"},
    ("spectrum", "a.pt"): {"parameters", "nonfinite", "left_out"},
    ("ties", "a.pt"): {"ties", "names", "shared_bytes"},
    ("compare", "a.pt", "b.pt"): {
        "equal", "missing", "unexpected", "shape_changed", "dtype_changed", "changed", "parameters", "worst",
        "recognised", "accepted", "structure", "roles", "unread", "unseen", "values_changed", "suggestion",
    },
    ("compare", "a.pt", "b.pt", "--fingerprint"): {"equal", "differing", "a", "b"},
    ("report", "a.pt"): {"path", "bytes", "findings"},
    ("report", "b.pt", "--against", "a.pt"): {"path", "bytes", "findings", "comparison"},
}  # fmt: skip


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("arguments", KEYS, ids=" ".join)
def test_json_is_one_document_with_the_keys_that_help_names(arguments) -> None:
    done = run(*arguments, "--json")
    assert done.exit_code in (0, 1), done.output
    assert done.stderr == ""

    def constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(done.stdout, parse_constant=constant)
    assert set(found) == KEYS[arguments]
    described = " ".join(run(arguments[0], "--help").stdout.split())
    for key in found:
        assert key in described, key


# --- how it ends ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("show", "a.pt"), 0),
        (("stats", "a.pt"), 0),
        (("stats", "b.pt"), 1),
        (("ties", "a.pt"), 0),
        (("compare", "a.pt", "a.pt"), 0),
        (("compare", "a.pt", "b.pt"), 1),
        (("report", "b.pt"), 1),
        (("show", "nowhere.pt"), 2),
        (("stats", "nowhere.pt"), 2),
        (("ties", "nowhere.pt"), 2),
        (("compare", "a.pt", "nowhere.pt"), 2),
        (("report", "nowhere.pt"), 2),
    ],
)
def test_exit_status(arguments, status) -> None:
    done = run(*arguments)
    assert done.exit_code == status, done.output
    if status == 2:
        assert done.stdout == ""
        assert done.stderr.startswith("pyparam: there is no file 'nowhere.pt'")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("show", "demo"), ("stats", "demo")])
def test_a_reader_that_goes_away_ends_it_as_shells_have_it(arguments) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pyparam", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_an_interrupt_is_quiet(tmp_path) -> None:
    (tmp_path / "slow_model.py").write_text(
        "import sys, time\n\n\ndef build():\n    print('started', flush=True)\n    time.sleep(60)\n"
    )
    # What a shell starts in the background ignores interrupts, and its children with it.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pyparam.__main__ import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "show", "slow_model:build"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "started\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


# --- a terminal -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("files")
def test_colours_on_a_terminal_alone() -> None:
    assert "\x1b[31m" in on_terminal("stats", "b.pt")
    assert "\x1b[31m" not in on_terminal("stats", "b.pt", NO_COLOR="1")
    assert "\x1b[1;36m" in on_terminal("show", "a.pt")
    for command in (("stats", "b.pt"), ("show", "a.pt"), ("compare", "a.pt", "b.pt"), ("ties", "a.pt")):
        assert "\x1b" not in run(*command).stdout


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stats", "a.pt", "--json"), "measuring"),
        (("compare", "a.pt", "b.pt", "--json"), "comparing a.pt with b.pt"),
        (("ties", "a.pt", "--json"), "looking for ties in a.pt"),
        (("show", "a.pt", "--json"), "reading a.pt"),
        (("report", "a.pt", "--json"), "reading a.pt"),
    ],
)
def test_progress_is_on_standard_error_of_a_terminal(arguments, words, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        app(list(arguments), prog_name="pyparam", standalone_mode=False)
        out, err = capsys.readouterr()
        json.loads(out)
        assert (words in err) == terminal


# --- completion -----------------------------------------------------------------------------------------------


def test_a_glob_is_told_shortly(files) -> None:
    done = run("show", "a.pt", *(f"{i}.pt" for i in range(1000)))
    assert done.exit_code == 2
    words = (
        "Error: Got 1,000 arguments too many: 0.pt, 1.pt, 2.pt, .... A command takes one path for each source"
    )
    assert words in done.stderr
    assert "Got 1 argument too many: c\\x1b" in run("compare", "a.pt", "b.pt", "c\x1b").stderr


def test_a_source_completes_to_checkpoints_folders_and_demo(files) -> None:
    for name in ("model.safetensors", "weights.npz", "notes.txt", "deep.index.json", ".hidden.pt"):
        (files / name).touch()
    (files / "shards").mkdir()
    assert complete_source("") == [
        "demo",
        "a.pt",
        "b.pt",
        "deep.index.json",
        "model.safetensors",
        "shards/",
        "weights.npz",
    ]
    assert complete_source("de") == ["demo", "deep.index.json"]
    assert complete_source(".h") == [".hidden.pt"]
    assert complete_source("shards/") == []
    assert complete_source(f"{files}/mod") == [f"{files}/model.safetensors"]
    assert complete_source("nowhere/x") == []


@pytest.mark.parametrize("command", ["show", "stats", "ties", "compare", "compare a.pt", "report"])
def test_the_shell_is_given_it(files, command) -> None:
    words = f"pyparam {command} a"
    variables = {
        "_PYPARAM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = CliRunner().invoke(app, [], env=variables, prog_name="pyparam")
    assert done.stdout.split() == ["a.pt"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell(shell) -> None:
    done = CliRunner().invoke(app, [], env={"_PYPARAM_COMPLETE": f"source_{shell}"}, prog_name="pyparam")
    assert done.exit_code == 0
    assert "_PYPARAM_COMPLETE=complete_" + shell in done.stdout


# --- the demonstration ----------------------------------------------------------------------------------------


def test_the_demo_s_report_finds_what_was_planted(tmp_path) -> None:
    pytest.importorskip("plotly")
    done = run("report", "pyparam._cli.demo:planted", "-o", str(tmp_path / "demo.html"))
    assert done.exit_code == 1
    assert (tmp_path / "demo.html").stat().st_size > 1000
    found = [line.split()[0] for line in done.stdout.splitlines()[1:] if not line.startswith(" ")]
    assert found == ["error", "warning", "info"]
    for line in ("0.block 1.0.bias  1 NaN of 8", "0.block 2.0.weight", "0.block 3.0.weight"):
        assert f"  {line}\n" in done.stdout


def test_make_demo_says_where_its_report_is() -> None:
    done = subprocess.run(["make", "-n", "demo"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert f"-o {ROOT}/build/demo.html" in done.stdout
    assert "pyparam show demo" in done.stdout


def text_of(shown: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "").split("\n")


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize(
    ("arguments", "head"),
    [
        (("show", "wide.pt"), "module"),
        (("show", "wide.pt", "--buffers"), "module"),
        (("stats", "wide.pt", "--histogram"), "name"),
        (("compare", "wide.pt", "other.pt"), "parameter"),
    ],
    ids=["show", "show --buffers", "stats", "compare"],
)
def test_columns_are_left_out_before_a_cell_wraps(files, arguments, head, width):
    torch.manual_seed(0)
    names = [f"layers.{i}.self_attn.{p}.weight" for i in range(2) for p in ("q_proj", "k_proj")]
    torch.save({name: torch.randn(3, 4) for name in names}, files / "wide.pt")
    torch.save({name: torch.randn(3, 4) for name in names}, files / "other.pt")

    def table(columns: int) -> list[str]:
        shown = text_of(on_terminal(*arguments, COLUMNS=str(columns)))
        start = next(i for i, line in enumerate(shown) if head in line.split()[:1])
        return shown[start : start + 5]

    narrow = table(width)
    assert max(map(len, narrow)) <= width
    assert len(narrow[0].split()) >= 3  # what is left says something
    if width < 80:
        assert set(narrow[0].split()) <= set(table(200)[0].split())


def test_show_prints_the_columns_that_are_asked_for(files):
    shown = run("show", "a.pt", "--columns", "values,dtype").output.splitlines()
    assert shown[0].split() == ["module", "values", "dtype"]
    assert shown[2].split() == ["layer", "16", "float32"]
    # As asked for, whatever the terminal is.
    narrow = text_of(on_terminal("show", "a.pt", "--columns", "values,tensors,bytes,dtype", COLUMNS="30"))
    assert narrow[0].split() == ["module", "values", "tensors", "bytes", "dtype"]
    wrong = run("show", "a.pt", "--columns", "colour")
    assert wrong.exit_code == 2
    assert "--columns: there is no column 'colour'; there is module, type, tensors" in wrong.output
    wrong = run("show", "a.pt", "--names", "--columns", "type")
    assert wrong.exit_code == 2
    assert "--names prints a list" in wrong.output
