"""The weights as they were before a step: copies in buffers that are made once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyparam._base.modes import lasting
from pyparam._memory.flatten import flatten, unflatten
from pyparam._parts.parts import as_part, has_parts, parts_of
from pyparam._sources.table import ParamTable

Copied = list[tuple[ParamTable, ParamTable, Any]]
"""Copies, the parameters they are of, and their positions in the table, for each device and dtype."""


class Copies:
    def __init__(self) -> None:
        self.buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def clear(self) -> None:
        self.buffers.clear()

    def of(self, table: ParamTable) -> Copied:
        """Until the next call, which writes over them."""
        if has_parts(table):
            return self._of_parts(table)
        places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, tensor in enumerate(table.tensors):
            places.setdefault((tensor.device, tensor.dtype), []).append(i)
        copies: Copied = []
        for (device, dtype), positions in places.items():
            part = table if len(places) == 1 else table._take(positions)
            tensors = part.tensors
            needed = sum(tensor.numel() for tensor in tensors)
            buffer = self.buffers.get((device, dtype))
            if buffer is None or buffer.numel() < needed:
                with lasting():
                    buffer = torch.empty(needed, dtype=dtype, device=device)
                self.buffers[device, dtype] = buffer
            buffer = buffer[:needed]
            flatten(part, out=buffer)
            copies.append((ParamTable(part.names, unflatten(buffer, part)), part, positions))
        return copies

    def _of_parts(self, table: ParamTable) -> Copied:
        """The same of sharded weights: this rank's parts alone. All at once, since comparing them reduces."""
        locals = parts_of("Monitor", table).locals
        before: list[Tensor] = [torch.empty(0, dtype=torch.float32, device="cpu")] * len(table)
        for copies, _, positions in self.of(locals):
            for i, tensor in zip(positions, copies.tensors, strict=True):
                before[i] = as_part(tensor, table[i])
        return [(ParamTable(table.names, before), table, list(range(len(table))))]
