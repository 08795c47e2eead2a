"""What every format's pickles may name: ordered dicts, sets, bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pyparam._base.words import a_kind
from pyparam._sources.unpickle import NeedsCode, PickleError, Reference, checked_key


class PlainWorld:
    """What every format's pickles may name: ordered dicts, sets, bytes; nothing else. Formats add to it."""

    def find(self, module: str, name: str) -> Any:
        known = _PLAIN.get((module, name))
        if known is None:
            raise NeedsCode(f"{module}.{name}")
        return known

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(function, Reference):
            maker = _MAKERS.get(function.name)
            if maker is not None:
                return maker(*arguments)
        raise PickleError(f"it calls {_named(function)}")

    def make(self, kind: Any, arguments: tuple[Any, ...], named: dict[Any, Any]) -> Any:
        if named:
            raise PickleError(f"it makes {_named(kind)} with named arguments")
        return self.call(kind, arguments)

    def build(self, made: Any, state: Any) -> None:
        # An ordered dict carries attributes, such as a state dict's _metadata: they say nothing of values.
        if not isinstance(made, OrderedDict):
            raise PickleError(f"it gives a state to {a_kind(made)}")

    def persistent(self, reference: Any) -> Any:
        raise PickleError("it refers to something outside itself")


def _named(value: Any) -> str:
    return str(value) if isinstance(value, Reference) else a_kind(value)


def _pairs(items: Any = ()) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    if isinstance(items, dict):
        made.update(items)
    elif isinstance(items, (list, tuple)):
        for pair in items:
            key, value = pair
            made[checked_key(key)] = value
    else:
        raise PickleError(f"an ordered dict of {a_kind(items)}")
    return made


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise PickleError(f"a set of {a_kind(items)}")
    return {checked_key(item) for item in items}


def _encoded(text: Any = "", encoding: Any = "latin1") -> bytes:
    """How protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "utf-8"):
        raise PickleError("bytes written in an unknown way")
    return text.encode(encoding)


def _byte_array(data: Any = b"", encoding: Any = None) -> bytearray:
    if isinstance(data, str):
        data = _encoded(data, encoding or "latin1")
    if not isinstance(data, (bytes, bytearray)):  # an integer would make that many zeros
        raise PickleError(f"a bytearray of {a_kind(data)}")
    return bytearray(data)


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise PickleError("a complex number of no numbers")
    return complex(real, imaginary)


_MAKERS: dict[str, Callable[..., Any]] = {
    "OrderedDict": _pairs,
    "Counter": _pairs,
    "set": _set,
    "frozenset": lambda items=(): frozenset(_set(items)),
    "encode": _encoded,
    "bytearray": _byte_array,
    "complex": _complex,
}
_PLAIN = {
    (module, name): Reference(module, name)
    for modules, names in (
        (("collections",), ("OrderedDict", "Counter")),
        (("builtins", "__builtin__"), ("set", "frozenset", "bytearray", "complex")),
        (("_codecs",), ("encode",)),
    )
    for module in modules
    for name in names
}
