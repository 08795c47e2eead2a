"""What a model takes: bytes by dtype, and with gradients and an optimizer's moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from pyparam._base.native import _C
from pyparam._base.words import dtype_name, size


class Memory(NamedTuple):
    """Bytes; memory under several names counts once.

    ``gradients`` and ``moments`` are those of training with ``torch.optim.Adam`` (or AdamW, without amsgrad):
    a gradient, ``exp_avg`` and ``exp_avg_sq`` in the dtype of each parameter that is trained. Those are the
    floating-point and complex ones that require gradients; where none does, as in a checkpoint, all of them.
    """

    by_dtype: dict[str, int]
    parameters: int
    gradients: int
    moments: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.moments

    def lines(self) -> Iterator[str]:
        if self.by_dtype:
            held = sorted(self.by_dtype.items(), key=lambda item: -item[1])
            yield "memory: " + ", ".join(f"{size(count)} {name}" for name, count in held)
        if self.gradients:
            yield (
                f"training with Adam: {size(self.parameters)} parameters + {size(self.gradients)} gradients "
                f"+ {size(self.moments)} moments = {size(self.total)}, each in its parameter's dtype; "
                "without activations and buffers"
            )

    def to_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "total": self.total}


def memory_of(outline: _C.Outline) -> Memory:
    dtypes: list[torch.dtype] = [outline.entry_tensor(i).dtype for i in range(outline.entry_count())]
    by_dtype: dict[str, int] = {}
    parameters, trained, trainable = 0, 0, 0
    for dtype in dict.fromkeys(dtypes):
        part = outline.restricted([other == dtype for other in dtypes], 0)
        held = part.holding(0, False)
        by_dtype[dtype_name(dtype)] = held.bytes + part.holding(0, True).bytes
        parameters += held.bytes
        if dtype.is_floating_point or dtype.is_complex:
            trained += held.bytes
            trainable += held.trainable * dtype.itemsize
    gradients = trainable or trained
    return Memory(
        {name: held for name, held in by_dtype.items() if held}, parameters, gradients, 2 * gradients
    )
