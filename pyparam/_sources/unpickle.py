"""A pickle machine that runs nothing: it makes plain data, and asks a ``World`` about all else.

Python's own unpickler calls what a file names; this one knows no callable. What a name stands for, and what
becomes of an object that is called, made or given a state, a ``World`` says, and a world knows its format's
few names. Every step costs what it reads: no memo grows by an index, no length is believed that the data does
not have, no key of a dict is hashed that could take for ever, and nothing recurses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pyparam._base.words import a_kind

# Python hashes an integer modulo this prime: larger keys could be made to collide.
_LARGEST_KEY = (1 << 61) - 1
_LONGEST_INTEGER = 1 << 10
_LONGEST_KEY = 64
# What is made is counted in units of at most about 64 bytes: a pickle may make so many, and some for each of
# its bytes (torch.save makes 0.56 at most, of a list of parameters).
_FREE_UNITS = 400_000
_CONTAINER, _OBJECT, _NOTED = 2, 6, 2


class PickleError(ValueError):
    """A pickle that is damaged, or that does what its world does not know."""


class NeedsCode(PickleError):
    """A pickle that refers to something its world does not know: ``reference`` is its dotted name."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"it refers to {reference}")
        self.reference = reference


class World(Protocol):
    """What the names of a pickle stand for. Each method may raise ``PickleError``."""

    def find(self, module: str, name: str) -> Any:
        """What stands for ``module.name``."""

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """What ``function(*arguments)`` gives."""

    def make(self, kind: Any, arguments: tuple[Any, ...], named: dict[Any, Any]) -> Any:
        """What ``kind.__new__(kind, *arguments, **named)`` gives."""

    def build(self, made: Any, state: Any) -> None:
        """Gives an object its state."""

    def persistent(self, reference: Any) -> Any:
        """What lies outside the pickle under ``reference``."""


