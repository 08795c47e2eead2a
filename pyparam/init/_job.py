"""What initialize_ writes, and the writing: parameters by classes that are filled alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.errors import named_errors, spoken_by
from pyparam._base.extent import require_extent, require_shape
from pyparam._base.native import _C
from pyparam._sources.table import ParamTable
from pyparam.init._fill import DRAWN_DTYPES, KEEP, Row, ordinary
from pyparam.init._materialize import Materialized
from pyparam.init._parts import filled_parts, is_part
from pyparam.init._rules import shown
from pyparam.init._samplers import ROWS

Sampler = Callable[..., Any]


# ---- what to write ----------------------------------------------------------------------------------------


KEPT = Row(KEEP)


class Job:
    """Parameters filled alike share a class: its row for the native fill, or a sampler run by itself."""

    def __init__(self, table: ParamTable, class_of: list[int]) -> None:
        self.table = table
        self.class_of = class_of
        self.rows: list[Row] = []
        self.samplers: list[str] = []
        self.meta: set[int] = set()
        self.custom_classes: dict[int, Sampler] = {}
        self.custom: dict[int, Sampler] = {}

    def on_meta(self) -> list[int]:
        """The parameters that have no memory."""
        return [i for i, c in enumerate(self.class_of) if c in self.meta] if self.meta else []

    def kept(self, i: int) -> bool:
        at = self.class_of[i]
        return self.rows[at] is KEPT and at not in self.custom_classes


def resolved(samplers: Sequence[Sampler | str], picks: Sequence[int], table: ParamTable) -> Job:
    """Turns samplers into rows, once for all that is filled alike; wrong arguments come to light here."""
    class_of, first = _C.fill_classes(table._native, picks)
    job = Job(table, class_of)
    for at, where in enumerate(first):
        sampler = samplers[picks[where]]
        tensor = table._tensor(where)
        row = _row_of(sampler, lambda where=where: table.names[where], tensor)  # type: ignore[misc]
        job.rows.append(KEPT if row is None else row)
        job.samplers.append("kept" if sampler == "keep" else shown(sampler))
        if tensor.is_meta:
            job.meta.add(at)
        if row is None and not isinstance(sampler, str):
            job.custom_classes[at] = sampler
    if job.custom_classes:
        job.custom = {i: job.custom_classes[c] for i, c in enumerate(class_of) if c in job.custom_classes}
    return job


def _row_of(sampler: Any, name: Callable[[], str], tensor: Tensor) -> Row | None:
    """The row of a sampler for tensors like this one; None where it has none, and runs by itself."""
    if sampler == "keep":
        if not is_lazy(tensor):
            require_shape(f"initialize_: parameter {name()!r}", tensor)
        return None
    if not is_part(tensor):
        ordinary(tensor, lambda: f"initialize_: parameter {name()!r}")
    factory = _row_factory(sampler)
    if factory is None:
        return None
    try:
        row = factory(tuple(tensor.shape))
    except (TypeError, ValueError) as error:
        raise type(error)(f"initialize_: parameter {name()!r}: {error}") from None
    if row.kind > 0 and tensor.dtype not in DRAWN_DTYPES:
        raise TypeError(
            f"initialize_: parameter {name()!r}: {shown(sampler)} writes float32, float64, float16 "
            f"and bfloat16, but the dtype is {tensor.dtype}"
        )
    return row


def _row_factory(sampler: Sampler | str) -> Callable[[tuple[int, ...]], Row] | None:
    """From a whole's shape to the row of a sampler, or None where it has none."""
    if isinstance(sampler, str):
        return None
    keywords: dict[str, Any] = {}
    function: Any = sampler
    while isinstance(function, functools.partial):
        keywords = {**function.keywords, **keywords}
        function = function.func
    factory = ROWS.get(function) if function.__hash__ is not None else None
    return None if factory is None else functools.partial(factory, **keywords)


# ---- writing ----------------------------------------------------------------------------------------------


def fill(job: Job, made: Materialized, seed: int) -> Tensor:
    """First the custom samplers, aside, since they may fail;

    then the native fill, which checks all before it writes.
    """
    table = made.table
    with torch.no_grad():
        aside = [
            (tensor, _run(sampler, tensor, seed, table.names[i]))
            for i, sampler, tensor in _customs(job, table)
        ]
        aside += made.fill_buffers(lambda sampler, tensor, name: _run(sampler, tensor, seed, name))
        if any(tensor.is_inference() for tensor, _ in aside) and not torch.is_inference_mode_enabled():
            raise ValueError(
                "initialize_: a sampler is for an inference tensor; "
                "outside inference mode it cannot be written"
            )
        filled, offsets, strides = filled_parts(table)
        with spoken_by("initialize_", "fill_"), named_errors(table):
            moments = _C.fill_table(filled._native, job.rows, job.class_of, seed, True, offsets, strides)
        for tensor, values in aside:
            tensor.copy_(values)
    return moments


def _customs(job: Job, table: ParamTable) -> Iterator[tuple[int, Sampler, Tensor]]:
    if not job.custom:
        return
    tensors = table.tensors
    for i, sampler in job.custom.items():
        require_extent(lambda i=i: f"initialize_: parameter {table.names[i]!r}", tensors[i])  # type: ignore[misc]
        yield i, sampler, tensors[i]


def _run(sampler: Sampler, tensor: Tensor, seed: int, name: str) -> Tensor:
    scratch = torch.empty_like(tensor, requires_grad=False)
    try:
        returned = sampler(scratch, seed=seed, stream=name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"initialize_: parameter {name!r}: {shown(sampler)}: {error}") from error
    if returned is not None and returned is not scratch:
        raise TypeError(
            f"initialize_: parameter {name!r}: {shown(sampler)} returned another tensor; "
            "a sampler fills in place"
        )
    return scratch
