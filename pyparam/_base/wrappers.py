"""Names of wrapped models: the one rule by which a name may be given without what wrappers put into it.

Every entry has its qualified name. It also answers to any name that is the same once the parts that wrappers
put into names are left out of both, where nothing has that very name and no other entry answers to it.
``module`` counts as a wrapper's part at the front alone: elsewhere it may be anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module", "module")
"""The attributes in which torch.compile, activation checkpointing, FullyShardedDataParallel, DeepSpeed and
Lightning, and the DataParallel classes hold the module that they wrap. They become parts of its names."""

# Of these alone it is plain anywhere in a name that nobody else chose them.
ANYWHERE = tuple(word for word in WRAPPERS if word.startswith("_"))
_has_part = re.compile(rf"(?:^|\.)(?:{'|'.join(ANYWHERE)})\.|^module\.").search


def bare(name: str) -> str:
    """A name without the parts that wrappers put into it."""
    if not _has_part(name):
        return name
    *modules, last = name.split(".")
    while modules and modules[0] in WRAPPERS:
        del modules[0]
    return ".".join([*(part for part in modules if part not in ANYWHERE), last])


def alike(name: str, names: Iterable[str]) -> list[str]:
    """Those names that are ``name`` but for the parts that wrappers put into either; not ``name`` itself."""
    wanted = bare(name)
    ending = wanted.rpartition(".")[2]
    return [
        other
        for other in dict.fromkeys(names)
        if other.endswith(ending) and other != name and bare(other) == wanted
    ]


def other_names(names: Sequence[str]) -> dict[int, str]:
    """By position, the names without wrappers' parts that entries answer to besides their own."""
    found = {i: bare(name) for i, name in enumerate(names) if _has_part(name)}
    if not found:
        return {}
    holders: dict[str, str | None] = {name: name for name in names}
    for i, name in found.items():
        # None where several answer; one name that is listed several times is one.
        holders[name] = names[i] if holders.get(name, names[i]) == names[i] else None
    return {i: name for i, name in found.items() if holders[name] == names[i]}


class Names:
    """Positions by name."""

    __slots__ = ("_bare", "exact")

    def __init__(self, exact: Mapping[str, int]) -> None:
        self.exact = exact
        self._bare: dict[str, str | None] | None = None

    def find(self, name: object) -> int | None:
        """The position of the entry that answers to a name; None where there is none, or more than one."""
        listed = self.listed(name)
        return None if listed is None else self.exact[listed]

    def listed(self, name: object) -> str | None:
        """The own name of the entry that answers to a name; None where there is none, or more than one."""
        if name in self.exact:
            return name  # type: ignore[return-value]
        if not isinstance(name, str):
            return None
        if self._bare is None:
            # None where several answer. An entry without wrappers' parts answers to names that have some.
            self._bare = {}
            for listed in self.exact:
                if _has_part(listed):
                    plain = bare(listed)
                    self._bare[plain] = None if plain in self._bare or plain in self.exact else listed
        wanted = bare(name)
        return self._bare.get(wanted, wanted if wanted in self.exact else None)


def paths(
    root: Any, name: str, child: Callable[[Any, str], Any], has: Callable[[Any, str], bool]
) -> list[str]:
    """Where in a tree of modules entries answer to a name that nothing has: their qualified names.

    ``child`` gives the module of a key in another, or None; ``has`` says whether a module holds an entry of a
    key.
    """
    *modules, last = bare(name).split(".")
    at = _through([((), root)], WRAPPERS, child)
    for part in modules:
        below = [((*path, part), found) for path, node in at if (found := child(node, part)) is not None]
        at = _through(below, ANYWHERE, child)
    return [".".join((*path, last)) for path, node in at if has(node, last)]


def _through(
    at: list[tuple[tuple[str, ...], Any]], words: Sequence[str], child: Callable[[Any, str], Any]
) -> list[tuple[tuple[str, ...], Any]]:
    """These modules, and those that they wrap."""
    reached = list(at)
    for path, node in reached:  # which grows meanwhile
        if len(path) > len(reached[0][0]) + len(WRAPPERS):
            continue  # a module that wraps itself
        reached += [((*path, word), found) for word in words if (found := child(node, word)) is not None]
    return reached
