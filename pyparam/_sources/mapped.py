"""A file as tensors over a private memory map: nothing is read until a tensor's bytes are, and no write
reaches it.
"""

from __future__ import annotations

import bisect
import math
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pyparam._base.native import _C

# torch.UntypedStorage.from_file maps with MAP_PRIVATE alone, for which Linux reserves memory as large as the
# file and so refuses a file larger than the machine's memory. Python names the flag only from 3.13 on.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class MappedFile:
    """One open file, with its ``path`` and its ``size`` in bytes. It stays mapped as long as a tensor over it
    lives."""

    __slots__ = ("_map", "path", "size")

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        try:
            self._map: mmap.mmap | None = _mapped(file.fileno())
        except OSError as error:
            raise OSError(
                error.errno, f"cannot map the file into memory: {error.strerror}", str(path)
            ) from None

    @property
    def closed(self) -> bool:
        """Whether it was let go of."""
        return self._map is None

    def close(self) -> None:
        """Lets go of the map; tensors made before keep it."""
        self._map = None

    def _opened(self) -> mmap.mmap:
        if self._map is None:
            raise ValueError(f"{self.path} is closed")
        return self._map

    def storage(self) -> torch.UntypedStorage:
        """The whole file as one storage."""
        return torch.frombuffer(self._opened(), dtype=torch.uint8).untyped_storage()

    def tensor(self, begin: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """A contiguous tensor whose storage is its own bytes of the file, from ``begin``.

        Where they are not aligned as the dtype needs, it is a copy. The range must lie inside the file.
        """
        view = self._opened()
        count = math.prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        if begin % dtype.itemsize:
            own = bytearray(memoryview(view)[begin : begin + count * dtype.itemsize])
            return torch.frombuffer(own, dtype=dtype).reshape(shape)
        return torch.frombuffer(view, dtype=dtype, count=count, offset=begin).reshape(shape)

    def read(self, begin: int, size: int) -> memoryview:
        """The bytes from ``begin``, as they are on disk or as they were written here."""
        return memoryview(self._opened())[begin : begin + size]

    def bytes(self) -> _C.MappedBytes:
        """The file for native code, which makes tensors over it as ``tensor`` does."""
        return _C.MappedBytes(self._opened())

    def span(self) -> tuple[int, int]:
        """Address and size in bytes of the file in memory."""
        return torch.frombuffer(self._opened(), dtype=torch.uint8).data_ptr(), self.size

    def is_pristine(self) -> bool:
        """Whether nothing was written to the map, so that giving its pages back loses nothing.

        False where the system does not tell.
        """
        return bool(pristine([self]))

    def release(self, begin: int, end: int) -> None:
        """Gives the memory of the whole pages inside a byte range back; they are read again when next
        touched.
        """
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._opened().madvise(mmap.MADV_DONTNEED, first, last - first)


def pristine(files: Sequence[MappedFile]) -> list[MappedFile]:
    """Those that are; the system is asked once for all of them, as it looks at every page of the process."""
    spans = [(begin, begin + size, file) for file in files for begin, size in [file.span()]]
    spans.sort(key=lambda span: span[0])
    begins = [begin for begin, _, _ in spans]
    written: set[int] = set()
    low = high = 0
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                first, _, rest = line.partition(" ")
                if "-" in first:
                    low, high = (int(part, 16) for part in first.split("-"))
                elif first == "Anonymous:" and int(rest.split()[0]) > 0:
                    # Maps do not overlap: those that meet it are the last to begin below its end.
                    at = bisect.bisect_left(begins, high)
                    while at > 0 and spans[at - 1][1] > low:
                        at -= 1
                        written.add(at)
    except OSError:
        return []
    return [file for i, (_, _, file) in enumerate(spans) if i not in written]


def _mapped(descriptor: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    return mmap.mmap(
        descriptor, 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
    )
