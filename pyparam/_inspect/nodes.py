"""What an Inspector looks at: a live module, or a part of a tree of tensors.

Both kinds of node answer the same few questions about their own entries. An entry is a tensor or, for a
submodule, a node. A slice of a node is a node again, which knows that its entries are counted from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyparam._base.native import _C
from pyparam._base.wrappers import paths
from pyparam._inspect.outline import module_label, outline_of_module, outline_of_table
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.stand_in import value_of, with_values
from pyparam._sources.table import ParamTable

Pairs: TypeAlias = "list[tuple[str, Tensor]]"


class ModuleNode:
    """A module as it is now: nothing is remembered between two questions."""

    __slots__ = ("module", "slice_label")

    def __init__(self, module: nn.Module, slice_label: str | None = None) -> None:
        self.module = module
        self.slice_label = slice_label

    @property
    def identity(self) -> object:
        return self.module

    @property
    def real(self) -> nn.Module | None:
        """The module of the model, which a slice has not."""
        return self.module if self.slice_label is None else None

    @property
    def label(self) -> str:
        return self.slice_label or module_label(self.module)

    def tensor(self, key: str) -> Tensor | None:
        for members in (self.module._parameters, self.module._buffers):
            if key in members:
                found: Tensor | None = members[key]
                return found
        return None

    def child(self, key: str) -> ModuleNode | None:
        modules = self.module._modules
        child = modules[key] if key in modules else None  # noqa: SIM401 (TorchScript's have no get)
        return None if child is None else ModuleNode(child)

    def own_tensors(self, *, buffers: bool) -> Pairs:
        members = self.module._buffers if buffers else self.module._parameters
        return [(key, tensor) for key, tensor in members.items() if tensor is not None]

    def children(self) -> list[tuple[str, Node]]:
        return [(key, ModuleNode(m)) for key, m in self.module._modules.items() if m is not None]

    def attribute(self, name: str) -> Any:
        if self.slice_label is not None:
            raise AttributeError(name)
        return getattr(self.module, name)

    def attribute_names(self) -> list[str]:
        return [] if self.slice_label is not None else list(dir(self.module))

    @property
    def is_container(self) -> bool:
        """Whether its class says what indexing means. TorchScript's classes only pretend to."""
        return hasattr(type(self.module), "__getitem__") and not isinstance(
            self.module, torch.jit.ScriptModule
        )

    def sliced(self, entries: list[tuple[str, Tensor | Node]], label: str) -> ModuleNode:
        # A module outside the model, which only lists what it was given.
        holder = nn.Module()
        for key, entry in entries:
            if isinstance(entry, ModuleNode):
                holder._modules[key] = entry.module
            else:
                holder._parameters[key] = entry  # type: ignore[assignment]
        return ModuleNode(holder, label)

    def table(self, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
        return table_of(self.module, buffers=buffers, remove_duplicate=remove_duplicate)

    listing = table

    def outline(self) -> _C.Outline:
        return outline_of_module(self.module)

    def named_nodes(self, *, remove_duplicate: bool) -> Iterator[tuple[str, Node]]:
        for name, module in self.module.named_modules(remove_duplicate=remove_duplicate):
            yield name, ModuleNode(module)


class Tree:
    """A source without modules: its table, which may list stand-ins, and the tree that its names describe."""

    __slots__ = ("buffers", "checkpoint", "has_stand_ins", "label", "outline", "table")

    def __init__(
        self,
        table: ParamTable,
        buffers: frozenset[str],
        label: str,
        checkpoint: Checkpoint | None = None,
        *,
        has_stand_ins: bool = False,
    ) -> None:
        self.table = table
        self.checkpoint = checkpoint
        self.buffers = buffers
        self.has_stand_ins = has_stand_ins
        self.label = label
        self.outline = outline_of_table(table, buffers)


class TreeNode:
    """A node of a tree of tensors."""

    __slots__ = ("index", "slice_label", "tree")

    is_container = False
    real = None

    def __init__(self, tree: Tree, index: int = 0, slice_label: str | None = None) -> None:
        self.tree = tree
        self.index = index
        self.slice_label = slice_label

    @property
    def identity(self) -> object:
        return (id(self.tree), self.index)

    @property
    def label(self) -> str:
        return self.tree.label if self.index == 0 else ""

    def tensor(self, key: str) -> Tensor | None:
        entry = self.tree.outline.own_entry(self.index, key)
        return None if entry < 0 else value_of(self.tree.outline.entry_tensor(entry))

    def child(self, key: str) -> TreeNode | None:
        index = self.tree.outline.child(self.index, key)
        return None if index < 0 else TreeNode(self.tree, index)

    def own_tensors(self, *, buffers: bool) -> Pairs:
        outline = self.tree.outline
        return [
            (outline.entry_key(entry), value_of(outline.entry_tensor(entry)))
            for entry in range(*outline.own_entries(self.index))
            if outline.entry_is_buffer(entry) == buffers
        ]

    def children(self) -> list[tuple[str, Node]]:
        outline = self.tree.outline
        return [(outline.key(i), TreeNode(self.tree, i)) for i in outline.children(self.index)]

    def attribute(self, name: str) -> Any:
        raise AttributeError(name)

    def attribute_names(self) -> list[str]:
        return []

    def sliced(self, entries: list[tuple[str, Tensor | Node]], label: str) -> TreeNode:
        keys = tuple(key for key, _ in entries)
        whole, parameters = (self.listing(buffers=b, remove_duplicate=False) for b in (True, False))
        rows = [
            (name, tensor)
            for name, tensor in whole
            if name in keys or name.startswith(tuple(key + "." for key in keys))
        ]
        buffers = frozenset(name for name, _ in rows).difference(parameters.names)
        table = _table(rows, remove_duplicate=False)
        return TreeNode(Tree(table, buffers, label, has_stand_ins=self.tree.has_stand_ins), 0, label)

    def table(self, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
        made = self.listing(buffers=buffers, remove_duplicate=remove_duplicate)
        return with_values(made) if self.tree.has_stand_ins else made

    def listing(self, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
        """The table, with stand-ins where the tree has them."""
        whole, skipped = self.tree.table, frozenset() if buffers else self.tree.buffers
        if self.index == 0 and not skipped and not remove_duplicate:
            return whole
        name = self.tree.outline.name(self.index)
        # A part of an empty name is a part too: its tensors begin with a dot.
        start = "" if self.index == 0 else name + "."
        rows = [
            (full[len(start) :], tensor)
            for full, tensor in whole
            if full.startswith(start) and full not in skipped
        ]
        return _table(rows, remove_duplicate=remove_duplicate)

    def outline(self) -> _C.Outline:
        if self.index == 0:
            return self.tree.outline
        outline = self.tree.outline
        return outline.restricted([True] * outline.entry_count(), self.index)

    def named_nodes(self, *, remove_duplicate: bool) -> Iterator[tuple[str, Node]]:
        outline = self.tree.outline
        name = outline.name(self.index)
        skip = 0 if self.index == 0 else len(name) + 1
        for i in range(self.index, self.index + outline.modules(self.index)):
            yield outline.name(i)[skip:], TreeNode(self.tree, i)


Node: TypeAlias = "ModuleNode | TreeNode"


def _table(rows: Pairs, *, remove_duplicate: bool) -> ParamTable:
    if remove_duplicate:
        seen: set[int] = set()
        rows = [row for row in rows if not (id(row[1]) in seen or seen.add(id(row[1])))]  # type: ignore[func-returns-value]
    return ParamTable([name for name, _ in rows], [tensor for _, tensor in rows])


def node_of(source: Any) -> Node:
    """The node of a source's root."""
    label = type(source).__name__
    if isinstance(source, (str, os.PathLike)):
        label = os.path.basename(os.fspath(source).rstrip("/")) or str(source)
        source = path.open(source)
    if isinstance(source, nn.Module):
        return ModuleNode(source)
    if isinstance(source, torch._C.ScriptModule):
        return ModuleNode(torch.jit._recursive.wrap_cpp_module(source))  # type: ignore[no-untyped-call]
    # An iterator gives its tensors once, so it is asked once; only what names its buffers is asked twice.
    table = table_of(source, buffers=True, remove_duplicate=False, values=False)
    buffers: frozenset[str] = frozenset()
    if hasattr(source, "named_buffers"):
        parameters = table_of(source, buffers=False, remove_duplicate=False)
        buffers = frozenset(table.names).difference(parameters.names)
    file = source if isinstance(source, Checkpoint) else None
    lists = file is not None and file.makes_tensors
    return TreeNode(Tree(table, buffers, label, file, has_stand_ins=lists))


def answering(node: Node, name: str) -> list[str]:
    """The names below a node that a name without wrappers' parts, or with others', means."""
    return paths(node, name, lambda at, key: at.child(key), _has)


def _has(node: Node, key: str) -> bool:
    return node.tensor(key) is not None or node.child(key) is not None
