"""Places that hold a parameter: found by qualified name, read and written."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from pyparam._base.closest import closest


class Slot(NamedTuple):
    """Where a qualified name's tensor is kept: a module's parameter or buffer, or an entry of a mapping."""

    name: str
    owner: Any
    attribute: str
    is_buffer: bool

    @property
    def key(self) -> tuple[int, str]:
        """Equal for two names of one place: a module that is registered twice."""
        return id(self.owner), self.attribute

    def get(self) -> Tensor:
        if isinstance(self.owner, nn.Module):
            return getattr(self.owner, self.attribute)  # type: ignore[no-any-return]
        return self.owner[self.attribute]  # type: ignore[no-any-return]

    def set(self, tensor: Tensor) -> None:
        if not isinstance(self.owner, nn.Module):
            self.owner[self.attribute] = tensor
        elif self.is_buffer:
            # Not setattr: it would make a parameter of a Parameter that is registered as a buffer.
            self.owner._buffers[self.attribute] = tensor
        else:
            # A module may watch its attributes: nn.LSTM keeps its weights in a list as well.
            setattr(self.owner, self.attribute, tensor)


class Slots:
    """The slots of one model, or of a mapping from names to tensors; modules are looked up once each."""

    def __init__(self, model: Any, operation: str) -> None:
        if not isinstance(model, nn.Module | MutableMapping):
            raise TypeError(
                f"{operation}: expected an nn.Module or a mapping that can be written, "
                f"got {type(model).__name__}"
            )
        self._model: Any = model
        self._operation = operation
        self._owners: dict[str, nn.Module] = {}

    def __getitem__(self, name: str) -> Slot:
        if not isinstance(name, str):
            raise TypeError(f"{self._operation}: expected the name of a parameter, got {type(name).__name__}")
        model = self._model
        if not isinstance(model, nn.Module):
            if not isinstance(model.get(name), Tensor):
                raise self._missing(name, f"the mapping has no tensor {name!r}", list(model))
            return Slot(name, model, name, False)
        path, _, attribute = name.rpartition(".")
        owner = self._owner(name, path)
        for is_buffer, entries in ((False, owner._parameters), (True, owner._buffers)):
            if attribute in entries:
                if entries[attribute] is None:
                    raise AttributeError(f"{self._operation}: {name!r} is None; there is nothing to share")
                return Slot(name, owner, attribute, is_buffer)
        raise self._no_parameter(name, path, owner, attribute)

    def _owner(self, name: str, path: str) -> nn.Module:
        if path in self._owners:
            return self._owners[path]
        owner: nn.Module = self._model
        walked: list[str] = []
        for part in path.split(".") if path else ():
            # The registries of a TorchScript module know no get().
            child = owner._modules[part] if part in owner._modules else None  # noqa: SIM401
            if child is None:
                where = f"module {'.'.join(walked)!r}" if walked else "the model"
                text = f"the model has no {name!r}: {where} has no submodule {part!r}"
                raise self._missing(name, text, self._names())
            owner = child
            walked.append(part)
        self._owners[path] = owner
        return owner

    def _no_parameter(self, name: str, path: str, owner: nn.Module, attribute: str) -> AttributeError:
        if attribute in getattr(owner, "parametrizations", ()):
            original = f"{path}.parametrizations" if path else "parametrizations"
            return AttributeError(
                f"{self._operation}: {name!r} is computed by a parametrization; name the parameter that it "
                f"is computed from ('{original}.{attribute}.original'), or remove the parametrization first"
            )
        if isinstance(vars(owner).get(attribute), Tensor):
            return AttributeError(
                f"{self._operation}: {name!r} is a plain tensor attribute, neither a parameter nor a buffer"
            )
        if attribute in owner._modules:
            return AttributeError(f"{self._operation}: {name!r} is a module; name its parameters one by one")
        return self._missing(name, f"the model has no parameter {name!r}", self._names())

    def _names(self) -> list[str]:
        entries = (*self._model.named_parameters(), *self._model.named_buffers())
        return [name for name, _ in entries]

    def _missing(self, name: str, text: str, names: list[str]) -> AttributeError:
        close = closest(name, names)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return AttributeError(f"{self._operation}: {text}{hint}")
