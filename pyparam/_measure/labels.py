"""What parameters are grouped by: the module, the layer or the role that a name says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from pyparam._base.words import a_kind

# An index of a list: "3" in "layers.3.weight", "1" in "block 1.weight"; but not that of "conv1".
_INDEX = re.compile(r"(?:^|(?<=[. ]))\d+(?=\.|$)")

By = Literal["module", "layer", "role"] | Callable[[str], str | None]
KINDS = ("module", "layer", "role")


def labels_of(names: Sequence[str], by: By) -> list[str | None]:
    """The group of each name; None for one that is in none.

    Raises ValueError for an unknown word, TypeError for what a function gives that is no label.
    """
    if callable(by):
        made = [by(name) for name in names]
        for name, label in zip(names, made, strict=True):
            if label is not None and not isinstance(label, str):
                raise TypeError(
                    f"by: the function gave {a_kind(label)} for {name!r}; expected a string or None"
                )
        return made
    if by == "module":
        return [module_of(name) for name in names]
    if by == "layer":
        return [layer_of(name) for name in names]
    if by == "role":
        return list(roles_of(names))
    raise ValueError(f"by: expected 'module', 'layer', 'role' or a function of a name, got {by!r}")


def module_of(name: str) -> str:
    """ "layers.3.attn.q_proj.weight" is of "layers.3.attn.q_proj"."""
    return name.rpartition(".")[0] or "(model)"


def layer_of(name: str) -> str:
    """ "layers.3.attn.q_proj.weight" is of "layers.3"; a name without an index of its first module."""
    found = _INDEX.search(name)
    if found is not None and found.end() < len(name):
        return name[: found.end()]
    return name.partition(".")[0] if "." in name else "(model)"


def roles_of(names: Sequence[str]) -> list[str]:
    """ "layers.3.attn.q_proj.weight" has the role "attn.q_proj", its bias "attn.q_proj.bias".

    Where there are several lists of layers, roles begin with theirs: "encoder.layers.*.attn.q_proj".
    """
    lists = {name[: found.start()] for name in names if (found := _INDEX.search(name)) is not None}
    roles = [_role(name, short=len(lists) < 2) for name in names]
    inside = {role for role, name in zip(roles, names, strict=True) if _INDEX.search(name) is not None}
    # The norm behind the layers is none of those in them.
    return [
        f"{role} (no layer)" if role in inside and _INDEX.search(name) is None else role
        for role, name in zip(roles, names, strict=True)
    ]


def _role(name: str, *, short: bool) -> str:
    found = _INDEX.search(name)
    if found is not None and found.end() < len(name):
        rest = _INDEX.sub("*", name[found.end() + 1 :])
        name = rest if short else f"{name[: found.start()]}*.{rest}"
    return name.removesuffix(".weight")
