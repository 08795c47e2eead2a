"""nn.Module's own traversal, and random models to try it on."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from torch import nn


def listing(iterator: Any) -> list[Any]:
    """What an iterator gives, objects by identity."""
    out = []
    for item in iterator:
        out.append((item[0], id(item[1])) if isinstance(item, tuple) else id(item))
    return out


class Holder(nn.Module):
    """A module with a parameter, a buffer, a None of each, and children."""


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    """Trees of modules with shared modules, shared parameters, None entries and odd names."""
    made: list[nn.Module] = []
    parameters: list[nn.Parameter] = []
    names = st.text(
        st.characters(blacklist_characters=".", blacklist_categories=("Cs",)), min_size=1, max_size=4
    )

    def build(depth: int) -> nn.Module:
        module = Holder()
        for name in draw(st.lists(names, max_size=3, unique=True)):
            if hasattr(module, name):
                continue
            kind = draw(st.sampled_from(["new", "shared", "none", "buffer", "silent", "no buffer"]))
            if kind == "new":
                parameters.append(nn.Parameter(torch_zeros()))
                module.register_parameter(name, parameters[-1])
            elif kind == "shared" and parameters:
                module.register_parameter(name, draw(st.sampled_from(parameters)))
            elif kind == "none":
                module.register_parameter(name, None)
            elif kind in ("buffer", "silent"):
                module.register_buffer(name, torch_zeros(), persistent=kind == "buffer")
            elif kind == "no buffer":
                module.register_buffer(name, None)
        if depth:
            for name in draw(st.lists(names, max_size=3, unique=True)):
                if hasattr(module, name):
                    continue
                kind = draw(st.sampled_from(["new", "new", "shared", "none"]))
                if kind == "new":
                    module.add_module(name, build(depth - 1))
                elif kind == "shared" and made:
                    module.add_module(name, draw(st.sampled_from(made)))
                else:
                    module.add_module(name, None)
        made.append(module)
        return module

    return build(3)


def torch_zeros() -> Any:
    import torch

    return torch.zeros(2)
