"""The command line, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyparam._cli.demo import net
from pyparam._cli.mistake import Mistake
from pyparam._cli.source import load

ROOT = Path(__file__).resolve().parent.parent

MODELS = """
import torch
from torch import nn

model = nn.Linear(2, 2)
number = 3

def build():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))

def needs(width):
    return nn.Linear(width, width)

def broken():
    return nn.Linear(2, 2)(torch.zeros(5))

class Holder:
    build = staticmethod(build)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "my_broken.py").write_text("import torch\n\nraise RuntimeError('no GPU today')\n")
    (tmp_path / "my_missing.py").write_text("import a_module_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_models", "my_broken", "my_missing"):
        sys.modules.pop(name, None)


def run(*arguments, folder=None, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-m", "pyparam", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        check=False,
        **options,
    )


def test_demo():
    done = run("show", "demo")
    assert done.returncode == 0, done.stderr
    assert "inspect(net)[0][1][0].bias.data  ->  tensor([" in done.stdout
    assert "inspect(net)[0][1][0].bias.grad  ->  tensor([" in done.stdout
    assert "is the same object: True" in done.stdout
    assert "61 × MixtureLayer" in done.stdout
    assert "256 × Expert" in done.stdout
    assert "3,140,848 values in 47,398 parameters" in done.stdout
    assert "78,632 modules" in done.stdout
    assert "\x1b[" not in done.stdout


def test_a_factory_on_the_meta_device(folder):
    done = run("show", "my_models:build", "--meta", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "meta" in done.stdout
    assert "13 values in 4 parameters" in done.stdout


def test_json_is_one_document(folder):
    done = run("show", "my_models:build", "--json", "--select", "*.weight", "--depth", "1", folder=folder)
    made = json.loads(done.stdout)
    assert made["parameters"]["unique"] == 9
    assert [row["name"] for row in made["rows"]] == ["", "0", "1"]


def test_a_user_s_mistake_is_a_line_and_status_2(folder):
    done = run("show", "my_models:broken", folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("pyparam: my_models:broken failed: RuntimeError: ")
    assert "my_models.py:15, in broken\n    return nn.Linear(2, 2)(torch.zeros(5))" in done.stderr


def test_help_has_examples():
    done = run("show", "--help")
    assert done.returncode == 0
    assert "pyparam show demo" in done.stdout
    assert "--meta" in done.stdout


@pytest.mark.parametrize(
    "arguments", [("show",), ("sho", "demo"), ("show", "demo", "--depth", "-1"), ("show", "demo", "--no")]
)
def test_wrong_usage_is_status_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stderr


def test_a_reader_that_goes_away(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "pyparam", "show", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])},
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


# --- SOURCE ----------------------------------------------------------------------------------------------


def test_what_a_source_can_be(folder):
    assert type(load("demo")) is type(net())
    assert load("demo", meta=True)[1].weight.is_meta
    assert load("my_models:model") is sys.modules["my_models"].model
    assert load("my_models:build")[0].in_features == 2
    assert load("my_models:Holder.build")[0].in_features == 2
    assert load("my_models:build", meta=True)[0].weight.is_meta
    torch.save(net().state_dict(), folder / "demo:net")
    assert load("demo:net") == "demo:net"


@pytest.mark.parametrize(
    ("source", "meta", "words"),
    [
        ("nothing", False, "'nothing' is neither a file, nor package.module:factory, nor 'demo'"),
        ("my_modles.py", False, "there is no file 'my_modles.py'; close to it: 'my_models.py'"),
        ("./a/b", False, "there is no file './a/b'"),
        ("my_modles:build", False, "there is no module 'my_modles'"),
        ("my_models.sub:build", False, "there is no module 'my_models.sub'"),
        ("my_models:biuld", False, "my_models has no 'biuld'; close to it: 'build'"),
        (
            "my_models:needs",
            False,
            "my_models:needs is called without arguments: missing a required argument: 'width'",
        ),
        (
            "my_broken:build",
            False,
            r"importing my_broken failed: RuntimeError: no GPU today\n  at .*my_broken.py:3",
        ),
        ("my_missing:build", False, "importing my_missing failed: ModuleNotFoundError"),
        ("my_models:model", True, "--meta builds a model, and my_models:model is one already"),
        ("my_models.py", True, "--meta builds what package.module:factory names"),
        ("./my_models.py", False, "is a program: name what makes the model in it, as in my_models:build"),
        ("my_models.py:build", False, "a module is named as in an import, without .py: my_models"),
        ("https://host/a.pt", False, "'https://host/a.pt' is no path, and nothing is downloaded"),
    ],
)
def test_mistakes_in_a_source(folder, source, meta, words):
    with pytest.raises(Mistake, match=words):
        load(source, meta=meta)
