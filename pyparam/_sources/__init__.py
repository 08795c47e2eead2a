"""What has parameters, one file a kind of source, and ``table_of``, which makes a table of any of them.

A kind is a module with two functions::

    def accepts(source: object) -> bool
    def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable

``buffers`` adds the buffers of sources that tell them from parameters (modules, TorchScript modules, exported
programs); the others list whatever tensors they have. ``remove_duplicate`` concerns modules and TorchScript
modules, where PyTorch's own methods remove duplicates; the others list every name they have.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._sources import (
    checkpoint,
    exported,
    iterable,
    mapping,
    module,
    optimizer,
    path,
    refused,
    script,
    tabular,
)
from pyparam._sources.table import ParamTable

__all__ = ["table_of"]

# The first kind that accepts a source takes it: special kinds stand before the general ones they also are.
KINDS: tuple[ModuleType, ...] = (
    tabular,
    refused,
    script,
    module,
    exported,
    checkpoint,
    optimizer,
    mapping,
    iterable,
)


# What paths and the kinds before modules accept by the class alone; by what a class has they know what
# has a method __pyparam_table__ or __fspath__.
_C.set_other_kinds((str, bytes, bytearray, type, Tensor, torch.jit.ScriptModule))


def table_of(
    source: Any, *, buffers: bool = False, remove_duplicate: bool = True, values: bool = True
) -> ParamTable:
    """Coerces a source to a table; nothing else in the package asks what a source is.

    Args:
        source: an ``nn.Module``, a TorchScript module, an ``ExportedProgram``, a state dict or nested
            mapping, an iterable of tensors or of (name, tensor) pairs, an optimizer (its state), a
            ``ParamTable``, a path to a checkpoint, or any object with a method ``__pyparam_table__(*,
            buffers, remove_duplicate)`` that gives a table.
        buffers: lists buffers too, where the source tells them from parameters.
        remove_duplicate: lists a tensor with several names once, where PyTorch's ``named_parameters`` does.
        values: False for who asks for names, shapes and dtypes, or for one value after the other: of a
            checkpoint whose tensors are put together or dequantized it lists stand-ins (``stand_in``).

    Raises:
        TypeError: for what is no source, or holds something that is not a tensor where a tensor must be.
        ValueError: for two entries with one name, or a file that cannot be read.
    """
    native = _C.table_of_module(source, buffers, remove_duplicate)
    if native is not None:
        return module.of_native(source, native)
    if path.accepts(source):
        source = path.open(source)
    if not values and isinstance(source, checkpoint.Checkpoint) and source.makes_tensors:
        return source.listing()
    for kind in KINDS:
        if kind.accepts(source):
            table: ParamTable = kind.table(source, buffers=buffers, remove_duplicate=remove_duplicate)
            return table
    raise refused.no_source(source)
