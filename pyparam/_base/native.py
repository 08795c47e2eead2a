"""The one place that imports the compiled extension, so that its absence is explained once."""

from __future__ import annotations

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
