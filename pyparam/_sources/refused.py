"""What looks like a source and is none, with what to pass instead."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor

from pyparam._base.words import a_kind

_EXPECTED = (
    "expected an nn.Module, a TorchScript module, an ExportedProgram, a state dict or other mapping, an "
    "iterable of tensors or of (name, tensor) pairs, a ParamTable or a path to a checkpoint"
)


def accepts(source: object) -> bool:
    return isinstance(source, (Tensor, type, bytes, bytearray))


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> NoReturn:
    if isinstance(source, Tensor):
        raise TypeError(
            f"a single {type(source).__name__} is no source, and iterating over it would give its rows: "
            "pass [tensor], or {'name': tensor}"
        )
    if isinstance(source, type):
        raise TypeError(f"the class {source.__name__} is no source: pass an instance of it")
    raise no_source(source)


def no_source(source: object) -> TypeError:
    return TypeError(f"{a_kind(source)} is no source of parameters: {_EXPECTED}")
