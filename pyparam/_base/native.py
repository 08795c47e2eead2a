"""The one place that imports the compiled extension, so that its absence is explained once."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import torch

BUILD = "pip install --no-build-isolation ."


def _release(version: str) -> str:
    """The version as far as it decides what a compiled extension may rely on: without a local label.

    A build of a day, or of a commit, is like no other.
    """
    return version if re.search(r"dev|git|a\d", version) else version.partition("+")[0]


def _check_what_it_was_built_for() -> None:
    """Raises ImportError where the extension was built for another PyTorch, before loading it could crash.

    What it was built for stands beside it, in a file that the build wrote.
    """
    found = importlib.util.find_spec("pyparam._C")
    record = Path(found.origin).with_suffix(".built") if found is not None and found.origin else None
    if record is None or not record.is_file():
        return
    built = dict(line.split(" ", 1) for line in record.read_text(encoding="utf-8").splitlines())
    here = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if _release(built["torch"]) != _release(here["torch"]):
        raise ImportError(
            f"pyparam was built for PyTorch {built['torch']}, and this is PyTorch {here['torch']}: "
            f"build it again with: {BUILD} (without the option pip builds with the newest PyTorch)"
        )
    if built["cuda"] != "None" and built["cuda"].split(".")[0] != here["cuda"].split(".")[0]:
        raise ImportError(
            f"pyparam was built for PyTorch {built['torch']} with CUDA {built['cuda']}, and this is PyTorch "
            f"{here['torch']} with {'no CUDA' if here['cuda'] == 'None' else 'CUDA ' + here['cuda']}: "
            f"build it again with: {BUILD}"
        )


_check_what_it_was_built_for()

try:
    from pyparam import _C
except ImportError as error:  # pragma: no cover - exercised in a subprocess
    raise ImportError(
        "pyparam's native extension is not built for this Python and PyTorch "
        f"({torch.__version__}). Build it with: {BUILD} "
        f"(the import said: {error})"
    ) from error

__all__ = ["_C"]


def _need_gil() -> None:
    """The native walk reads Python's dicts as they are in memory, which the GIL keeps still.

    A free-threaded interpreter enables the GIL when the extension is imported, unless it was told not to.
    """
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is not None and not enabled():
        raise ImportError(
            "pyparam needs the GIL, and this free-threaded interpreter runs without it: "
            "leave out PYTHON_GIL=0 and -X gil=0"
        )


_need_gil()
