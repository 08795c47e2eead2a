"""Parameters that an optimizer no longer moves, because the model has others in their place."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pyparam._sources.table import ParamTable


class Holdings:
    """Which names the parameters of a model's optimizers had when they were last seen in the model."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def replaced(self, table: ParamTable, optimizers: Iterable[Optimizer]) -> list[str]:
        """Names of trainable parameters that no optimizer holds, while one holds what was there before.

        Which that was is known by identity where it was seen in the model, and otherwise by shape and dtype:
        parameters that no optimizer holds are common, optimizers of parameters that no model has are not.
        """
        held = {
            id(p): p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
        }
        present: dict[int, str] = {}
        free: dict[str, Tensor] = {}
        for name, tensor in table:
            if id(tensor) in held:
                present[id(tensor)] = name
            elif tensor.requires_grad and not is_lazy(tensor):
                free[name] = tensor
        orphans = [p for number, p in held.items() if number not in present] if free else []
        found = set()
        unknown = []
        for orphan in orphans:
            known = self._names.get(id(orphan))
            if known is not None and known in free:
                found.add(known)
            else:
                unknown.append(orphan)
        for orphan in unknown:
            for name, tensor in free.items():
                if name not in found and _alike(orphan, tensor):
                    found.add(name)
                    break
        # Those of orphans are kept: their optimizer holds them still, so no other object has their number.
        self._names = {number: name for number, name in self._names.items() if number in held} | present
        return [name for name in free if name in found]


def _alike(orphan: Tensor, tensor: Tensor) -> bool:
    return not is_lazy(orphan) and orphan.shape == tensor.shape and orphan.dtype == tensor.dtype
