"""The ``.metadata`` of torch.distributed.checkpoint: a pickle of a dozen kinds of record, read as data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from pyparam._base.words import a_kind, a_name
from pyparam._sources.pieces import Piece, Whole, check_cover, check_inside, is_shape
from pyparam._sources.stored import TensorWorld
from pyparam._sources.unpickle import NeedsCode, PickleError, Record, Reference, unpickled

METADATA = ".metadata"
LONGEST_METADATA = 1 << 30
_UNITS = 1.0
"""A byte of ``.metadata`` makes 0.58 to 0.71 units, whether of many tensors or of many pieces."""

# Each is a Record whose state is a dict of its fields.
_RECORDS = {
    "Metadata",
    "TensorStorageMetadata",
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "TensorProperties",
    "MetadataIndex",
    "StorageMeta",
    "_StorageInfo",
    "_MEM_FORMAT_ENCODING",
    "MEM_FORMAT_ENCODING",
}
_MODULES = ("torch.distributed.checkpoint.", "torch.distributed._shard.")
_PATHS = {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"}


class _MetadataWorld(TensorWorld):
    def find(self, module: str, name: str) -> Any:
        if name in _RECORDS and module.startswith(_MODULES):
            return Reference("records", name)
        if name in _PATHS and module.partition(".")[0] == "pathlib":
            return Reference("pathlib", name)
        if (module, name) == ("torch", "strided"):
            return torch.strided
        return super().find(module, name)

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(function, Reference) and function.module in ("records", "pathlib"):
            return Record(function, arguments)
        return super().call(function, arguments)

    def build(self, made: Any, state: Any) -> None:
        if isinstance(made, Record):
            # A class with slots gives (None, state).
            made.state = (
                state[1] if isinstance(state, tuple) and len(state) == 2 and state[0] is None else state
            )
        else:
            super().build(made, state)


class Listed(NamedTuple):
    """What a ``.metadata`` lists."""

    wholes: dict[str, Whole]
    others: dict[str, Piece]
    """Entries that are no tensors, each in one piece without extents."""
    told: dict[str, Any]


class Reader:
    """Reads one directory's ``.metadata``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, Path] = {}  # by their names, of which there are few

    def read(self) -> Listed:
        """Raises ValueError that names the directory, and the entry where one is at fault."""
        file = self.path / METADATA
        if file.stat().st_size > LONGEST_METADATA:
            self.fail(f"its {METADATA} has {file.stat().st_size} bytes; at most {LONGEST_METADATA} are read")
        try:
            root = unpickled(file.read_bytes(), _MetadataWorld(), units=_UNITS)
        except NeedsCode as error:
            self.fail(f"its {METADATA} cannot be read: {error}, no record of the format; code is not run")
        except PickleError as error:
            self.fail(f"its {METADATA} cannot be read: {error}")
        fields = self.fields(root, "Metadata", METADATA)
        entries, places = fields.get("state_dict_metadata"), fields.get("storage_data")
        if not isinstance(entries, dict) or not isinstance(places, dict):
            self.fail(f"its {METADATA} lists no entries")
        stored = self.stored(places)
        wholes: dict[str, Whole] = {}
        others: dict[str, Piece] = {}
        for name, entry in entries.items():
            if not isinstance(name, str):
                self.fail(f"an entry is named by {a_kind(name)}")
            if isinstance(entry, Record) and entry.kind.name == "BytesStorageMetadata":
                others[name] = self.piece(name, (), (), stored.get((name, None)))
            else:
                wholes[name] = self.whole(name, entry, stored)
        version = fields.get("version")
        told = {"version": version} if isinstance(version, str) else {}
        return Listed(wholes, others, told)

    def fields(self, record: Any, kind: str, where: str) -> dict[Any, Any]:
        if not isinstance(record, Record) or getattr(record.kind, "name", None) != kind:
            self.fail(f"{where} is no {kind}")
        if not isinstance(record.state, dict):
            self.fail(f"{where} is {a_name(kind)} without fields")
        return record.state

    def stored(self, places: dict[Any, Any]) -> dict[tuple[str, tuple[int, ...] | None], dict[Any, Any]]:
        found: dict[tuple[str, tuple[int, ...] | None], dict[Any, Any]] = {}
        for index, info in places.items():
            at = self.fields(index, "MetadataIndex", "a place")
            name, offset = at.get("fqn"), at.get("offset")
            if not isinstance(name, str):
                self.fail("a place has no name")
            if offset is not None and not is_shape(offset):
                self.fail(f"entry {name!r} has a piece at {offset!r}")
            key = name, None if offset is None else tuple(offset)
            if key in found:
                self.fail(f"entry {name!r} is stored twice at {offset!r}")
            found[key] = self.fields(info, "_StorageInfo", f"the place of {name!r}")
        return found

    def whole(
        self, name: str, entry: Any, stored: dict[tuple[str, tuple[int, ...] | None], dict[Any, Any]]
    ) -> Whole:
        fields = self.fields(entry, "TensorStorageMetadata", f"entry {name!r}")
        shape, chunks = fields.get("size"), fields.get("chunks")
        dtype = self.dtype(name, fields.get("properties"))
        if not is_shape(shape) or not isinstance(chunks, (list, tuple)):
            self.fail(f"entry {name!r} has no shape, or no pieces")
        shape = tuple(shape)
        if math.prod(shape) * dtype.itemsize >= 1 << 63:
            self.fail(f"entry {name!r} has shape {list(shape)}, which is too large")
        pieces = []
        for chunk in chunks:
            box = self.fields(chunk, "ChunkStorageMetadata", f"a piece of {name!r}")
            offsets, sizes = box.get("offsets"), box.get("sizes")
            if not is_shape(offsets) or not is_shape(sizes):
                self.fail(f"entry {name!r} has a piece without a place")
            offsets, sizes = tuple(offsets), tuple(sizes)
            info = stored.get((name, offsets))
            pieces.append(self.piece(name, offsets, sizes, info))
        check_cover(self.path, name, shape, pieces)
        return Whole(dtype, shape, tuple(pieces))

    def dtype(self, name: str, properties: Any) -> torch.dtype:
        state = properties.state if isinstance(properties, Record) else None
        found = state[0] if isinstance(state, tuple) and state else None
        if isinstance(state, dict):
            found = state.get("dtype")
        if not isinstance(found, torch.dtype):
            self.fail(f"entry {name!r} has no dtype")
        return found

    def piece(
        self, name: str, offsets: tuple[int, ...], sizes: tuple[int, ...], info: dict[Any, Any] | None
    ) -> Piece:
        if info is None:
            self.fail(f"entry {name!r} has no place for its piece at {list(offsets)}")
        file, begin, length = info.get("relative_path"), info.get("offset"), info.get("length")
        if info.get("transform_descriptors"):
            self.fail(
                f"entry {name!r} is stored transformed ({info['transform_descriptors']!r}), which is not read"
            )
        place = begin, length
        if not is_shape(place) or not isinstance(file, str):
            self.fail(f"entry {name!r} has a piece without a file")
        if file not in self._files:
            check_inside(self.path, name, file)
            self._files[file] = self.path / file
        return Piece(offsets, sizes, self._files[file], place[0], place[1], True)

    def fail(self, what: str) -> NoReturn:
        raise ValueError(f"{self.path} cannot be read as a distributed checkpoint: {what}") from None
