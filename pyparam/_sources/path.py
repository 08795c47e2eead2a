"""Paths, and ``open``, which finds out what a file is."""

from __future__ import annotations

import builtins
import functools
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

from pyparam._base.collector import paused
from pyparam._base.modes import require_memory
from pyparam._base.words import a_kind
from pyparam._sources import (
    distributed,
    distributed_metadata,
    exported_archive,
    gguf,
    numpy_file,
    pickled,
    safetensors,
    script_archive,
    sharded,
)
from pyparam._sources.archive import Archive
from pyparam._sources.checkpoint import Checkpoint

_LOOKED_AT = 512
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"

# Formats that land under a checkpoint's name, with what to say of each.
_FOREIGN = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer: the checkpoint itself was not downloaded (git lfs pull)",
    ),
    (b"\x89HDF", "an HDF5 file, which is not supported"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
)


def open(path: str | os.PathLike[str], *, refused: Literal["raise", "list"] = "raise") -> Checkpoint:
    """Opens a checkpoint, reading its headers alone: tensors are read when they are used.

    What a file is goes by its content:

    - a ``.safetensors`` file, a directory or index of several, or what ``torch.save`` wrote: a
      ``Checkpoint``, a mapping from names to tensors over a memory map. Nested dicts are flattened into
      dotted names.
    - a TorchScript archive or an exported program (``.pt2``): a ``Checkpoint`` too, which tells parameters
      from buffers as the program does. Nothing of the program is run. For the live program, pass what
      ``torch.jit.load`` or ``torch.export.load`` gives.
    - a GGUF file: a ``Checkpoint`` whose quantized tensors are float32, made when they are asked for.
    - an array or an archive of arrays of numpy (``.npy``, ``.npz``): a ``Checkpoint``; the one array of a
      file is named "0".
    - a directory of torch.distributed.checkpoint: a ``Checkpoint`` whose tensors are put together from
      pieces.

    Args:
        path: a file or a directory.
        refused: what becomes of a pickle that needs code to load: ``"raise"``, or ``"list"`` the names,
            dtypes and shapes of what it holds, as far as they can be told without the code; reading a value
            raises ValueError then.

    Raises:
        TypeError: for what is no path.
        FileNotFoundError: for a path that is not there.
        ValueError: naming the file, and the entry where one is at fault, for a file that is truncated,
            corrupt, of another format, or that needs code to load; for a directory without a checkpoint, or
            with several.
    """
    require_memory("open")
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"open: expected a path, got {a_kind(path)}")
    if refused not in ("raise", "list"):
        raise ValueError(f"open: refused is 'raise' or 'list', got {refused!r}")
    opener = functools.partial(_open_file, listing=refused == "list")
    where = Path(os.fsdecode(os.fspath(path)))
    mode = where.stat().st_mode
    if stat.S_ISDIR(mode):
        opened: Checkpoint = sharded.open_directory(where, opener)
        return opened
    if not stat.S_ISREG(mode):
        raise ValueError(f"{where} is neither a file nor a directory")
    if where.name == distributed_metadata.METADATA:
        return distributed.open_directory(where.parent)
    if sharded.is_index(where):
        return sharded.open_index(where, opener)
    return opener(where)


def _open_file(path: Path, *, listing: bool) -> Checkpoint:
    if not path.is_file():  # whoever opens a pipe waits for its other end
        raise ValueError(f"{path} is no regular file")
    # Unbuffered: a header is read to its last byte and no further.
    with builtins.open(path, "rb", buffering=0) as file:
        return _open_by_content(path, file, listing)


def _open_by_content(path: Path, file: BinaryIO, listing: bool) -> Checkpoint:
    size = os.fstat(file.fileno()).st_size
    start = file.read(_LOOKED_AT)
    if not start:
        raise ValueError(f"{path} is empty")
    text = _text(start)
    if text[:9].lower() == "<!doctype" or text[:5].lower() == "<html":
        raise ValueError(f"{path} is a web page, the download went wrong: it begins with {text!r}")
    for magic, what in _FOREIGN:
        if start.startswith(magic) and not safetensors.looks_like(start, size):
            raise ValueError(f"{path} is {what}")
    if start.startswith(gguf.MAGIC) and not safetensors.looks_like(start, size):
        return gguf.open_file(path, file).written_in("GGUF")
    if start.startswith(numpy_file.MAGIC):
        return numpy_file.open_array(path, file)
    if start.startswith(_ZIP):
        return _open_zip(path, file, listing)
    if text and path.suffix == ".safetensors" and not safetensors.looks_like(start, size):
        raise ValueError(f"{path} is text, not a safetensors file: it begins with {text!r}")
    if safetensors.looks_like(start, size) or path.suffix == ".safetensors":
        return safetensors.open_file(path, file).written_in("safetensors")
    if path.suffix == ".json" and start.lstrip()[:1] == b"{":
        return sharded.open_index(path, functools.partial(_open_file, listing=listing))
    if pickled.is_legacy(start):
        return pickled.open_legacy(path, file, listing=listing).written_in("PyTorch (before 1.6)")
    if pickled.is_tar(start):
        return pickled.open_tar(path, file, listing=listing).written_in("PyTorch (tar, before 0.1.10)")
    if start.startswith(_PICKLE):
        raise ValueError(f"{path} is refused: it is a pickle that torch.save did not write, and may run code")
    if path.suffix == ".onnx":
        raise ValueError(f"{path} is an ONNX model, which is not supported")
    raise ValueError(
        f"{path} is not a checkpoint: it is neither safetensors, nor what torch.save, torch.jit.save or "
        "torch.export.save write, nor GGUF, nor of numpy"
    )


def _text(start: bytes) -> str:
    """The first line of what is text, shortened; "" for anything else."""
    for cut in range(4):  # a character may be cut at the end
        try:
            text = start[: len(start) - cut].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        if any(not (c.isprintable() or c in "\r\n\t") for c in text):
            return ""
        line = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return line if len(line) <= 80 else f"{line[:77]}..."
    return ""


def _open_zip(path: Path, file: BinaryIO, listing: bool) -> Checkpoint:
    archive = Archive(path, file)
    if script_archive.is_torchscript(archive):
        return script_archive.open_archive(path, file, archive).written_in("TorchScript")
    if exported_archive.is_exported(archive):
        return exported_archive.open_archive(path, file, archive).written_in("exported program (.pt2)")
    if any(name.count("/") == 1 and name.endswith("/data.pkl") for name in archive.members):
        with paused():
            opened = pickled.open_zip(path, file, archive, listing=listing)
        return opened.written_in("PyTorch (zip archive)")
    if numpy_file.is_npz(archive):
        return numpy_file.open_archive(path, file, archive)
    raise ValueError(f"{path} is a zip archive, and not one that torch wrote: it has no data.pkl")


def accepts(source: object) -> bool:
    return isinstance(source, (str, os.PathLike))
