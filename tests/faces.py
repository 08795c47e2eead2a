"""Which files of tests the sanitizers leave out, for they are not about native code."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

# Of the faces (pyparam._cli, _view and integrations, which call nothing native that other tests do not call:
# test_package.py), of documentation, and of how the package is built.
FACES = (
    "test_bench_compare",
    "test_build",
    "test_cli*",
    "test_cuda_build",
    "test_devices_named",
    "test_docs*",
    "test_integrations*",
    "test_notebook",
    "test_package",
    "test_plot",
    "test_readme",
    "test_report*",
    "test_share_cli",
    "test_show",
)


def is_face(file: Path) -> bool:
    return any(fnmatch(file.stem, face) for face in FACES)
