"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(operation: str, path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives another name in the same directory to write to, which takes the file's place when the block ends.

    A link stays a link: the file it leads to is replaced. An existing file's permissions stay, a new one
    has the usual ones. Where the block raises, nothing is left behind and what was there is as it was.

    Raises:
        IsADirectoryError, FileNotFoundError: the path is a directory, or its directory is not there.
        ValueError: what stands there is no regular file, such as a device or a pipe.
    """
    real = writable(operation, path)
    partial = real.with_name(f".{real.name[:40]}.{uuid.uuid4().hex}.partial")
    try:
        partial.touch()
        mode = (real if real.exists() else partial).stat().st_mode
        yield partial
        partial.chmod(stat.S_IMODE(mode))
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(real)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def writable(operation: str, path: str | os.PathLike[str]) -> Path:
    """Where a path leads, checked as ``replacing`` does: for whoever works long before writing."""
    real = Path(os.path.realpath(os.fsdecode(os.fspath(path))))
    if real.is_dir():
        raise IsADirectoryError(f"{operation}: {path} is a directory; expected the path of a file to write")
    if not real.parent.is_dir():
        raise FileNotFoundError(f"{operation}: there is no directory {real.parent} to write {real.name} in")
    if real.exists() and not real.is_file():
        raise ValueError(f"{operation}: {path} is no regular file, and would be replaced by one")
    return real
