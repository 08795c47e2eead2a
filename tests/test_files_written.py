"""save_file and report write a file whole, and replace no other kind of thing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import pyparam
from pyparam._base.files import replacing

VERBS = {
    "save_file": lambda path: pyparam.save_file(nn.Linear(2, 2), path),
    "report": lambda path: pyparam.report(nn.Linear(2, 2), path),
}
verbs = pytest.mark.parametrize("verb", VERBS)


@verbs
def test_a_pipe_is_refused_and_stays(verb: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(
        ValueError, match=f"{verb}: {re.escape(str(pipe))} is no regular file, and would be replaced"
    ):
        VERBS[verb](pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@verbs
def test_a_device_is_refused(verb: str) -> None:
    with pytest.raises(ValueError, match=f"{verb}: /dev/null is no regular file"):
        VERBS[verb]("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@verbs
def test_a_link_stays_and_its_file_is_replaced(verb: str, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    (folder / "file").chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(folder / "file")
    VERBS[verb](link)
    assert link.is_symlink()
    assert (folder / "file").stat().st_size > 3
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640
    assert os.listdir(folder) == ["file"]


@verbs
def test_a_link_that_leads_nowhere_yet_makes_its_file(verb: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new")
    VERBS[verb](link)
    assert link.is_symlink()
    assert (tmp_path / "new").is_file()


@verbs
def test_no_directory_and_a_directory(verb: str, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=f"{verb}: {re.escape(str(tmp_path))} is a directory"):
        VERBS[verb](tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{verb}: there is no directory"):
        VERBS[verb](tmp_path / "no" / "file")


def interrupted(partial: Path) -> None:
    partial.write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("fail", [interrupted])
def test_what_fails_leaves_the_old_file(fail: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write() -> None:
        with replacing("write", path) as partial:
            fail(partial)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
