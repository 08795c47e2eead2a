"""Names by the registries of modules, whatever methods of its own a class lists its parameters with."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from pyparam._base.wrappers import paths

Kind: TypeAlias = Literal["parameter", "buffer", "module"]
_REGISTRIES = {"parameter": "_parameters", "buffer": "_buffers", "module": "_modules"}


def child(module: nn.Module, key: str) -> nn.Module | None:
    modules = module._modules
    return modules[key] if key in modules else None  # noqa: SIM401 (TorchScript's have no get)


def registered(root: nn.Module, name: str, *kinds: Kind) -> list[str]:
    """The qualified names of entries of these kinds that answer to ``name``, which none of them has."""

    def has(module: nn.Module, key: str) -> bool:
        registries = (getattr(module, _REGISTRIES[kind]) for kind in kinds)
        return any(key in registry and registry[key] is not None for registry in registries)

    return paths(root, name, child, has)
