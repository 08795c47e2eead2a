"""Exported programs in files (.pt2): tensors from their JSON configurations, and nothing else of the program.

``torch.export.load`` unpickles parts of the file, evaluates its symbolic sizes as Python, and loads compiled
libraries. None of that is needed to tell what tensors a program has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from pyparam._base.words import a_kind
from pyparam._sources.archive import Archive
from pyparam._sources.bounds import Names
from pyparam._sources.plain_json import parsed_json
from pyparam._sources.programs import Program
from pyparam._sources.saved_archive import Unread, saved_in
from pyparam._sources.stored import StorageKey, StoredTensor
from pyparam._sources.stored_part import Entry, Home, Homes, StoredPart
from pyparam._sources.unpickle import PickleError

_OLD = "serialized_exported_program.json"
_LONGEST = 8 << 20
"""A configuration may unpack to this, plus four times the archive's size."""

# torch/_export/serde/schema.py: ScalarType, and Layout.Strided
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz,
    32: torch.float8_e5m2fnuz,
    33: getattr(torch, "float8_e8m0fnu", None),
    34: torch.uint32,
    35: torch.uint64,
}
_STRIDED = 7


def is_exported(archive: Archive) -> bool:
    """Whether an archive is one."""
    return _OLD in archive or any(
        n.count("/") == 1 and n.endswith("/archive_format") for n in archive.members
    )


