"""Checks that the suite tests what it says it tests."""

from __future__ import annotations

import os

import pytest

from pyparam._native import _C


def pytest_sessionstart(session: pytest.Session) -> None:
    """Under ``make sanitize``, the extension in use must be the sanitizer build, or the run proves nothing."""
    if os.environ.get("PYPARAM_EXPECT_SANITIZE") == "1" and "sanitize" not in str(_C.__file__):
        pytest.exit(f"the sanitizer build was asked for, but {_C.__file__} is loaded", returncode=3)
