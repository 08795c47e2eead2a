"""Iterables of tensors, named "0", "1", ..., or of (name, tensor) pairs, such as
``model.named_parameters()``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from pyparam._sources.table import ParamTable


def accepts(source: object) -> bool:
    return isinstance(source, Iterable) or hasattr(type(source), "__getitem__")


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    names: list[str] = []
    tensors: list[Tensor] = []
    seen: set[str] = set()
    paired: bool | None = None
    for position, item in enumerate(source):
        is_pair = isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)
        if not is_pair and not isinstance(item, Tensor):
            raise TypeError(
                f"entry {position} is {_described(item)}; expected a tensor or a (name, tensor) pair"
            )
        if paired is None:
            paired = is_pair
        elif paired != is_pair:
            raise TypeError(
                f"entry {position} is {'a pair' if is_pair else 'a tensor'} after "
                f"{'pairs' if paired else 'tensors'}; expected one kind throughout"
            )
        name, tensor = (item[0], item[1]) if is_pair else (str(position), item)
        if is_pair:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"entry {name!r} is {_described(tensor)}; expected a tensor")
            if name in seen:
                raise ValueError(f"two entries are named {name!r}")
            seen.add(name)
        names.append(name)
        tensors.append(tensor)
    return ParamTable(names, tensors)


def _described(item: Any) -> str:
    if item is None:
        return "None"
    if isinstance(item, nn.Module):
        return f"a module ({type(item).__name__})"
    if isinstance(item, dict) and "params" in item:
        return "an optimizer's parameter group (pass its ['params'])"
    return f"of type {type(item).__name__}"
