"""What a model was, to be so again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


class Before:
    """The tensors of a model; with ``values``, what they hold, and extra states."""

    def __init__(self, model: nn.Module, *, values: bool) -> None:
        self._members = [
            (members, dict(members))
            for module in model.modules()
            for members in (module._parameters, module._buffers)
            if members
        ]
        self._values: list[tuple[Tensor, Tensor]] = []
        self._extra: list[tuple[nn.Module, Any]] = []
        if not values:
            return
        seen: set[int] = set()
        for _, held in self._members:
            for tensor in held.values():
                if tensor is None or id(tensor) in seen or is_lazy(tensor) or tensor.is_meta:
                    continue
                seen.add(id(tensor))
                self._values.append((tensor, tensor.detach().clone()))
        for module in model.modules():
            if type(module).get_extra_state is not nn.Module.get_extra_state:
                self._extra.append((module, module.get_extra_state()))

    def restore(self) -> None:
        for members, held in self._members:
            members.clear()
            members.update(held)  # type: ignore[arg-type]
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.detach().copy_(value)
        for module, state in self._extra:
            module.set_extra_state(state)
