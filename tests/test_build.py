"""What building rests on: the requirement lists, the compiler that is counted, and what the extension was built for."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import pyparam

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="not run from a source tree")


def requirements(*names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "requirements.py"), *names], capture_output=True, text=True
    )


def test_requirement_lists_are_those_of_pyproject() -> None:
    told = requirements("build", "run", "report").stdout.split("\n")
    assert {"ninja", "torch>=2.11", "safetensors>=0.4", "jinja2>=3"} <= set(told)
    assert not any(line.startswith("pyparam") for line in requirements("test").stdout.split())


def test_a_list_that_is_not_there_is_an_error() -> None:
    told = requirements("tests")
    assert told.returncode == 1
    assert "pyproject.toml has no list 'tests'; it has: build, run, plot" in told.stderr


def test_the_compiler_is_counted_where_it_compiles(tmp_path: Path) -> None:
    source = tmp_path / "one.cpp"
    source.write_text("int one() { return 1; }\n")
    log = tmp_path / "log"
    environment = os.environ | {"PYPARAM_COMPILES": str(log), "PYPARAM_CXX": "c++"}
    environment.pop("LD_PRELOAD", None)
    compiler = str(ROOT / ".ci" / "counting-c++")
    for command in (["--version"], ["-c", str(source), "-o", "one.o"], ["-shared", "one.o", "-o", "one.so"]):
        subprocess.run([compiler, *command], check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert log.read_text() == f"{source}\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package with an extension that ends the process when it is loaded."""
    shutil.copytree(
        Path(pyparam.__file__).parent,
        tmp_path / "pyparam",
        ignore=shutil.ignore_patterns("*.so", "*.built", "__pycache__"),
    )
    (tmp_path / "pyparam" / "_C.py").write_text("import os\nos._exit(7)\n")
    return tmp_path


