"""Values of well-known classes that say all they are in plain data, and need none of the class's code.

Checkpoints hold them beside tensors: a metric that is a number of numpy's, the arguments of a run in a
``Namespace``, a path, a date, a loss scaler, nodes of a configuration. torch's loader of weights refuses
them. Here they become what they stand for, or a ``Kept`` that tells the class and its state; nothing of
theirs is imported, but numpy and the standard library. A name that is only mentioned is a ``Reference``.
"""

from __future__ import annotations

import datetime
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from pyparam._base.words import a_kind
from pyparam._sources.stored import TensorWorld
from pyparam._sources.unpickle import NeedsCode, PickleError, Record, Reference


class Unknown(Reference):
    """A name of which nothing is known: it may be mentioned, and neither called nor made."""

    __slots__ = ()


class Kept(Record):
    """An object that is told by its class and its state, and that holds no tensors to list."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Attributes(dict[str, Any]):
    """What is nothing but its attributes, such as an ``argparse.Namespace``."""


class InertWorld(TensorWorld):
    """Plain tensors, and values that need no code. What else is called raises NeedsCode."""

    def find(self, module: str, name: str) -> Any:
        try:
            return super().find(module, name)
        except NeedsCode:
            known = (module, name) in _MAKERS or f"{module}.".startswith(_KEPT)
            return Reference(module, name) if known else Unknown(module, name)

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        self._check(function, arguments)
        maker = _maker(function)
        if maker is None:
            return super().call(function, arguments)
        try:
            return maker(function, *arguments)
        except (TypeError, AttributeError) as error:
            raise PickleError(f"{function} is called in an unknown way: {error}") from None

    def make(self, kind: Any, arguments: tuple[Any, ...], named: dict[Any, Any]) -> Any:
        self._check(kind, arguments)
        if named or _maker(kind) is None:
            return super().make(kind, arguments, named)
        return self.call(kind, arguments)

    def build(self, made: Any, state: Any) -> None:
        if isinstance(made, Unknown):
            raise NeedsCode(str(made))
        if isinstance(made, Kept):
            made.state = state
        elif isinstance(made, Attributes) and isinstance(state, dict):
            made.update(state)
        elif isinstance(made, _NumpyType):
            made.order = _order(state)
        elif _is_array(made):
            _fill(made, state)
        else:
            super().build(made, state)

    def _check(self, function: Any, arguments: tuple[Any, ...]) -> None:
        """Raises NeedsCode where something unknown is called, or would decide what a call gives."""
        unknown = [value for value in (function, *arguments) if isinstance(value, Unknown)]
        if unknown and not (function is not unknown[0] and _maker(function) is _default_dict):
            raise NeedsCode(str(unknown[0]))


def is_inert(name: Any) -> bool:
    """Whether a name is of a value that needs no code."""
    return _maker(name) is not None


def is_kept(name: Any) -> bool:
    """Whether a name is of an object that is only told of."""
    return _maker(name) is _kept


Maker = Callable[..., Any]


def _maker(function: Any) -> Maker | None:
    if not isinstance(function, Reference) or isinstance(function, Unknown):
        return None
    found = _MAKERS.get((function.module, function.name))
    return _kept if found is None and f"{function.module}.".startswith(_KEPT) else found


def _kept(kind: Reference, *arguments: Any) -> Kept:
    return Kept(kind, arguments)


def _attributes(kind: Reference) -> Attributes:
    return Attributes()


def _dict(kind: Reference, items: Any = ()) -> OrderedDict[Any, Any]:
    # An ordered one, whose state (attributes beside its items) is passed over.
    if not isinstance(items, dict) and items != ():
        raise PickleError(f"{kind} of {a_kind(items)}")
    return OrderedDict(items)


def _default_dict(kind: Reference, factory: Any = None) -> dict[Any, Any]:
    return {}


def _deque(kind: Reference, items: Any = (), longest: Any = None) -> list[Any]:
    if not isinstance(items, (list, tuple)):
        raise PickleError(f"a deque of {a_kind(items)}")
    return list(items)


def _path(kind: Reference, *parts: Any) -> PurePosixPath | PureWindowsPath:
    return (PureWindowsPath if "Windows" in kind.name else PurePosixPath)(*parts)


def _moment(kind: Reference, *parts: Any) -> Any:
    if not all(isinstance(part, (int, float, bytes, datetime.tzinfo, datetime.timedelta)) for part in parts):
        raise PickleError(f"{kind} of what is no number")
    return getattr(datetime, kind.name)(*parts)


class _NumpyType:
    """A dtype of numpy's while it is read: its order of bytes comes after it."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def made(self) -> Any:
        import numpy

        return numpy.dtype(self.order + self.code)


