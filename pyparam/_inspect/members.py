"""What a node lists as ``nn.Module`` lists it: named tensors, and a state dict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from pyparam._inspect.nodes import ModuleNode, Node


def named_tensors(
    node: Node, buffers: bool, prefix: str, recurse: bool, remove_duplicate: bool
) -> Iterator[tuple[str, Tensor]]:
    """``named_parameters`` or ``named_buffers``: a module's own method, or the rows of a tree of tensors."""
    if isinstance(node, ModuleNode):
        listing = node.module.named_buffers if buffers else node.module.named_parameters
        yield from listing(prefix=prefix, recurse=recurse, remove_duplicate=remove_duplicate)
        return
    start = prefix + "." if prefix else ""
    if recurse:
        pairs = list(node.table(buffers=buffers, remove_duplicate=remove_duplicate))
        if buffers:
            parameters = set(node.listing(buffers=False, remove_duplicate=False).names)
            pairs = [pair for pair in pairs if pair[0] not in parameters]
    else:
        pairs = node.own_tensors(buffers=buffers)
    for name, tensor in pairs:
        yield start + name, tensor


def state_dict_of(node: Node, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A module's own ``state_dict``, or a tree's tensors by name, detached."""
    if isinstance(node, ModuleNode):
        made: dict[str, Any] = node.module.state_dict(*args, **kwargs)
        return made
    destination, prefix, keep_vars = _arguments(*args, **kwargs)
    for name, tensor in node.table(buffers=True, remove_duplicate=False):
        destination[prefix + name] = tensor if keep_vars else tensor.detach()
    return destination


def _arguments(
    destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
) -> tuple[dict[str, Any], str, bool]:
    return OrderedDict() if destination is None else destination, prefix, keep_vars
