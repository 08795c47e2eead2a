"""Values that code of a module's own hands on are checked where they are copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from pyparam._load.checks import keeps_values, lossy

_COPIES = (Tensor.copy_, Tensor.module_load)


class Rounding(TorchFunctionMode):
    """While it is entered, refuses to copy into a model's tensors what they cannot hold.

    ``error`` is the first refusal: ``nn.Module.load_state_dict`` catches what a copy raises.
    """

    def __init__(self, verb: str, where: str, state: Mapping[str, Any]) -> None:
        super().__init__()
        self._verb = verb
        self._where = where
        self._held = state  # so that no other object takes an id
        self._names: dict[int, str] = {}
        for name, tensor in state.items():
            self._names.setdefault(id(tensor), name)
        self.error: ValueError | None = None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function in _COPIES and len(args) > 1:
            target, value = args[:2]
            name = self._names.get(id(target))
            if (
                name is not None
                and isinstance(value, Tensor)
                and not is_lazy(target)
                and not keeps_values(value.dtype, target.dtype)
            ):
                error = lossy(self._verb, name, value.dtype, target.dtype, self._where)
                self.error = self.error or error
                raise error
        return function(*args, **(kwargs or {}))
