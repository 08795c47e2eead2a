"""Calls a class's own traversal methods, also those written before an argument existed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


def call_named_modules(
    method: Callable[..., Iterable[tuple[str, nn.Module]]],
    memo: set[nn.Module] | None,
    path: str,
    remove_duplicate: bool,
) -> Iterable[tuple[str, nn.Module]]:
    """Calls a class's own ``named_modules`` as ``nn.Module`` would: by position below the root, by keyword at it.

    ``remove_duplicate`` is left out where it is the default and the method does not take it.
    """
    if remove_duplicate and not takes(method, "remove_duplicate", position=2):
        return method(prefix=path) if memo is None else method(memo, path)
    if memo is None:
        return method(prefix=path, remove_duplicate=remove_duplicate)
    return method(memo, path, remove_duplicate)


def takes(method: Callable[..., Any], name: str, position: int | None = None) -> bool:
    """Whether ``method`` can be given the argument ``name`` (or one more by position)."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return True
    kinds = [p.kind for p in parameters]
    if any(p.name == name and p.kind is not p.POSITIONAL_ONLY for p in parameters):
        return True
    if inspect.Parameter.VAR_KEYWORD in kinds and position is None:
        return True
    if position is None:
        return False
    positional = sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)
    return inspect.Parameter.VAR_POSITIONAL in kinds or positional > position


def call(method: Callable[..., Any], **arguments: tuple[Any, Any]) -> Any:
    """Calls ``method`` with those of the arguments, given as (value, default), that differ from their default
    or that the method takes; so a method without ``remove_duplicate`` works while nobody asks for it."""
    given = {k: v for k, (v, default) in arguments.items() if v != default or takes(method, k)}
    return method(**given)
