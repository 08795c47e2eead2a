"""Directories that torch.distributed.checkpoint writes: a ``.metadata`` and pieces of tensors in files.

Nothing of ``torch.distributed.checkpoint`` is imported, and there is no process group: ``.metadata`` is a
pickle of a dozen kinds of record, which are read as the data they are.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyparam._sources.archive import Archive
from pyparam._sources.checkpoint import ByteRange, Checkpoint, TensorInfo
from pyparam._sources.distributed_metadata import METADATA, Reader
from pyparam._sources.mapped import MappedFile
from pyparam._sources.pieces import Piece, Whole, check_cover, is_shape
from pyparam._sources.saved_archive import Unread, saved_in
from pyparam._sources.stand_in import Untold
from pyparam._sources.stored import StorageKey, StoredTensor, contiguous_stride
from pyparam._sources.unpickle import PickleError

LARGEST_ENTRY = 64 << 20
"""An entry of bytes (an optimizer's settings, a step) that is larger is not read."""
BAND = 64 << 20
"""At most so many bytes of a piece are in memory at a time while it is read, or one row, if that is more."""


class DistributedCheckpoint(Checkpoint):
    """A Checkpoint whose tensors are stored in pieces, maybe by many ranks.

    As a mapping it gives whole tensors, put together when they are asked for, and not kept. ``pieces`` tells
    what lies where, and ``read`` reads any box of a tensor without the rest of it. Entries that are no
    tensors are ``extras``. Where files are missing or too short it lists all the same; ``faults`` tells what
    cannot be read then, and reading it raises ValueError.
    """

    __slots__ = ("_whole",)

    def __init__(
        self, path: Path, part: _Part, *, metadata: Mapping[str, Any] | None = None, extras: Mapping[str, Any]
    ) -> None:
        super().__init__(path, [part], metadata=metadata, extras=extras)
        self._whole = part
        self._makes_tensors = True

    def _blank(self) -> DistributedCheckpoint:
        made = DistributedCheckpoint.__new__(DistributedCheckpoint)
        made._whole = self._whole
        return made

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the pieces."""
        return self._whole.files

    def pieces(self, name: str) -> tuple[Piece, ...]:
        """The pieces of a tensor, as saved: boxes that do not overlap and together are the whole.

        Raises KeyError for an unknown name.
        """
        _, position = self._place(name)
        return self._whole.whole(position).pieces

    def read(self, name: str, offsets: Sequence[int], sizes: Sequence[int], out: Tensor) -> None:
        """Reads the box ``[offsets, offsets + sizes)`` of a tensor into ``out``.

        Of the files, only what the box meets is read, a band of at most 64 MiB (or one row) at a time,
        whatever its alignment, and the pages are given back.

        Args:
            name: the tensor.
            offsets: where the box begins, an index a dimension of the whole tensor.
            sizes: its extents.
            out: a strided CPU tensor of shape ``sizes`` and the dtype of ``tensor_info(name)``; written to.

        Raises:
            KeyError: for an unknown name.
            ValueError: for a box outside the tensor, an ``out`` of another shape or dtype, and a piece that
            is
                missing or damaged, by its name and file. ``out`` may be half written only in the latter case.
        """
        if self.closed:
            raise ValueError(f"{self.path} is closed")
        _, position = self._place(name)
        whole = self._whole.whole(position)
        box = tuple(offsets), tuple(sizes)
        _check_box(name, whole, *box)
        if tuple(out.shape) != box[1] or out.dtype != whole.dtype:
            raise ValueError(
                f"read: out for {name!r} is {out.dtype} of shape {list(out.shape)}; "
                f"expected {whole.dtype} of shape {list(box[1])}"
            )
        with torch.no_grad():
            self._whole.read(position, *box, out)

    def boxes(self, name: str) -> list[tuple[Piece, Tensor | None]]:
        """The pieces of a tensor that have elements, each with its values over the file.

        Nothing of them is read. None for values that do not lie in the file as their dtype needs it:
        ``fill`` reads them.

        Raises KeyError for an unknown name, ValueError for a piece that is missing or damaged.
        """
        return list(self._whole.boxes(self._place(name)[1]))

    def fill(self, name: str, piece: Piece, out: Tensor) -> None:
        """Reads one of the ``boxes`` into a tensor of its shape, of any dtype and device, band by band."""
        with torch.no_grad():
            self._whole.read(self._place(name)[1], piece.offsets, piece.sizes, out)

    def faults(self) -> dict[str, str]:
        """Why tensors cannot be read: a piece's file is missing, or too short. Nothing is read."""
        sizes: dict[Path, int | None] = {}
        found = ((name, self._whole.fault(self._place(name)[1], sizes)) for name in self)
        return {name: reason for name, reason in found if reason is not None}

    def mapped_files(self) -> list[MappedFile]:
        return self._whole.opened()


def _check_box(name: str, whole: Whole, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    shape = whole.shape
    inside = len(offsets) == len(sizes) == len(shape) and all(
        begin >= 0 and size >= 0 and begin + size <= extent
        for begin, size, extent in zip(offsets, sizes, shape, strict=True)
    )
    if not inside:
        raise ValueError(
            f"read: the box at {list(offsets)} of sizes {list(sizes)} is not inside {name!r}, of shape "
            f"{list(shape)}"
        )


class _Part:
    """The tensors of a directory, read from all its files."""

    def __init__(self, path: Path, wholes: dict[str, Whole]) -> None:
        self.path = path
        self._names = list(wholes)
        self._wholes = list(wholes.values())
        self._open: dict[Path, MappedFile] = {}
        self._found: dict[Piece, tuple[int, StoredTensor]] = {}

    @property
    def file(self) -> None:
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(piece.file for whole in self._wholes for piece in whole.pieces))

    @property
    def names(self) -> list[str]:
        return self._names

    def whole(self, position: int) -> Whole:
        return self._wholes[position]

    def info(self, position: int) -> TensorInfo:
        dtype, shape, _ = self._wholes[position]
        return TensorInfo(dtype, shape, math.prod(shape) * dtype.itemsize)

    def byte_range(self, position: int) -> ByteRange | None:
        return None  # of one file: pieces() tells

    def tensor(self, position: int) -> Tensor:
        dtype, shape, _ = self._wholes[position]
        made = torch.empty(shape, dtype=dtype, device="cpu")
        self.read(position, (0,) * len(shape), shape, made)
        return made

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def read(self, position: int, offsets: tuple[int, ...], sizes: tuple[int, ...], out: Tensor) -> None:
        name = self._names[position]
        whole = self._wholes[position]
        for piece in whole.pieces:
            begin = tuple(map(max, offsets, piece.offsets))
            end = tuple(
                min(o + s, p + q)
                for o, s, p, q in zip(offsets, sizes, piece.offsets, piece.sizes, strict=True)
            )
            if any(b >= e for b, e in zip(begin, end, strict=True)):
                continue
            target = out
            for axis, (first, last) in enumerate(zip(begin, end, strict=True)):
                target = target.narrow(axis, first - offsets[axis], last - first)
            with self._naming(name, piece):
                self._copy(piece, whole.dtype, begin, end, target)

    def boxes(self, position: int) -> Iterator[tuple[Piece, Tensor | None]]:
        name = self._names[position]
        dtype, _, pieces = self._wholes[position]
        for piece in pieces:
            if 0 in piece.sizes:
                continue
            with self._naming(name, piece):
                file = self._mapped(piece)
                place, layout = self._layout(piece, dtype, file)
                begin = place + layout.offset * dtype.itemsize
                span = 1 + sum((n - 1) * s for n, s in zip(piece.sizes, layout.stride, strict=True))
                if begin + span * dtype.itemsize > file.size:
                    raise ValueError(f"{piece.file.name} ends before it")
                values = None
                if begin % dtype.itemsize == 0:
                    values = file.tensor(begin, dtype, (span,)).as_strided(piece.sizes, layout.stride)
            yield piece, values

    def fault(self, position: int, sizes: dict[Path, int | None]) -> str | None:
        """Why a tensor cannot be read, as far as the sizes of files tell, which are remembered."""
        for piece in self._wholes[position].pieces:
            if 0 in piece.sizes:
                continue
            if piece.file not in sizes:
                sizes[piece.file] = _size(piece.file)
            size = sizes[piece.file]
            if size is not None and piece.begin + piece.length <= size:
                continue
            try:
                with self._naming(self._names[position], piece):
                    _check_reach(piece, size)
            except Untold as error:
                return str(error)
        return None

    def opened(self) -> list[MappedFile]:
        return list(self._open.values())

    @contextlib.contextmanager
    def _naming(self, name: str, piece: Piece) -> Iterator[None]:
        try:
            yield
        except (PickleError, ValueError, OSError) as error:
            raise Untold(
                f"{self.path}: the piece of {name!r} at {list(piece.offsets)} cannot be read: {error}"
            ) from None

    def _copy(
        self, piece: Piece, dtype: torch.dtype, begin: tuple[int, ...], end: tuple[int, ...], target: Tensor
    ) -> None:
        """Copies the box ``[begin, end)`` of the whole tensor, which lies inside ``piece``."""
        file = self._mapped(piece)
        place, layout = self._layout(piece, dtype, file)
        inside = [b - p for b, p in zip(begin, piece.offsets, strict=True)]
        extents = [e - b for b, e in zip(begin, end, strict=True)]
        rows = extents[0] if extents else 1
        step = 1
        if extents:
            within = sum((n - 1) * s for n, s in zip(extents[1:], layout.stride[1:], strict=True)) + 1
            step = max(1, BAND // max(1, max(layout.stride[0], within) * dtype.itemsize))
        for first in range(0, rows, step):
            count = min(step, rows - first)
            part = [count, *extents[1:]] if extents else []
            at = layout.offset
            if extents:
                starts = [inside[0] + first, *inside[1:]]
                at += sum(i * s for i, s in zip(starts, layout.stride, strict=True))
            span = 1 + sum((n - 1) * s for n, s in zip(part, layout.stride, strict=True))
            low = place + at * dtype.itemsize
            flat = file.tensor(low, dtype, (span,))
            rows_of = target.narrow(0, first, count) if extents else target
            rows_of.copy_(flat.as_strided(part, layout.stride))
            del flat
            file.release(low, low + span * dtype.itemsize)

    def _layout(self, piece: Piece, dtype: torch.dtype, file: MappedFile) -> tuple[int, StoredTensor]:
        """Where the storage of a piece begins, and the piece's layout over it."""
        known = self._found.get(piece)
        if known is None:
            if piece.saved:
                known = _saved_layout(piece, file)
            else:
                known = piece.begin, _dense(dtype, piece.sizes, piece.length)
            layout = known[1]
            if layout.dtype != dtype or layout.shape != piece.sizes:
                raise ValueError(
                    f"{piece.file.name} has {layout.dtype} of shape {list(layout.shape)} at byte "
                    f"{piece.begin}; expected {dtype} of shape {list(piece.sizes)}"
                )
            self._found[piece] = known
        return known

    def _mapped(self, piece: Piece) -> MappedFile:
        path = piece.file
        file = self._open.get(path)
        _check_reach(piece, _size(path) if file is None else file.size)
        if file is None:
            with open(path, "rb", buffering=0) as opened:
                file = self._open[path] = MappedFile(path, opened)
        return file


def _size(path: Path) -> int | None:
    """Of a file, in bytes; None where there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _check_reach(piece: Piece, size: int | None) -> None:
    """Raises ValueError unless a piece lies inside its file, of that size."""
    if size is None:
        raise ValueError(f"{piece.file.name} is missing")
    end = piece.begin + piece.length
    if end > size:
        raise ValueError(f"it lies in bytes {piece.begin} to {end} of {piece.file.name}, which has {size}")


def _dense(dtype: torch.dtype, shape: tuple[int, ...], nbytes: int) -> StoredTensor:
    return StoredTensor(StorageKey("", None, nbytes), dtype, 0, shape, contiguous_stride(shape))


def _saved_layout(piece: Piece, file: MappedFile) -> tuple[int, StoredTensor]:
    with open(piece.file, "rb", buffering=0) as opened:
        archive = Archive(piece.file, opened, piece.begin, piece.length)
        root, tensor = saved_in(archive)
        if not isinstance(tensor, StoredTensor):
            raise ValueError(f"{piece.file.name} has no tensor at byte {piece.begin}")
        member = f"{root}data/{tensor.storage.key}"
        if not archive.is_stored(member):
            raise ValueError(f"{piece.file.name} has a compressed tensor at byte {piece.begin}")
        if archive.members[member].size < tensor.storage.nbytes:
            raise ValueError(f"{piece.file.name} has too short a tensor at byte {piece.begin}")
        return archive.place(member), tensor


def is_distributed(path: Path) -> bool:
    """Whether a directory is one."""
    return (path / METADATA).is_file()


def open_directory(path: Path) -> DistributedCheckpoint:
    """Opens a directory with a ``.metadata``, reading that alone, and the entries that are no tensors.

    Raises ValueError that names the directory, and the entry, where its ``.metadata`` is damaged, or leads
    out of the directory.
    """
    listed = Reader(path).read()
    extras = {name: _extra(piece) for name, piece in listed.others.items()}
    made = DistributedCheckpoint(path, _Part(path, listed.wholes), metadata=listed.told, extras=extras)
    return made.written_in("torch.distributed.checkpoint")


def _extra(piece: Piece) -> Any:
    if piece.length > LARGEST_ENTRY:
        return Unread(f"it has {piece.length} bytes")
    try:
        _check_reach(piece, _size(piece.file))
        with open(piece.file, "rb", buffering=0) as opened:
            return saved_in(Archive(piece.file, opened, piece.begin, piece.length))[1]
    except (PickleError, ValueError, OSError) as error:
        return Unread(str(error))


_SHARDING = "DCP_SHARDING_INFO"


def is_sharded(shard: Checkpoint) -> bool:
    """Whether a safetensors file holds pieces, as ``HuggingFaceStorageWriter`` writes them."""
    return _SHARDING in shard.metadata


def open_shards(path: Path, shards: Sequence[Checkpoint]) -> DistributedCheckpoint:
    """The tensors whose pieces lie in safetensors files, each with where its pieces begin in the whole.

    A whole's shape is how far its pieces reach, as the format does not say it.

    Raises ValueError for offsets that are damaged, and for pieces that overlap or leave something out.
    """
    found: dict[str, list[Piece]] = {}
    dtypes: dict[str, torch.dtype] = {}
    for shard in shards:
        offsets = _saved_offsets(shard)
        for name in shard:
            info, place = shard.tensor_info(name), shard.byte_range(name)
            at = offsets.get(name, (0,) * len(info.shape))
            if len(at) != len(info.shape) or place is None:
                raise ValueError(f"{shard.path}: the offsets of entry {name!r} are {list(at)}")
            if dtypes.setdefault(name, info.dtype) != info.dtype:
                raise ValueError(f"{path}: entry {name!r} has pieces of {dtypes[name]} and {info.dtype}")
            piece = Piece(at, info.shape, place.file, place.begin, place.end - place.begin, False)
            found.setdefault(name, []).append(piece)
        shard.close()
    wholes = {}
    for name, pieces in found.items():
        boxes = [zip(piece.offsets, piece.sizes, strict=True) for piece in pieces]
        shape = tuple(max(ends) for ends in zip(*([o + s for o, s in box] for box in boxes), strict=True))
        check_cover(path, name, shape, pieces)
        wholes[name] = Whole(dtypes[name], shape, tuple(pieces))
    made = DistributedCheckpoint(path, _Part(path, wholes), extras={})
    return made.written_in("torch.distributed.checkpoint (safetensors)")


def _saved_offsets(shard: Checkpoint) -> dict[str, tuple[int, ...]]:
    try:
        parsed = json.loads(shard.metadata.get(_SHARDING, "{}"))
        found = {name: tuple(entry["saved_offsets"]) for name, entry in parsed.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shard.path}: its {_SHARDING} is damaged: {error!r}") from None
    for name, offsets in found.items():
        if not is_shape(offsets):
            raise ValueError(f"{shard.path}: the offsets of entry {name!r} are {list(offsets)}")
    return found