def open_archive(path: Path, file: BinaryIO, archive: Archive) -> Program:
    """Raises ValueError that names the file, and the member or entry, for one that is damaged."""
    return _Reader(path, file, archive).opened()


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, archive: Archive) -> None:
        self.path = path
        self.file = file
        self.archive = archive
        self.homes = Homes(archive)
        self.names = Names(path, archive.length)
        self.found: dict[str, tuple[Home, StoredTensor]] = {}
        self.unread: dict[str, Unread] = {}

    def opened(self) -> Program:
        if _OLD in self.archive:
            program = self.json(_OLD)
            self.saved("serialized_constants.pt")
            self.saved("serialized_state_dict.pt")
        else:
            program = self.packaged()
        entries: dict[str, Entry] = {}
        for name, is_buffer in self.signature(program):
            if name in self.unread:
                self.fail(f"{name!r} cannot be read: {self.unread[name].why}")
            if name not in self.found:
                self.fail(f"it has no values for {name!r}, which its signature lists")
            if name in entries:
                self.fail(f"its signature lists {name!r} twice")
            home, stored = self.found[name]
            stored.parameter = stored.parameter or not is_buffer
            entries[name] = Entry(name, stored, home, is_buffer)
        others = [
            Entry(name, stored, home) for name, (home, stored) in self.found.items() if name not in entries
        ]
        part = StoredPart(self.path, self.file, [*entries.values(), *others])
        extras: dict[str, Any] = {entry.name: part.tensor(len(entries) + i) for i, entry in enumerate(others)}
        extras |= self.unread
        return Program(self.path, part, list(entries.values()), removes_duplicates=False, extras=extras)

    def packaged(self) -> Any:
        """Reads what ``torch.export.save`` writes today; gives the program."""
        formats = [n for n in self.archive.members if n.count("/") == 1 and n.endswith("/archive_format")]
        root = formats[0].removesuffix("archive_format")
        if len(formats) > 1:
            self.fail("it has several roots")
        models = [
            name.removeprefix(f"{root}models/").removesuffix(".json")
            for name in self.archive.members
            if name.startswith(f"{root}models/") and name.endswith(".json")
        ]
        if len(models) != 1 and "model" not in models:
            what = f"programs named {', '.join(models[:4])}" if models else "no program, maybe compiled code"
            self.fail(f"it holds {what}; expected one")
        model = "model" if "model" in models else models[0]
        for kind in ("constants", "weights"):
            folder = f"{root}data/{kind}/"
            if f"{folder}{model}.pt" in self.archive:
                self.saved(f"{folder}{model}.pt")
            else:
                self.configured(folder, f"{folder}{model}_{kind}_config.json")
        return self.json(f"{root}models/{model}.json")

    def configured(self, folder: str, member: str) -> None:
        parsed = self.json(member)
        config = parsed.get("config") if isinstance(parsed, dict) else None
        if not isinstance(config, dict):
            self.fail(f"{member} has no configuration")
        for name, payload in config.items():
            self.names.spend(name)
            path = payload.get("path_name") if isinstance(payload, dict) else None
            if not isinstance(path, str):
                self.fail(f"{member}: entry {name!r} names no payload")
            meta, as_pickle = payload.get("tensor_meta"), payload.get("use_pickle")
            if path.startswith(("custom_obj_", "opaque_obj_")):
                self.unread[name] = Unread("it is a pickled object")
            elif as_pickle is False and isinstance(meta, dict):
                self.described(member, name, folder + path, meta)
            else:
                self.saved(folder + path, name)

    def described(self, config: str, name: str, member: str, meta: dict[Any, Any]) -> None:
        """A tensor over its bytes, as a configuration describes it."""
        code, layout = meta.get("dtype"), meta.get("layout")
        dtype = _DTYPES.get(code) if type(code) is int else None
        if dtype is None or layout != _STRIDED:
            self.unread[name] = Unread(f"it has dtype {code!r} and layout {layout!r}")
            return
        if member not in self.archive:
            self.fail(f"{config}: entry {name!r} is in {member!r}, which is not there")
        sizes, strides, offset = (
            self.numbers(config, name, meta.get(key)) for key in ("sizes", "strides", "storage_offset")
        )
        storage = StorageKey(member, None, self.archive.members[member].size)
        try:
            stored = StoredTensor(
                storage, dtype, offset[0], sizes, strides, meta.get("requires_grad") is True
            )
        except PickleError as error:
            self.fail(f"{config}: entry {name!r} in {member!r}: {error}")
        self.found[name] = self.homes.of(member), stored

    def numbers(self, config: str, name: str, value: Any) -> tuple[int, ...]:
        items = value if isinstance(value, list) else [value]
        found = tuple(item.get("as_int") if isinstance(item, dict) else None for item in items)
        if not all(type(n) is int and 0 <= n < 1 << 63 for n in found):
            self.fail(f"{config}: entry {name!r} has sizes or strides that are no numbers")
        return found  # type: ignore[return-value]

    def saved(self, member: str, name: str | None = None) -> None:
        """What ``torch.save`` wrote into a member: one tensor, or a dict of them."""
        if member not in self.archive:
            self.fail(f"it has no member {member!r}")
        size = self.archive.members[member].size
        if not self.archive.is_stored(member):
            self.fail(f"its member {member!r} is compressed")
        try:
            inner = Archive(self.path, self.file, self.archive.place(member), size)
            root, value = saved_in(inner)
            homes = Homes(inner)
        except PickleError as error:
            if name is None:
                self.fail(f"its member {member!r}: {error}")
            self.unread[name] = Unread(str(error))
            return
        for key, stored in value.items() if name is None and isinstance(value, dict) else [(name, value)]:
            if not isinstance(key, str):
                self.fail(f"its member {member!r} names a tensor by {a_kind(key)}")
            if isinstance(stored, StoredTensor):
                self.names.spend(key)
                self.found[key] = homes.of(f"{root}data/{stored.storage.key}"), stored
            else:
                self.unread[key] = Unread(f"it is {a_kind(stored)}")

    def signature(self, program: Any) -> list[tuple[str, bool]]:
        """The names of parameters, then of buffers, and whether each is a buffer."""
        try:
            specs = program["graph_module"]["signature"]["input_specs"]
            parameters = [s["parameter"]["parameter_name"] for s in specs if s.get("parameter")]
            buffers = [s["buffer"]["buffer_name"] for s in specs if s.get("buffer")]
        except (TypeError, KeyError, AttributeError):
            self.fail("its program has no signature")
        if not all(isinstance(name, str) for name in (*parameters, *buffers)):
            self.fail("its signature names something by no text")
        return [(name, False) for name in parameters] + [(name, True) for name in buffers]

    def json(self, member: str) -> Any:
        text = self.archive.read(member, _LONGEST + 4 * self.archive.length)
        try:
            return parsed_json(text)
        except ValueError as error:
            self.fail(f"{member} is no JSON: {error}")

    def fail(self, what: str) -> NoReturn:
        raise ValueError(f"{self.path} cannot be read as an exported program: {what}") from None
