"""The module that public names say they are from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def publish(module: str, values: Iterable[Any]) -> None:
    """Gives functions and classes the public module's name, in messages, help and pickles.

    Pickles of public classes then do not depend on where in the package a class stands. Modules, native
    functions and what is re-exported from another package are left as they are.
    """
    for value in values:
        named = isinstance(value, type) or hasattr(value, "__code__")
        if named and value.__module__.startswith("pyparam."):
            value.__module__ = module
