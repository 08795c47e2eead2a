"""C++ that a benchmark compiles for itself: the loop that it measures beside."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Library = TypeVar("Library", bound=ctypes.CDLL)


def compiled(source: str, flags: Sequence[str], load: type[Library]) -> Library:
    """``source`` as a loaded library: ``ctypes.CDLL``, or ``ctypes.PyDLL`` for one that calls Python."""
    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        program, library = Path(folder, "loop.cpp"), Path(folder, "loop.so")
        program.write_text(source)
        command = [os.environ.get("CXX", "c++"), "-O3", "-std=c++17", "-shared", "-fPIC", *flags]
        subprocess.run([*command, str(program), "-o", str(library)], check=True)
        return load(str(library))
