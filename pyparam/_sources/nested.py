"""Nested dicts, lists and tuples as dotted names, for mappings in memory and for pickled checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from pyparam._base.words import a_kind
from pyparam._sources.bounds import Names
from pyparam._sources.inert import Kept
from pyparam._sources.listing import entries
from pyparam._sources.unpickle import Record, Reference

# Containers that share parts can unfold into far more names than they have objects.
MOST_ENTRIES = 50_000_000


class _Frame:
    __slots__ = ("children", "count", "node")

    def __init__(self, node: Any) -> None:
        self.node = node
        self.children: Iterator[tuple[Any, Any]] = children(node)
        self.count = 0


def is_container(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple, Record)) and not isinstance(value, (Kept, Reference))


def children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Record):
        return entries(node)
    return iter(node.items()) if isinstance(node, Mapping) else iter(enumerate(node))


def count_tensors(root: Any, kind: type = Tensor) -> dict[int, int]:
    """How many names for tensors each container below ``root`` unfolds to, by ``id``.

    Raises ValueError for a container that holds itself and for one that unfolds without reason. Iterative,
    and one visit a container, however often it is shared.
    """
    counts: dict[int, int] = {}
    on_path = {id(root)}
    stack = [_Frame(root)]
    while stack:
        frame = stack[-1]
        for _, value in frame.children:
            if isinstance(value, kind):
                frame.count += 1
            elif is_container(value):
                known = counts.get(id(value))
                if known is not None:
                    frame.count += known
                elif id(value) in on_path:
                    raise ValueError(f"{a_kind(value)} holds itself, so its entries have no end")
                else:
                    on_path.add(id(value))
                    stack.append(_Frame(value))
                    break
        else:
            if frame.count > MOST_ENTRIES:
                raise ValueError(
                    f"shared containers unfold to {frame.count} names; at most {MOST_ENTRIES} are listed"
                )
            counts[id(frame.node)] = frame.count
            on_path.discard(id(frame.node))
            stack.pop()
            if stack:
                stack[-1].count += frame.count
    return counts


def flatten(
    root: Any,
    leaf: Callable[[str, Any], None] | None = None,
    *,
    kind: type = Tensor,
    names: Names | None = None,
) -> dict[str, Any]:
    """The tensors below ``root`` by dotted name, in order.

    Args:
        root: a mapping, list or tuple, nested to any depth. Keys are strings, or integers, which name by
        their digits.
        leaf: called with the dotted name of everything else. A container without any tensor is one leaf.
        kind: the class of what counts as a tensor.
        names: bounds what a file may unfold to.

    Raises:
        TypeError: for a key of another kind above a tensor.
        ValueError: for two tensors with one dotted name, or a container that holds itself.
    """
    if isinstance(root, Mapping) and all(type(k) is str and isinstance(v, kind) for k, v in root.items()):
        return dict(root)
    counts = count_tensors(root, kind)
    found: dict[str, Any] = {}
    stack: list[tuple[str | None, Iterator[tuple[Any, Any]]]] = [(None, children(root))]
    while stack:
        prefix, entries = stack[-1]
        for key, value in entries:
            inner = is_container(value) and counts[id(value)] > 0
            if not inner and not isinstance(value, kind):
                if leaf is not None:
                    name = joined(prefix, key, strict=False)
                    if names is not None:
                        names.spend(name)
                    leaf(name, value)
                continue
            name = joined(prefix, key)
            if names is not None:
                names.spend(name)
                names.check_depth(len(stack))
            if inner:
                stack.append((name, children(value)))
                break
            if name in found:
                raise ValueError(f"two entries are named {name!r} once nested names are joined by dots")
            found[name] = value
        else:
            stack.pop()
    return found


def versions(root: Any, deepest: int = 3) -> dict[str, Any]:
    """The ``_metadata`` of state dicts among mappings of mappings, by the dotted name of the state dict.

    It tells each module which version of its class saved it, in ``local_metadata`` of its loading code.
    """
    found: dict[str, Any] = {}
    level = [("", root)] if isinstance(root, Mapping) else []
    for _ in range(deepest):
        found |= {prefix: node._metadata for prefix, node in level if hasattr(node, "_metadata")}
        level = [
            (f"{prefix}.{key}" if prefix else key, value)
            for prefix, node in level
            if prefix not in found
            for key, value in node.items()
            if isinstance(value, Mapping) and isinstance(key, str)
        ]
    return found


def joined(prefix: str | None, key: object, *, strict: bool = True) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        if strict:
            where = "" if prefix is None else f" below {prefix!r}"
            raise TypeError(
                f"names are strings or integers; got the key {key!r} of type {type(key).__name__}{where}"
            )
        key = repr(key)
    return str(key) if prefix is None else f"{prefix}.{key}"