class Reference(NamedTuple):
    """A global by its name: nothing more is known of it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """A stand-in for an object: what it was made of, and the state it was given."""

    __slots__ = ("arguments", "entries", "kind", "state")

    def __init__(self, kind: Any, arguments: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None
        self.entries: list[Any] = []
        """What was appended to it, or set in it as (key, value), were it a list or a dict of a class's
        own."""


class _Mark:
    __slots__ = ()


_MARK = _Mark()


def unpickled(
    data: bytes | bytearray, world: World, *, start: int = 0, text: str = "utf-8", units: float = 0.6
) -> Any:
    """The object of the pickle that begins at ``start``. Raises PickleError.

    ``units`` is how many it may make for each of its bytes.
    """
    return Machine(data, world, start=start, text=text, units=units).run()


class Machine:
    """One pickle being read; ``position`` is where it ended."""

    def __init__(
        self,
        data: bytes | bytearray,
        world: World,
        *,
        start: int = 0,
        text: str = "utf-8",
        units: float = 0.6,
    ) -> None:
        self.data = data
        self.position = start
        self._world = world
        self._text = text
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._units = _FREE_UNITS + int(len(data) * units)

    def run(self) -> Any:
        steps = _STEPS
        data = self.data
        end = len(data)
        stack, memo = self._stack, self._memo
        word = struct.Struct("<I").unpack_from
        try:
            while (position := self.position) < end:
                code = data[position]
                # Half of all instructions take from the memo, note in it, or push a small number: here they
                # are what their steps do, where nothing is wrong.
                if (
                    code == _LONG_GET
                    and position + 4 < end
                    and (index := word(data, position + 1)[0]) in memo
                ):
                    stack.append(memo[index])
                    self.position = position + 5
                    continue
                if code == _GET and position + 1 < end and (index := data[position + 1]) in memo:
                    stack.append(memo[index])
                    self.position = position + 2
                    continue
                if (
                    code == _LONG_PUT
                    and position + 4 < end
                    and stack
                    and (top := stack[-1]) is not _MARK
                    and self._units >= _NOTED
                ):
                    self._units -= _NOTED
                    memo[word(data, position + 1)[0]] = top
                    self.position = position + 5
                    continue
                if code == _BYTE and position + 1 < end:
                    stack.append(data[position + 1])
                    self.position = position + 2
                    continue
                self.position = position + 1
                if code == _STOP:
                    return self._pop()
                step = steps.get(code)
                if step is None:
                    raise PickleError(f"{bytes([code])!r} is no instruction of a pickle")
                step(self)
        except PickleError:
            raise
        except (struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            where = self.position
            raise PickleError(f"the pickle is damaged before byte {where}: {error}") from None
        raise PickleError("the pickle is truncated: it has no end")

    # What instructions share.

    def _take(self, count: int) -> bytes:
        begin = self.position
        if count < 0 or count > len(self.data) - begin:
            raise PickleError(f"the pickle is truncated: {count} bytes wanted at byte {begin}")
        self.position = begin + count
        return bytes(self.data[begin : begin + count])

    def _number(self, form: str, size: int) -> Any:
        return struct.unpack(form, self._take(size))[0]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise PickleError("the pickle is truncated inside a line")
        line = bytes(self.data[self.position : end])
        self.position = end + 1
        return line.decode("utf-8")

    def _spend(self, units: int) -> None:
        self._units -= units
        if self._units < 0:
            raise PickleError("it makes more than its size can explain")

    def _made(self, value: Any) -> None:
        self._spend(_CONTAINER)
        self._stack.append(value)

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("the pickle is damaged: it takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("the pickle is damaged: it takes from an empty stack")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        stack = self._stack
        position = len(stack) - 1
        while position >= 0 and stack[position] is not _MARK:
            position -= 1
        if position < 0:
            raise PickleError("the pickle is damaged: it has no mark")
        items = stack[position + 1 :]
        del stack[position:]
        return items

    def _arguments(self) -> tuple[Any, ...]:
        arguments = self._pop()
        self._spend(_OBJECT)
        if not isinstance(arguments, tuple):
            raise PickleError(f"it calls with {a_kind(arguments)} for arguments")
        return arguments

    # Instructions.

    def _proto(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            raise PickleError(f"pickle protocol {version} is not known")

    def _frame(self) -> None:
        self._number("<Q", 8)  # says how much may be read at once, and this reads from memory

    def _long(self, count: int) -> None:
        if count > _LONGEST_INTEGER:
            raise PickleError(f"an integer of {count} bytes")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _decimal(self) -> None:
        line = self._line()
        if line in ("00", "01"):
            self._push(line == "01")
            return
        if len(line) > _LONGEST_INTEGER:
            raise PickleError(f"an integer of {len(line)} digits")
        self._push(int(line.removesuffix("L")))

    def _quoted(self) -> None:
        line = self._line()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"":
            raise PickleError("the pickle is damaged: a text without its quotes")
        inner = line[1:-1]
        if "\\" in inner:
            inner = inner.encode("latin-1", "replace").decode("unicode_escape")
        self._push(inner)

    def _old_text(self, count: int) -> None:
        data = self._take(count)
        self._push(data if self._text == "bytes" else data.decode(self._text))

    def _unicode(self, count: int) -> None:
        self._push(self._take(count).decode("utf-8", "surrogatepass"))

    def _raw_unicode(self) -> None:
        self._push(self._line().encode("utf-8").decode("raw_unicode_escape"))

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._made(tuple(reversed(items)))

    def _dict(self) -> None:
        made: dict[Any, Any] = {}
        self._set_all(made, self._to_mark())
        self._made(made)

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Record):
            target.entries.extend(items)
        else:
            raise PickleError(f"it appends to {a_kind(target)}")

    def _set_items(self, items: list[Any]) -> None:
        self._set_all(self._top(), items)

    def _set_all(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise PickleError("the pickle is damaged: a key without a value")
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(target, dict):
            for key, value in pairs:
                target[checked_key(key)] = value
        elif isinstance(target, Record):
            target.entries.extend(pairs)
        else:
            raise PickleError(f"it sets entries of {a_kind(target)}")

    def _add_items(self) -> None:
        items = self._to_mark()
        target = self._top()
        if not isinstance(target, set):
            raise PickleError(f"it adds to {a_kind(target)}")
        target.update(checked_key(item) for item in items)

    def _frozen_set(self) -> None:
        self._made(frozenset(checked_key(item) for item in self._to_mark()))

    def _put(self, index: int) -> None:
        self._spend(_NOTED)
        self._memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError(f"the pickle is damaged: it has no memo {index}")
        self._push(self._memo[index])

    def _global(self) -> None:
        module = self._line()
        self._push(self._world.find(module, self._line()))

    def _stack_global(self) -> None:
        name = self._pop()
        module = self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("the pickle is damaged: a name that is no text")
        self._push(self._world.find(module, name))

    def _reduce(self) -> None:
        arguments = self._arguments()
        self._push(self._world.call(self._pop(), arguments))

    def _new_object(self) -> None:
        arguments = self._arguments()
        self._push(self._world.make(self._pop(), arguments, {}))

    def _new_object_named(self) -> None:
        named = self._pop()
        if not isinstance(named, dict):
            raise PickleError(f"it calls with {a_kind(named)} for named arguments")
        arguments = self._arguments()
        self._push(self._world.make(self._pop(), arguments, named))

    def _instance(self) -> None:
        items = self._to_mark()
        self._spend(_OBJECT)
        module = self._line()
        self._push(self._world.make(self._world.find(module, self._line()), tuple(items), {}))

    def _object(self) -> None:
        items = self._to_mark()
        self._spend(_OBJECT)
        if not items:
            raise PickleError("the pickle is damaged: an object without a class")
        self._push(self._world.make(items[0], tuple(items[1:]), {}))

    def _build(self) -> None:
        state = self._pop()
        self._world.build(self._top(), state)

    def _pop_one(self) -> None:
        if not self._stack:
            raise PickleError("the pickle is damaged: it takes from an empty stack")
        self._stack.pop()


def checked_key(key: Any) -> Any:
    """``key``, if looking it up costs little whatever it is."""
    if type(key) is str:
        return key
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > _LONGEST_KEY:
        raise PickleError(f"a key of {len(parts)} parts")
    for part in parts:
        if isinstance(part, (tuple, frozenset)):
            raise PickleError("a key of nested tuples")
        if isinstance(part, int) and abs(part) >= _LARGEST_KEY:
            raise PickleError("a key that is an integer of more than 61 bits")
        if isinstance(part, (list, dict, set, bytearray)):
            raise PickleError(f"{a_kind(part)} for a key")
    return key


_STOP, _GET, _LONG_GET, _LONG_PUT, _BYTE = b".hjrK"

_STEPS: dict[int, Callable[[Machine], None]] = {
    code[0]: step
    for code, step in {
        b"\x80": Machine._proto,
        b"\x95": Machine._frame,
        b"(": lambda m: m._push(_MARK),
        b"0": Machine._pop_one,
        b"1": lambda m: m._to_mark() and None,
        b"2": lambda m: m._push(m._top()),
        b"N": lambda m: m._push(None),
        b"\x88": lambda m: m._push(True),
        b"\x89": lambda m: m._push(False),
        b"I": Machine._decimal,
        b"L": Machine._decimal,
        b"J": lambda m: m._push(m._number("<i", 4)),
        b"K": lambda m: m._push(m._take(1)[0]),
        b"M": lambda m: m._push(m._number("<H", 2)),
        b"\x8a": lambda m: m._long(m._take(1)[0]),
        b"\x8b": lambda m: m._long(m._number("<i", 4)),
        b"F": lambda m: m._push(float(m._line())),
        b"G": lambda m: m._push(m._number(">d", 8)),
        b"S": Machine._quoted,
        b"T": lambda m: m._old_text(m._number("<i", 4)),
        b"U": lambda m: m._old_text(m._take(1)[0]),
        b"V": Machine._raw_unicode,
        b"X": lambda m: m._unicode(m._number("<I", 4)),
        b"\x8c": lambda m: m._unicode(m._take(1)[0]),
        b"\x8d": lambda m: m._unicode(m._number("<Q", 8)),
        b"B": lambda m: m._push(m._take(m._number("<I", 4))),
        b"C": lambda m: m._push(m._take(m._take(1)[0])),
        b"\x8e": lambda m: m._push(m._take(m._number("<Q", 8))),
        b"\x96": lambda m: m._made(bytearray(m._take(m._number("<Q", 8)))),
        b")": lambda m: m._push(()),
        b"\x85": lambda m: m._tuple(1),
        b"\x86": lambda m: m._tuple(2),
        b"\x87": lambda m: m._tuple(3),
        b"t": lambda m: m._made(tuple(m._to_mark())),
        b"]": lambda m: m._made([]),
        b"l": lambda m: m._made(m._to_mark()),
        b"a": lambda m: m._append([m._pop()]),
        b"e": lambda m: m._append(m._to_mark()),
        b"}": lambda m: m._made({}),
        b"d": Machine._dict,
        b"s": lambda m: m._set_items([m._pop(), m._pop()][::-1]),
        b"u": lambda m: m._set_items(m._to_mark()),
        b"\x8f": lambda m: m._made(set()),
        b"\x90": Machine._add_items,
        b"\x91": Machine._frozen_set,
        b"p": lambda m: m._put(int(m._line())),
        b"q": lambda m: m._put(m._take(1)[0]),
        b"r": lambda m: m._put(m._number("<I", 4)),
        b"\x94": lambda m: m._put(len(m._memo)),
        b"g": lambda m: m._get(int(m._line())),
        b"h": lambda m: m._get(m._take(1)[0]),
        b"j": lambda m: m._get(m._number("<I", 4)),
        b"P": lambda m: m._push(m._world.persistent(m._line())),
        b"Q": lambda m: m._push(m._world.persistent(m._pop())),
        b"c": Machine._global,
        b"\x93": Machine._stack_global,
        b"R": Machine._reduce,
        b"\x81": Machine._new_object,
        b"\x92": Machine._new_object_named,
        b"i": Machine._instance,
        b"o": Machine._object,
        b"b": Machine._build,
    }.items()
}