_NUMPY_CODE = re.compile(r"b1|[iufcSU]\d{1,8}")


def _numpy_type(kind: Reference, code: Any, *more: Any) -> _NumpyType:
    if not isinstance(code, str) or not _NUMPY_CODE.fullmatch(code):
        raise NeedsCode(f"{kind} {str(code)[:20]}")
    return _NumpyType(code)


def _order(state: Any) -> str:
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if order not in ("<", ">", "=", "|"):
        raise PickleError("a dtype of numpy's with a damaged state")
    return "=" if order == "|" else str(order)


def _number(kind: Reference, dtype: Any, raw: Any) -> Any:
    import numpy

    if not isinstance(dtype, _NumpyType) or not isinstance(raw, bytes):
        raise NeedsCode(str(kind))
    made = dtype.made()
    if made.itemsize != len(raw):
        raise PickleError(f"a number of {len(raw)} bytes where {made} has {made.itemsize}")
    return numpy.frombuffer(raw, dtype=made, count=1)[0] if raw else made.type()


def _array(kind: Reference, *arguments: Any) -> Any:
    import numpy

    if not arguments or arguments[0] != ("numpy", "ndarray"):
        raise NeedsCode(str(arguments[0] if arguments else kind))
    return numpy.empty((0,), dtype=numpy.int8)


def _array_of(kind: Reference, raw: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """As protocol 5 writes it."""
    made = _array(kind, Reference("numpy", "ndarray"))
    _fill(made, (1, shape, dtype, order == "F", bytes(raw) if isinstance(raw, bytearray) else raw))
    return made


def _is_array(made: Any) -> bool:
    return type(made).__module__ == "numpy" and type(made).__name__ == "ndarray"


def _fill(made: Any, state: Any) -> None:
    """Gives an array its shape and bytes, once it is sure that they are plain and fit."""
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _NumpyType):
        raise NeedsCode("a numpy.ndarray of objects")
    _, shape, dtype, fortran, raw = state
    kind = dtype.made()
    sizes = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 1 << 32 for n in shape)
    if not sizes or len(shape) > 32 or not isinstance(raw, bytes):
        raise PickleError("an array of numpy's with a damaged state")
    count = 1
    for n in shape:
        count *= n
    if count * kind.itemsize != len(raw):
        raise PickleError(f"an array of {len(raw)} bytes where its shape {list(shape)} needs others")
    made.__setstate__((1, shape, kind, bool(fortran), raw))


# Whole modules whose objects are settings and counters; a module's own names with all below it.
_KEPT = (
    "accelerate.state.",
    "accelerate.utils.",
    "deepspeed.runtime.",
    "deepspeed.utils.tensor_fragment.",
    "megatron.",
    "mmengine.logging.",
    "omegaconf.",
    "transformers.trainer_",
    "transformers.training_args.",
)

_MAKERS: dict[tuple[str, str], Maker] = {
    (module, name): maker
    for maker, modules, names in (
        (_attributes, ("argparse",), ("Namespace",)),
        (_attributes, ("types",), ("SimpleNamespace",)),
        (_default_dict, ("collections",), ("defaultdict",)),
        (_deque, ("collections",), ("deque",)),
        (_dict, ("lightning.fabric.utilities.data", "lightning_fabric.utilities.data"), ("AttributeDict",)),
        (
            _dict,
            ("pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing"),
            ("AttributeDict",),
        ),
        (_dict, ("easydict",), ("EasyDict",)),
        (_dict, ("yacs.config", "fvcore.common.config", "detectron2.config.config"), ("CfgNode",)),
        (_dict, ("mmengine.config.config", "mmcv.utils.config"), ("ConfigDict",)),
        (_dict, ("addict.addict",), ("Dict",)),
        (
            _path,
            ("pathlib", "pathlib._local"),
            ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
        ),
        (_moment, ("datetime",), ("date", "datetime", "time", "timedelta", "timezone")),
        (_numpy_type, ("numpy",), ("dtype",)),
        (_kept, ("numpy",), ("ndarray",)),
        (_number, ("numpy.core.multiarray", "numpy._core.multiarray"), ("scalar",)),
        (_array, ("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct",)),
        (_array_of, ("numpy.core.numeric", "numpy._core.numeric"), ("_frombuffer",)),
    )
    for module in modules
    for name in names
}
