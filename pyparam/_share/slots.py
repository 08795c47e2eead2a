"""Places that hold a parameter: found by qualified name, read and written."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from pyparam._base.closest import closest
from pyparam._base.wrappers import Names
from pyparam._sources.registered import child, registered


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
        self._owners: dict[str, nn.Module | None] = {}

    def __getitem__(self, name: str) -> Slot:
        if not isinstance(name, str):
            raise TypeError(f"{self._operation}: expected the name of a parameter, got {type(name).__name__}")
        if not isinstance(self._model, nn.Module):
            return self._entry(name)
        slot = self._slot(name)
        if slot is None:
            names = registered(self._model, name, "parameter", "buffer")
            slot = self._slot(names[0]) if len(names) == 1 else None
            if slot is None:
                raise self._nothing(name, names)
        return slot

    def _entry(self, name: str) -> Slot:
        mapping = self._model
        if not isinstance(mapping.get(name), Tensor):
            names = [key for key, value in mapping.items() if isinstance(value, Tensor)]
            position = Names({key: i for i, key in enumerate(names)}).find(name)
            if position is None:
                raise self._missing(f"the mapping has no tensor {name!r}", closest(name, names)[:1])
            name = names[position]
        return Slot(name, mapping, name, False)

    def _slot(self, name: str) -> Slot | None:
        """The place of that very name; None where it holds nothing."""
        path, _, attribute = name.rpartition(".")
        owner = self._owner(path)
        for is_buffer, entries in ((False, owner._parameters), (True, owner._buffers)) if owner else ():
            if attribute in entries and entries[attribute] is not None:
                return Slot(name, owner, attribute, is_buffer)
        return None

    def _owner(self, path: str) -> nn.Module | None:
        if path not in self._owners:
            owner: nn.Module | None = self._model
            for part in path.split(".") if path else ():
                owner = child(owner, part) if owner is not None else None
            self._owners[path] = owner
        return self._owners[path]

    def _nothing(self, name: str, names: list[str]) -> AttributeError:
        """Why a name has no place, by the last module on the way."""
        path, _, attribute = name.rpartition(".")
        if self._owner(path) is None:
            modules = registered(self._model, path, "module")
            path = modules[0] if len(modules) == 1 else path
        owner: nn.Module = self._model
        walked: list[str] = []
        for part in path.split(".") if path else ():
            below = child(owner, part)
            if below is None:
                where = f"module {'.'.join(walked)!r}" if walked else "the model"
                text = f"the model has no {name!r}: {where} has no submodule {part!r}"
                return self._missing(text, names or closest(name, self._names())[:1])
            owner = below
            walked.append(part)
        if any(attribute in entries for entries in (owner._parameters, owner._buffers)):
            return AttributeError(f"{self._operation}: {name!r} is None; there is nothing to share")
        return self._no_parameter(name, path, owner, attribute, names)

    def _no_parameter(
        self, name: str, path: str, owner: nn.Module, attribute: str, names: list[str]
    ) -> AttributeError:
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
        close = names or closest(name, self._names())[:1]
        return self._missing(f"the model has no parameter {name!r}", close)

    def _names(self) -> list[str]:
        entries = (*self._model.named_parameters(), *self._model.named_buffers())
        return [name for name, _ in entries]

    def _missing(self, text: str, close: list[str]) -> AttributeError:
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        return AttributeError(f"{self._operation}: {text}{hint}")