def imported(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    environment.pop("LD_PRELOAD", None)
    # An editable install offers the extension to every copy of the package.
    alone = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
    return subprocess.run(
        [sys.executable, "-c", alone + "import pyparam"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )


RELEASE = torch.__version__.partition("+")[0]


@pytest.mark.parametrize("other", ["2.12.0+cpu", "2.13.0.dev20260101", f"{RELEASE}a0+git1234567"])
def test_another_torch_is_said_before_the_extension_is_loaded(copy: Path, other: str) -> None:
    (copy / "pyparam" / "_C.built").write_text(f"torch {other}\ncuda None\n")
    done = imported(copy)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: pyparam was built for PyTorch {other}, and this is PyTorch {torch.__version__}: "
        "build it again with: pip install --no-build-isolation . "
        "(without the option pip builds with the newest PyTorch)"
    )


def test_another_cuda_is_said_before_the_extension_is_loaded(copy: Path) -> None:
    (copy / "pyparam" / "_C.built").write_text(f"torch {torch.__version__}\ncuda 9.2\n")
    done = imported(copy)
    assert done.returncode == 1
    here = "no CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
    assert f"with CUDA 9.2, and this is PyTorch {torch.__version__} with {here}" in done.stderr


def test_the_same_torch_with_another_label_is_the_same(copy: Path) -> None:
    (copy / "pyparam" / "_C.built").write_text(f"torch {RELEASE}+other\ncuda None\n")
    assert imported(copy).returncode == 7


def test_the_extension_says_what_it_was_built_for() -> None:
    from pyparam._base.native import _C

    record = Path(_C.__file__).with_suffix(".built")
    assert record.read_text().splitlines()[0] == f"torch {torch.__version__}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_the_source_distribution_has_what_the_clone_has(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True)
    wanted = {name for name in listed.stdout.splitlines() if name != ".gitignore" and (ROOT / name).exists()}
    assert wanted - packed == set()
    assert not [name for name in packed if name.startswith("build/") or name.endswith((".so", ".built"))]


def test_a_ninja_that_is_not_on_the_path_is_found(tmp_path: Path) -> None:
    """Of an environment that nobody activated; without one torch compiles one file after the other."""
    ninja = pytest.importorskip("ninja")
    pytest.importorskip("setuptools", minversion="77")  # which an environment that builds nothing may lack
    (tmp_path / "c++").symlink_to(shutil.which("c++"))
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"} | {"PATH": str(tmp_path)}
    code = (
        "import runpy, shutil, sys\nsys.argv = ['setup.py', '--quiet', '--name']\n"
        "runpy.run_path('setup.py', run_name='__main__')\nprint(shutil.which('ninja'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout.splitlines() == ["pyparam", str(Path(ninja.BIN_DIR, "ninja"))], done.stderr


def test_an_old_setuptools_is_said_before_it_reads_the_metadata(tmp_path: Path) -> None:
    """A new environment of Python 3.11 has one of 2022, whose own error is a screen about project.license."""
    code = (
        "import runpy, setuptools; setuptools.__version__ = '65.5.1'; setuptools.setup = None; "
        f"runpy.run_path({str(ROOT / 'setup.py')!r})"
    )
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.stderr == (
        "pyparam: setuptools 65.5.1 is too old; 77 or newer is needed: pip install 'setuptools>=77' wheel ninja\n"
    )
    assert done.returncode == 1
    assert "setuptools>=77" in requirements("build").stdout.split()


def test_what_ninja_tells_is_what_it_compiles(tmp_path: Path) -> None:
    """Not the command, which is told of what does not compile alone."""
    (tmp_path / "bad.cpp").write_text("int broken( {}\n")
    (tmp_path / "good.cpp").write_text("int good() { return 1; }\n")
    (tmp_path / "build.ninja").write_text(
        "rule compile\n  command = c++ -DTOLD -c $in -o $out\nbuild good.o: compile good.cpp\n"
    )
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    start = text.index("@contextmanager")
    code = (
        "import re, subprocess\nfrom contextlib import contextmanager\nfrom pathlib import Path\n"
        "from typing import Any\nfrom collections.abc import Iterator\n"
        + text[start : text.index("\ndef built_for")]
        + "\nwith short_progress():\n    subprocess.run(['ninja', '-v'], cwd='.')\n"
    )
    (tmp_path / "go.py").write_text(code)
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    run = [sys.executable, "go.py"]
    told = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout
    assert told.strip() == "[1/1] good.cpp"
    with (tmp_path / "build.ninja").open("a") as rules:
        rules.write("build bad.o: compile bad.cpp\n")
    told = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout
    assert "FAILED: " in told
    assert "-DTOLD -c bad.cpp" in told


def matrix(tmp_path: Path, make: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the script says where ``make`` is a script of these lines."""
    stand_in = tmp_path / "bin" / "make"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text(f"#!/bin/sh\n{make}\n")
    stand_in.chmod(0o755)
    here = os.environ | {
        "PATH": f"{stand_in.parent}:/usr/bin:/bin",
        "PYTHONS": sys.executable,
        "TORCHES": "2.99.0",
        "MATRIX_FOLDER": str(tmp_path / "made"),
    }
    here.pop("LD_PRELOAD", None)
    return subprocess.run(
        [str(ROOT / ".ci" / "matrix")], env=here | environment, capture_output=True, text=True
    )


def test_matrix_prints_a_row_of_what_ran(tmp_path: Path) -> None:
    told = matrix(
        tmp_path, "shift 2; grep ^torch== $1/constraints.txt; echo '=== 7 passed, 1 skipped in 2.00s ==='"
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.stdout.splitlines()]
    assert rows[0] == ["Python", "PyTorch", "compiler", "what ran", "result", "date"]
    assert rows[2][:2] == [platform.python_version(), "2.99.0"]
    assert rows[2][3:5] == ["`make test`", "7 passed, 1 skipped"]
    assert told.returncode == 0
    made = tmp_path / "made"
    assert [path.name for path in made.iterdir()] == [f"{rows[2][0]}-2.99.0.log"]
    assert next(made.iterdir()).read_text().startswith("torch==2.99.0\n")
    assert (
        f"Python {rows[2][0]} ({sys.executable}), PyTorch 2.99.0: make test, which writes to" in told.stderr
    )


def test_matrix_says_what_went_wrong_and_keeps_the_tree(tmp_path: Path) -> None:
    told = matrix(tmp_path, "echo 'make: the C headers are not there' >&2; exit 2")
    assert "| fails: make: the C headers are not there |" in told.stdout
    assert told.returncode == 1
    assert (tmp_path / "made" / f"{platform.python_version()}-2.99.0" / "setup.py").is_file()


def test_matrix_says_what_it_leaves_out(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    told = matrix(
        tmp_path,
        "exit 0",
        PYTHONS="",
        PATH=str(tmp_path / "bin"),
        PYENV_ROOT=str(nowhere),
        UV_PYTHON_INSTALL_DIR=str(nowhere),
    )
    assert told.returncode == 1
    assert told.stdout == ""
    *left_out, last = told.stderr.splitlines()
    assert left_out == [
        f"matrix: left out: Python 3.{minor}, which is neither on the path as python3.{minor} nor in "
        f"{nowhere}/versions nor in {nowhere}"
        for minor in range(10, 15)
    ]
    assert last.startswith(
        'matrix: no interpreter found; name some: make matrix PYTHONS="/path/to/python3.12 '
    )


def test_matrix_fails_where_an_interpreter_does_not_run(tmp_path: Path) -> None:
    told = matrix(tmp_path, "exit 0", PYTHONS=f"{tmp_path}/none {sys.executable}")
    assert told.returncode == 1
    assert f"matrix: left out: {tmp_path}/none, which does not run\n" in told.stderr
    assert len(told.stdout.splitlines()) == 3
