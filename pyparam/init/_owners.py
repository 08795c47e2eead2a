"""The module that owns a parameter, by the parameter's qualified name;

in TorchScript, by the class's name there.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

_MANGLED = re.compile(r"\.___torch_mangle_\d+")


class Owners:
    """Looks up owning modules by name and remembers what it found.

    Names that lead to no module have no owner.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._modules: dict[str, Any] = {"": root if isinstance(root, nn.Module) else None}
        self._is: dict[tuple[Any, type], bool] = {}

    def module_at(self, path: str) -> Any:
        """The module at a path, or None."""
        missing = []
        while path not in self._modules:
            missing.append(path)
            path = path.rpartition(".")[0]
        for below in reversed(missing):
            parent, _, key = below.rpartition(".")
            self._modules[below] = _child(self._modules[parent], key)
        return self._modules[missing[0] if missing else path]

    def of(self, name: str) -> Any:
        """The module that directly owns the parameter of this name, or None."""
        return self.module_at(name.rpartition(".")[0])

    def owned_by(self, name: str, module_class: type) -> bool:
        """Whether the owner is an instance of the class, or the TorchScript of one."""
        owner = self.of(name)
        if owner is None:
            return False
        kind = kind_of(owner)
        key = (kind, module_class)
        known = self._is.get(key)
        if known is None:
            known = self._is[key] = (
                kind == qualified(module_class) if isinstance(kind, str) else issubclass(kind, module_class)
            )
        return known


def _child(module: Any, key: str) -> Any:
    # TorchScript's dictionary of children is no mapping: it has no get().
    if module is None or key not in module._modules:
        return None
    return module._modules[key]


def kind_of(module: Any) -> type | str:
    """A module's class; for TorchScript, which forgets it, the class's qualified name."""
    script = (
        getattr(module, "_c", None) if not isinstance(type(module).__dict__.get("_c"), property) else None
    )
    if script is not None and hasattr(script, "_type"):
        name = str(script._type().qualified_name())
        return _MANGLED.sub("", name).removeprefix("__torch__.")
    return type(module)


def qualified(module_class: type) -> str:
    return f"{module_class.__module__}.{module_class.__qualname__}"
