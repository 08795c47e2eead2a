"""An Inspector's repr: what ``print(net)`` gives, with shapes and counts, and never long."""

from __future__ import annotations

import torch
from torch import nn

from pyparam._base.native import _C
from pyparam._base.words import plain, plural, span
from pyparam._inspect.nodes import ModuleNode, Node
from pyparam._inspect.tree import Entry, Row, Summary

_LINES = 200
_DEEPEST = 40
_FEW = 256


def printed(outline: _C.Outline, node: Node) -> str:
    """The text, of at most about 200 lines however large the model is."""
    summary = Summary(outline, node.label)
    lines: list[str] = []
    open_rows: list[Row] = []
    places: list[list[nn.Module]] = []  # of each open row, the modules it stands for, where they are few

    def close(depth: int) -> None:
        while len(open_rows) > depth:
            row = open_rows.pop()
            places.pop()
            if _has_block(row):
                lines.append("  " * row.depth + ")")

    for row in summary.rows(_DEEPEST):
        close(row.depth)
        if len(lines) >= _LINES:
            lines.append("  " * row.depth + "…")
            break
        place = _modules_at(node, places[-1] if places else [], row)
        lines.append(_line(row, node.label, place))
        open_rows.append(row)
        places.append(place)
    close(0)
    return "\n".join(lines)


def _has_block(row: Row) -> bool:
    return row.modules > 1 and not row.cut


def _modules_at(node: Node, above: list[nn.Module], row: Row) -> list[nn.Module]:
    if row.depth == 0:
        return [node.module] if isinstance(node, ModuleNode) else []
    keys = row.keys[:1] if row.one_module else row.keys
    if len(above) * len(keys) > _FEW:
        return []
    found = (module._modules[key] for module in above for key in keys)
    return [module for module in found if isinstance(module, nn.Module)]


def _extra(place: list[nn.Module]) -> str:
    """The modules' extra text, where all say the same: folding compares their tensors, not their settings."""
    # TorchScript's says only which class a module came from, and the label has that.
    texts = {
        "" if isinstance(module, torch.jit.ScriptModule) else " ".join(module.extra_repr().split())
        for module in place
    }
    return texts.pop() if len(texts) == 1 else ""


def _line(row: Row, label: str, place: list[nn.Module]) -> str:
    head = "  " * row.depth
    if row.depth:
        head += f"({plain(span(row.keys))}): "
    if row.count > 1:
        head += f"{row.count} x "
    name = label if row.depth == 0 else row.type
    tail = _tail(row)
    if row.cut:
        tail = f"{plural(row.modules - 1, 'module')} inside; {tail or 'no parameters'}"
    if _has_block(row):
        head += f"{name}({_extra(place)}"
    elif name:
        head += f"{name}({_extra(place)})"
    else:
        return head + tail  # a place in a tree of tensors is what it holds
    return f"{head}  # {tail}" if tail else head


def _tail(row: Row) -> str:
    parts = []
    if row.repeats is not None:
        parts.append(f"the module at {row.repeats!r} again")
    elif row.one_module:
        parts.append("one module")
    own = ", ".join(_tensor(entry) for entry in row.entries)
    if own:
        parts.append(own)
    held = row.parameters
    if held.names and (row.modules > 1 or row.depth == 0 or len(row.entries) > 1):
        each = " each" if row.count > 1 and not row.one_module else ""
        parts.append(f"{plural(held.unique, 'value')}{each}")
    return ": ".join(parts) if own and len(parts) == 2 else "; ".join(parts)


def _tensor(entry: Entry) -> str:
    shape = "uninitialized" if entry.uninitialized else "?" if entry.shape is None else _shape(entry.shape)
    return f"{plain(entry.key)} {shape}"


def _shape(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
