"""Puts the native access functions in place of nn.Module's own methods, and takes them out again.

The installed methods are Python functions around native calls, so that ``torch.compile`` can trace through
them: while it does, each is PyTorch's own method.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.nn.modules.module import _IncompatibleKeys

from pyparam._access.grads import zero_plainly
from pyparam._base.native import _C
from pyparam._sources import overrides
from pyparam._sources.loading import loaded

__all__ = ["install", "installed", "uninstall"]

_lock = threading.RLock()
# What stood in nn.Module before install(), by name; empty while nothing is installed.
_replaced: dict[str, Callable[..., Any]] = {}


def _made_installable(original: Callable[..., Any], native: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            return original(self, *args, **kwargs)
        return native(self, *args, **kwargs)

    return method


def _state_dict_method(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def state_dict(
        self: nn.Module, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        # Positional arguments are deprecated; PyTorch's own says so and sorts them out.
        if args or is_dynamo_compiling():
            return original(self, *args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        return _C.state_dict(self, destination, prefix, keep_vars, False)

    return state_dict


def _load_state_dict_method(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_state_dict(
        self: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        # Anything else that is true of `assign` would stand in the metadata as it is.
        if isinstance(assign, bool) and not is_dynamo_compiling():
            keys = loaded(self, state_dict, strict=bool(strict), assign=assign)
            if keys is not None:
                return _IncompatibleKeys(*keys)
        return original(self, state_dict, strict, assign)

    return load_state_dict


def _zero_grad_method(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def zero_grad(self: nn.Module, set_to_none: bool = True) -> None:
        if is_dynamo_compiling() or not zero_plainly(self, set_to_none):
            original(self, set_to_none)

    return zero_grad


_NATIVE: dict[str, Callable[..., Any]] = {
    "named_parameters": _C.own_named_parameters,
    "parameters": _C.own_parameters,
    "named_buffers": _C.own_named_buffers,
    "buffers": _C.own_buffers,
    "named_modules": _C.own_named_modules,
    "modules": _C.own_modules,
}


@functools.cache
def _methods() -> dict[str, Callable[..., Any]]:
    """The methods to install, each around PyTorch's own; made once, as often as they are installed."""
    own = overrides.TORCHS_OWN
    methods = {name: _made_installable(own[name], native) for name, native in _NATIVE.items() if name in own}
    made_around = {
        "state_dict": _state_dict_method,
        "load_state_dict": _load_state_dict_method,
        "zero_grad": _zero_grad_method,
    }
    methods |= {name: made(own[name]) for name, made in made_around.items() if name in own}
    overrides.tell_known_methods(methods)
    return methods


def install() -> None:
    """Makes every ``nn.Module`` of the process use the native traversal.

    ``named_parameters``, ``parameters``, ``named_buffers``, ``buffers``, ``named_modules``, ``modules``,
    ``state_dict``, ``load_state_dict`` and ``zero_grad`` of ``nn.Module`` are replaced; classes that override
    them keep their own, and ``super()`` in them reaches the native ones. A method that something else has put
    into ``nn.Module`` is left as it is, and asked like a class's own. Installing again changes nothing.
    ``uninstall()`` puts back what was there.
    """
    with _lock:
        if _replaced:
            return
        for name, method in _methods().items():
            standing = nn.Module.__dict__.get(name)
            if standing is overrides.TORCHS_OWN[name]:
                _replaced[name] = standing
                setattr(nn.Module, name, method)


def uninstall() -> None:
    """Puts back the methods that ``install()`` replaced; harmless where nothing is installed.

    A method that something else has put over ours meanwhile is left as it is.
    """
    with _lock:
        for name, original in _replaced.items():
            if nn.Module.__dict__.get(name) is _methods()[name]:
                setattr(nn.Module, name, original)
        _replaced.clear()


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """The native traversal for the length of a block; one that was installed before stays so after it."""
    with _lock:
        before = bool(_replaced)
        install()
    try:
        yield
    finally:
        if not before:
            uninstall()
