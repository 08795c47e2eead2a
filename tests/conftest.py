"""Checks that the suite tests what it says it tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
import torch
from faces import is_face
from hypothesis import settings

from pyparam._base.native import _C

# The same examples each time, so that a failure comes of what was changed; make fuzz draws others.
settings.register_profile("same", derandomize=True)
settings.register_profile("fuzz", print_blob=True)
settings.load_profile("same")

REQUIRE_CUDA = os.environ.get("PYPARAM_REQUIRE_CUDA") == "1"


def without_cuda() -> str | None:
    """Why tests marked cuda cannot run here."""
    if not _C.BUILT_FOR_CUDA:
        return "the extension is built without CUDA"
    return None if torch.cuda.is_available() else "there is no CUDA device"


def pytest_sessionstart(session: pytest.Session) -> None:
    """The extension in use must be the one that the run is to prove something about."""
    if os.environ.get("PYPARAM_EXPECT_SANITIZE") == "1" and "sanitize" not in str(_C.__file__):
        pytest.exit(f"the sanitizer build was asked for, but {_C.__file__} is loaded", returncode=3)
    if os.environ.get("PYPARAM_EXPECT_CUDA_BUILD") == "1" and not _C.BUILT_FOR_CUDA:
        pytest.exit(f"the CUDA build was asked for, but {_C.__file__} is loaded", returncode=3)
    if REQUIRE_CUDA and without_cuda() is not None:
        pytest.exit(f"PYPARAM_REQUIRE_CUDA=1, but {without_cuda()}", returncode=3)


@pytest.hookimpl(tryfirst=True)  # before marks are selected by
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_face(item.path):
            item.add_marker(pytest.mark.unsanitized)
    reason = without_cuda()
    for item in items:
        marker = item.get_closest_marker("cuda")
        if marker is None:
            continue
        devices = marker.kwargs.get("devices", 1)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif torch.cuda.device_count() < devices:
            item.add_marker(pytest.mark.skip(reason=f"needs {devices} CUDA devices"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CUDA is required, a skipped test marked cuda has failed; but nothing can add a second device."""
    report = yield
    marker = item.get_closest_marker("cuda")
    if REQUIRE_CUDA and marker is not None and report.skipped and not hasattr(report, "wasxfail"):
        if marker.kwargs.get("devices", 1) > torch.cuda.device_count():
            return report
        report.outcome = "failed"
        report.longrepr = f"skipped, though PYPARAM_REQUIRE_CUDA=1: {report.longrepr}"
    return report
