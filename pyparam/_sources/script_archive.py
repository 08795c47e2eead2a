"""TorchScript archives: modules from ``data.pkl``, and from the text of ``code/`` what of them is a
parameter.

``torch.jit.load`` compiles that text and runs every ``__setstate__`` in it. Here the pickle makes records,
and of the text only the two lines are read in which a class lists its parameters and buffers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pyparam._base.words import a_kind
from pyparam._sources.archive import Archive
from pyparam._sources.bounds import Names
from pyparam._sources.programs import Program
from pyparam._sources.stored import StoredTensor, TensorWorld
from pyparam._sources.stored_part import Entry, Homes, StoredPart
from pyparam._sources.unpickle import PickleError, Record, Reference, unpickled

_CLASS = re.compile(r"^class ([^\s(]+)\((\w+)\):$", re.M)
_LISTED = re.compile(r"^  __(parameters|buffers)__ = \[(.*)\]$", re.M)
_QUOTED = re.compile(r'"([^"]*)"')  # names stand as they are: torch escapes nothing
_OWN_PICKLES = 8 << 20
"""A pickle or a source text may unpack to this, plus four times the archive's size."""


def is_torchscript(archive: Archive) -> bool:
    """Whether an archive is one."""
    return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.members)


def open_archive(path: Path, file: BinaryIO, archive: Archive) -> Program:
    """Raises ValueError that names the file, and the member, for one that is damaged."""
    return _Reader(path, archive).opened(file)


class _Declared:
    """What a class's text says it has."""

    __slots__ = ("buffers", "is_module", "parameters")

    def __init__(self, is_module: bool, parameters: frozenset[str], buffers: frozenset[str]) -> None:
        self.is_module = is_module
        self.parameters = parameters
        self.buffers = buffers


