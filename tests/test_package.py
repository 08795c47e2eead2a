"""The package as it is imported and built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from faces import FACES, is_face

import pyparam

ROOT = Path(__file__).parents[1]


def run(code: str, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(path)} | variables
    environment.pop("LD_PRELOAD", None)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=path, check=False
    )


def test_without_the_extension_the_import_says_how_to_build_it(tmp_path: Path) -> None:
    shutil.copytree(
        Path(pyparam.__file__).parent,
        tmp_path / "pyparam",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    # An editable install offers the extension to every copy of the package.
    alone = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
    done = run(alone + "import pyparam", tmp_path)
    assert done.returncode == 1
    assert "native extension is not built" in done.stderr
    assert "pip install --no-build-isolation ." in done.stderr


def test_importing_loads_neither_the_command_line_nor_plots() -> None:
    code = "import sys, pyparam; print([m for m in ('rich', 'typer', 'matplotlib', 'pandas') if m in sys.modules])"
    done = run(code, ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there_and_documented() -> None:
    for name in pyparam.__all__:
        assert getattr(pyparam, name).__doc__, name


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not run from a source tree")
def test_a_missing_compiler_is_said_before_anything_is_compiled(tmp_path: Path) -> None:
    code = f"import runpy; runpy.run_path({str(ROOT / 'setup.py')!r})"
    done = run(code, ROOT, CXX="no-such-compiler", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "no C++ compiler found (looked for 'no-such-compiler'" in done.stderr


def test_a_torch_that_is_too_old_or_missing_is_said(tmp_path: Path) -> None:
    fake = tmp_path / "torch"
    (fake / "utils").mkdir(parents=True)
    (fake / "utils" / "__init__.py").write_text("")
    (fake / "utils" / "cpp_extension.py").write_text("BuildExtension = CppExtension = include_paths = None\n")
    (fake / "__init__.py").write_text('__version__ = "2.4.1+cpu"\n')
    code = f"import runpy; runpy.run_path({str(ROOT / 'setup.py')!r})"
    assert "PyTorch 2.4.1+cpu is too old; 2.11 or newer is needed" in run(code, tmp_path).stderr
    # Of another length: Python would take the bytecode of a file of the same second and size.
    (fake / "__init__.py").write_text("raise ImportError('there is none')\n")
    said = run(code, tmp_path).stderr
    assert "PyTorch is not importable in this environment" in said
    assert said.endswith("(the import said: there is none)\n")


def native_names(files: Iterable[Path]) -> set[str]:
    return {name for file in files for name in re.findall(r"\b_C\.(\w+)", file.read_text(encoding="utf-8"))}


def test_faces_call_nothing_native_that_the_sanitizers_do_not_see() -> None:
    """Their tests do not run under the sanitizers; those of what lies below do."""
    package = Path(pyparam.__file__).parent
    rooms = ("_cli", "_view", "integrations")
    faces = [file for room in rooms for file in (package / room).rglob("*.py")]
    assert len(faces) > 20
    tests = [file for file in Path(__file__).parent.glob("test_*.py") if not is_face(file)]
    below = set(package.rglob("*.py")) - set(faces)
    assert native_names(faces) <= native_names([*below, *tests])
    assert all(any(fnmatch(file.stem, face) for file in Path(__file__).parent.glob("*.py")) for face in FACES)
