"""index: a model's parameters by name, walked again only where the model has changed."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from pyparam._base.closest import missing
from pyparam._base.native import _C
from pyparam._base.words import a_kind
from pyparam._base.wrappers import Names
from pyparam._sources.registered import Kind, registered

__all__ = ["Index", "index"]


class Index(Mapping[str, Tensor]):
    """The parameters of a model by qualified name, as they are at the moment they are asked for.

    Listing gives what ``dict(model.named_parameters())`` gives, each parameter once; a look-up also takes the
    further names of a tied parameter. What was listed is kept, and the model is walked again only after a
    change: of a parameter, a buffer or a module that was put in, replaced or taken out, in whatever way.

    From CPython 3.12 on changes are noticed as they happen, and an unchanged model costs nothing. For that
    the first index adds an audit hook, as an assignment to ``__class__`` changes no dict. Before, versions of
    the model's dicts are compared: some tens of nanoseconds a module, and some ten where no dict of the
    whole process has changed since.

    Made by ``index``. It holds the model.
    """

    __slots__ = ("__weakref__", "_buffers", "_kept", "_model", "_native")

    def __init__(self, model: nn.Module, *, buffers: bool = False) -> None:
        self._model = model
        self._buffers = buffers
        self._native = _C.LiveIndex(buffers)
        self._kept: dict[str, Tensor] = {}

    @property
    def model(self) -> nn.Module:
        """The model that is indexed."""
        return self._model

    @property
    def live(self) -> bool:
        """Whether changes are noticed. Where they cannot be, every listing walks the model: a class with a
        traversal of its own (``named_parameters``, ``named_modules``), entries in other mappings than dicts,
        an instance's ``__dict__`` that something else holds too."""
        self._current()
        return self._native.is_current(self._model)

    def snapshot(self) -> Mapping[str, Tensor]:
        """The parameters by name, as a mapping that cannot be written to and that stays as it is."""
        return MappingProxyType(self._current())

    def _current(self) -> dict[str, Tensor]:
        if not self._native.is_current(self._model):
            listed = self._native.read(self._model)
            if listed is None:
                listed = dict(_C.named_parameters(self._model))
                if self._buffers:
                    listed.update(_C.named_buffers(self._model))
            self._kept = listed
        return self._kept

    def __getitem__(self, name: str) -> Tensor:
        found = self._native.find(self._model, name)
        if found is None:
            current = self._current()
            found = current.get(name)
            if found is None:
                found = self._otherwise(name, list(current))
        return found

    def _otherwise(self, name: object, listed: list[str]) -> Tensor:
        """The entry that answers to a name without wrappers' parts, which may be one of several it has."""
        position = Names({known: i for i, known in enumerate(listed)}).find(name)
        if position is not None:
            return self._current()[listed[position]]
        kinds: tuple[Kind, ...] = ("parameter", "buffer") if self._buffers else ("parameter",)
        names = registered(self._model, name, *kinds) if isinstance(name, str) else []
        found = self._native.find(self._model, names[0]) if len(names) == 1 else None
        if found is None:
            raise missing(name, listed, "the model")
        return found

    def __contains__(self, name: object) -> bool:
        try:
            self[name]  # type: ignore[index]
        except KeyError:
            return False
        return True

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def keys(self) -> KeysView[str]:
        """The qualified names, in the order of ``named_parameters``: a view of what is listed now."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[Tensor]:
        """The parameters in that order, likewise."""
        return self.snapshot().values()

    def items(self) -> ItemsView[str, Tensor]:
        """Pairs of both, likewise."""
        return self.snapshot().items()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._model, self._buffers)

    def __repr__(self) -> str:
        count = len(self)
        what = "parameters and buffers" if self._buffers else "parameters"
        return f"Index of {count} {what} of {a_kind(self._model)}"


def _rebuilt(model: nn.Module, buffers: bool) -> Index:
    return Index(model, buffers=buffers)


def index(model: nn.Module, *, buffers: bool = False) -> Index:
    """A live index of a model: a mapping from qualified name to parameter that notices changes by itself.

    Args:
        model: an ``nn.Module``.
        buffers: lists buffers after the parameters.

    Raises:
        TypeError: for what is no module; nothing else can change under its name.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"index: expected an nn.Module, got {a_kind(model)}")
    return Index(model, buffers=buffers)