class _Reader:
    def __init__(self, path: Path, archive: Archive) -> None:
        self.path = path
        self.archive = archive
        self.homes = Homes(archive)
        self.root = next(n for n in archive.members if n.count("/") == 1 and n.endswith("/constants.pkl"))
        self.root = self.root.removesuffix("constants.pkl")
        self.most = _OWN_PICKLES + 4 * archive.length
        self.names = Names(path, archive.length)
        self.texts: dict[str, dict[str, _Declared]] = {}
        self.extras: dict[str, Any] = {}

    def opened(self, file: BinaryIO) -> Program:
        order = f"{self.root}byteorder"
        if order in self.archive and self.archive.read(order, 16).strip() not in (b"little", b""):
            self.fail("it was written on a machine of another byte order")
        module = self.pickle("data")
        if not isinstance(module, Record):
            self.fail("its data.pkl holds no module")
        entries = list(self.entries(module))
        for number, constant in enumerate(self.constants()):
            if isinstance(constant, StoredTensor):
                self.extra(f"constants.c{number}", constant, "constants")
        others = [
            Entry(name, stored, self.homes.of(f"{self.root}{where}/{stored.storage.key}"))
            for name, (stored, where) in self.extras.items()
        ]
        part = StoredPart(self.path, file, [*entries, *others])
        extras = {entry.name: part.tensor(len(entries) + i) for i, entry in enumerate(others)}
        return Program(self.path, part, entries, removes_duplicates=True, extras=extras)

    def constants(self) -> tuple[Any, ...]:
        found = self.pickle("constants")
        return found if isinstance(found, tuple) else ()

    def pickle(self, name: str) -> Any:
        member = f"{self.root}{name}.pkl"
        try:
            return unpickled(self.archive.read(member, self.most), _ScriptWorld())
        except PickleError as error:
            self.fail(f"{member}: {error}")

    def extra(self, name: str, stored: StoredTensor, where: str = "data") -> None:
        self.names.spend(name)
        self.extras[name] = stored, where

    def entries(self, root: Record) -> Iterator[Entry]:
        """Every module's parameters, then its buffers, then its children's: the order of a walk."""
        stack = [("", root, 0)]
        on_path: list[int] = []
        while stack:
            prefix, module, depth = stack.pop()
            self.names.check_depth(depth)
            del on_path[depth:]
            if id(module) in on_path:
                self.fail(f"the module {prefix[:-1]!r} holds itself")
            on_path.append(id(module))
            self.names.spend(prefix)
            declared = self.declared(module, prefix)
            state = module.state if isinstance(module.state, dict) else {}
            if not isinstance(module.state, (dict, type(None))):
                # What a class's own __getstate__ gave: its code alone knows what it means.
                self.opaque(prefix, module.state)
            children = []
            tensors: dict[bool, list[Entry]] = {False: [], True: []}
            for key, value in state.items():
                if not isinstance(key, str):
                    self.fail(f"the module {prefix[:-1]!r} has an attribute named by {a_kind(key)}")
                name = prefix + key
                if isinstance(value, Record) and self.is_module(value):
                    children.append((name + ".", value, depth + 1))
                elif isinstance(value, StoredTensor):
                    is_buffer = key in declared.buffers
                    if is_buffer or key in declared.parameters:
                        self.names.spend(name)
                        member = f"{self.root}data/{value.storage.key}"
                        tensors[is_buffer].append(Entry(name, value, self.homes.of(member), is_buffer))
                    else:
                        self.extra(name, value)
            yield from tensors[False]
            yield from tensors[True]
            stack += reversed(children)

    def opaque(self, prefix: str, state: Any) -> None:
        values = state if isinstance(state, (tuple, list)) else (state,)
        for number, value in enumerate(values):
            if isinstance(value, StoredTensor):
                self.extra(f"{prefix}__getstate__.{number}", value)

    def is_module(self, record: Record) -> bool:
        kind = record.kind
        if not isinstance(kind, Reference) or kind.module.partition(".")[0] != "__torch__":
            return False
        found = self.text(kind.module).get(kind.name)
        return found is not None and found.is_module

    def declared(self, record: Record, prefix: str) -> _Declared:
        kind = record.kind
        found = self.text(kind.module).get(kind.name) if isinstance(kind, Reference) else None
        if found is None:
            self.fail(f"its code declares no class {kind}, of which the module {prefix[:-1]!r} is")
        return found

    def text(self, module: str) -> dict[str, _Declared]:
        """The classes that a file of the code declares."""
        known = self.texts.get(module)
        if known is None:
            member = f"{self.root}code/{module.replace('.', '/')}.py"
            text = ""
            if member in self.archive:
                try:
                    text = self.archive.read(member, self.most).decode()
                except UnicodeDecodeError:
                    self.fail(f"{member} is not UTF-8")
            known = self.texts[module] = dict(_classes(text))
        return known

    def fail(self, what: str) -> NoReturn:
        raise ValueError(f"{self.path} cannot be read as a TorchScript archive: {what}") from None


def _classes(text: str) -> Iterator[tuple[str, _Declared]]:
    found = list(_CLASS.finditer(text))
    for number, match in enumerate(found):
        end = found[number + 1].start() if number + 1 < len(found) else len(text)
        listed = {"parameters": frozenset[str](), "buffers": frozenset[str]()}
        for line in _LISTED.finditer(text, match.end(), end):
            listed[line[1]] = frozenset(_QUOTED.findall(line[2]))
        yield match[1], _Declared(match[2] == "Module", listed["parameters"], listed["buffers"])


class _ScriptWorld(TensorWorld):
    """Every name is a stand-in. ``torch.jit._pickle`` has what wraps typed lists and dicts."""

    def find(self, module: str, name: str) -> Any:
        try:
            return super().find(module, name)
        except PickleError:
            return Reference(module, name)

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(function, Reference):
            if function.module == "torch.jit._pickle":
                return arguments[0] if arguments else None
            if function.module.partition(".")[0] == "__torch__":
                return Record(function, arguments)
        try:
            return super().call(function, arguments)
        except PickleError:
            if isinstance(function, Reference) and not function.name.startswith("_rebuild_tensor"):
                return Record(function, arguments)
            raise

    def build(self, made: Any, state: Any) -> None:
        if isinstance(made, Record):
            made.state = state
        else:
            super().build(made, state)
