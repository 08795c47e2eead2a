"""ParamTable, the seam between the walk and the bulk verbs, and ``table_of``, which makes one of any source."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyparam._native import _C


class ParamTable:
    """What a walk saw: qualified names and tensors, as columns in table order."""

    __slots__ = ("_names", "_native")

    def __init__(self, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        self._native = _C.ParamTable(list(names), list(tensors))
        self._names: list[str] | None = None

    @property
    def names(self) -> list[str]:
        if self._names is None:
            self._names = self._native.names
        return self._names

    @property
    def tensors(self) -> list[Tensor]:
        return self._native.tensors

    def __len__(self) -> int:
        return len(self._native)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return zip(self.names, self.tensors, strict=True)


def table_of(source: Any, *, buffers: bool = False, remove_duplicate: bool = True) -> ParamTable:
    """Coerces a source to a table; nothing else in the package asks what a source is."""
    if isinstance(source, ParamTable):
        return source
    if isinstance(source, nn.Module):
        pairs = list(source.named_parameters(remove_duplicate=remove_duplicate))
        pairs += source.named_buffers(remove_duplicate=remove_duplicate) if buffers else ()
        return ParamTable([n for n, _ in pairs], [t for _, t in pairs])
    if isinstance(source, Mapping):
        pairs = [(k, v) for k, v in source.items() if isinstance(v, Tensor)]
        return ParamTable([n for n, _ in pairs], [t for _, t in pairs])
    items = list(source)
    if all(isinstance(item, Tensor) for item in items):
        return ParamTable([str(i) for i in range(len(items))], items)
    return ParamTable([n for n, _ in items], [t for _, t in items])


_INDEXED = re.compile(r"\btensors\[(\d+)\]")


@contextlib.contextmanager
def named_errors(table: ParamTable, error: type[Exception] | tuple[type[Exception], ...] = (TypeError, ValueError)) -> Iterator[None]:
    """Gives errors of a native op the parameter's name.

    The ops know tensors only and speak of ``tensors[12]``; a person wants ``parameter '0.weight'``. Costs
    nothing when nothing is wrong.
    """
    try:
        yield
    except error as raised:
        text = str(raised)
        named = _INDEXED.sub(lambda m: f"parameter {table.names[int(m.group(1))]!r}", text)
        if named == text:
            raise
        raise type(raised)(named) from None
