"""What torch.save's pickles may name, where torch's own loader of weights is asked for what is not plain."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from typing import Any

import torch

from pyparam._sources.inert import InertWorld, Unknown, is_inert, is_kept
from pyparam._sources.stored import NotPlain, StorageKey, StoredTensor
from pyparam._sources.unpickle import NeedsCode, PickleError, Record, Reference

# Classes that torch declares safe once their module is imported: lacking an import makes no file dangerous.
_DECLARED_BY = {
    "torch.distributed.tensor.": "torch.distributed.tensor",
    "torch.distributed.device_mesh.": "torch.distributed.tensor",
    "torch.nested.": "torch.nested",
    "torch._dynamo.": "torch._dynamo",
}


class SavedWorld(InertWorld):
    """Plain tensors become ``StoredTensor``, and values that need no code what they stand for.

    What else torch's loader of weights allows becomes a ``Record``, and ``is_plain`` turns False: then that
    loader has to make it. All else is refused, or noted where it is to be listed.
    """

    def __init__(self, *, listing: bool = False) -> None:
        self.is_plain = True
        self.refused: list[str] = []
        """What needs code, by name; only where it is listed."""
        self.storages: dict[str, StorageKey] = {}
        """Every storage the pickle refers to, by its key."""
        self._listing = listing
        self._allowed: dict[str, Any] | None = None

    def find(self, module: str, name: str) -> Any:
        found = super().find(module, name)
        # What the user declared safe becomes the object itself.
        if (isinstance(found, Unknown) or is_kept(found)) and self._is_allowed(str(found)):
            self.is_plain = False
            return Reference(module, name)
        return found

    def _is_allowed(self, reference: str) -> bool:
        if self._allowed is None:
            self._allowed = _allowed()
        for start, module in _DECLARED_BY.items():
            if reference.startswith(start) and reference not in self._allowed:
                importlib.import_module(module)
                self._allowed = _allowed()
        return reference in self._allowed

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        try:
            return super().call(function, arguments)
        except NotPlain:
            self.is_plain = False
            return Record(function, arguments)
        except NeedsCode as needed:
            return self._refused(needed, function, arguments)
        except PickleError:
            if is_inert(function):
                raise
            return self._stand_in(function, arguments)

    def _refused(self, needed: NeedsCode, function: Any, arguments: tuple[Any, ...]) -> Record:
        """What stands for what needs code, where it is listed."""
        self._note(needed)
        return self._stand_in(function, arguments)

    def _note(self, needed: NeedsCode) -> None:
        if not self._listing:
            raise needed
        if needed.reference not in self.refused:
            self.refused.append(needed.reference)

    def _stand_in(self, function: Any, arguments: tuple[Any, ...]) -> Record:
        known = isinstance(function, Reference) and function.module != "collections"
        if (
            not known
            or function.name.startswith("_rebuild_tensor")
            or function.module in ("builtins", "_codecs")
        ):
            raise PickleError(f"it calls {function} with what that does not take")
        if function.module.startswith("torch") and function.name.endswith("Tensor") and _allocates(arguments):
            raise PickleError(f"it calls {function} to make memory")
        return Record(function, arguments)

    def make(self, kind: Any, arguments: tuple[Any, ...], named: dict[Any, Any]) -> Any:
        try:
            self._check(kind, arguments)
        except NeedsCode as needed:
            return self._refused(needed, kind, arguments)
        plain = (
            not named and isinstance(kind, Reference) and kind.module in ("collections", "torch.nn.parameter")
        )
        if isinstance(kind, Reference) and not plain and not is_inert(kind):
            return self._stand_in(kind, arguments)
        return super().make(kind, arguments, named)

    def persistent(self, reference: Any) -> Any:
        if isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module":
            return reference[1]  # a class, with its source beside it, as torch before 1.6 wrote modules
        key: StorageKey = super().persistent(reference)
        if len(reference) > 5 and reference[5] is not None:
            raise PickleError("a storage that is a part of another, as torch before 0.4 wrote it")
        if self.storages.setdefault(key.key, key) != key:
            raise PickleError(f"the storage {key.key!r} is described in two ways")
        return key

    def build(self, made: Any, state: Any) -> None:
        if isinstance(made, Record):
            made.state = state
        elif isinstance(made, StoredTensor):
            self.is_plain = False
        else:
            try:
                super().build(made, state)
            except NeedsCode as needed:
                self._note(needed)
            if isinstance(made, OrderedDict) and isinstance(state, dict):
                versions = state.get("_metadata")
                if isinstance(versions, dict):
                    made._metadata = versions  # type: ignore[attr-defined]  # a state dict's, see nested.versions


def _allocates(arguments: tuple[Any, ...]) -> bool:
    return any(isinstance(argument, int) for argument in arguments)


def _allowed() -> dict[str, Any]:
    """What torch's loader of weights allows, with what the user declared safe."""
    try:
        from torch import _weights_only_unpickler as loader

        return {**loader._get_allowed_globals(), **loader._get_user_allowed_globals()}  # type: ignore[no-untyped-call]
    except (ImportError, AttributeError):  # pragma: no cover - a torch with other internals
        safe = torch.serialization.get_safe_globals()
        return {f"{c.__module__}.{getattr(c, '__qualname__', '')}": c for c in safe}
