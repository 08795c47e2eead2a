"""The one place that imports the compiled extension, so that its absence is explained once."""

from __future__ import annotations

import sys

import torch

try:
    from pyparam import _C
except ImportError as error:  # pragma: no cover - exercised in a subprocess
    raise ImportError(
        "pyparam's native extension is not built for this Python and PyTorch "
        f"({torch.__version__}). Build it with: pip install --no-build-isolation . "
        f"(the import said: {error})"
    ) from error

__all__ = ["_C"]


def need_gil() -> None:
    """The native walk reads Python's dicts as they are in memory, which the GIL keeps still.

    A free-threaded interpreter enables the GIL when the extension is imported, unless it was told not to.
    """
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is not None and not enabled():
        raise ImportError(
            "pyparam needs the GIL, and this free-threaded interpreter runs without it: "
            "leave out PYTHON_GIL=0 and -X gil=0"
        )


need_gil()
