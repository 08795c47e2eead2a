"""Which of a model's modules load by code of their own, and which names that code may see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from pyparam._sources.overrides import is_own


class OwnCode(NamedTuple):
    """What hooks, ``_load_from_state_dict`` methods and a model's ``load_state_dict`` may read and change."""

    everywhere: bool = False
    """Whether some of it is nobody knows whose, and may look at the whole model."""
    below: frozenset[str] = frozenset()
    """Modules, by their qualified names, whose code is PyTorch's and keeps to them and their descendants."""

    def reaches(self, name: str) -> bool:
        """Whether it may see the value of this name."""
        if self.everywhere or not self.below:
            return self.everywhere
        end = len(name)
        while (end := name.rfind(".", 0, end)) >= 0:
            if name[:end] in self.below:
                return True
        return "" in self.below


def own_code(model: nn.Module) -> OwnCode:
    """Looks at every module, at each of its places."""
    below: set[str] = set()
    if is_own(model, "load_state_dict"):
        if not _is_pytorchs(model.load_state_dict):
            return OwnCode(everywhere=True)
        below.add("")
    rest: list[tuple[str, nn.Module]] = [("", model)]
    while rest:
        path, module = rest.pop()
        for code in _code_of(module):
            if not _is_pytorchs(code):
                return OwnCode(everywhere=True)
            below.add(path)
        dot = path and f"{path}."
        rest.extend((f"{dot}{name}", child) for name, child in module._modules.items() if child is not None)
    return OwnCode(below=frozenset(below))


def _code_of(module: nn.Module) -> Iterator[Any]:
    for hook in module._load_state_dict_pre_hooks.values():
        yield getattr(hook, "hook", hook)  # PyTorch wraps some
    yield from module._load_state_dict_post_hooks.values()
    if is_own(module, "_load_from_state_dict"):
        yield module._load_from_state_dict


def _is_pytorchs(code: Any) -> bool:
    """By the globals it runs with: a wrapper has the names of what it wraps, and globals of its own."""
    if not hasattr(getattr(code, "__func__", code), "__globals__"):
        code = type(code).__call__  # of an object
    made_in = getattr(getattr(code, "__func__", code), "__globals__", {}).get("__name__")
    return isinstance(made_in, str) and made_in.partition(".")[0] == "torch"
