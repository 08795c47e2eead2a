"""Which entries of two tables are compared: by name, and of one shape. Looks at no value."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from pyparam._sources.table import ParamTable


def matched(a: ParamTable, b: ParamTable, unread: Collection[str]) -> dict[str, Any]:
    """The columns of the native ``compare`` but for its figures; names in ``unread`` have no row.

    Raises ValueError for a name that a side has twice.
    """
    names_a, names_b = a.names, b.names
    at = _positions(names_b, "b")
    known = _positions(names_a, "a")
    found: dict[str, Any] = {key: [] for key in ("in_a", "in_b", "retyped", "reshaped_a", "reshaped_b")}
    found["missing"] = [i for i, name in enumerate(names_a) if name not in at]
    found["unexpected"] = [j for j, name in enumerate(names_b) if name not in known]
    tensors_a, tensors_b = a.tensors, b.tensors
    for i, name in enumerate(names_a):
        j = at.get(name)
        if j is None or name in unread:
            continue
        x, y = tensors_a[i], tensors_b[j]
        if x.shape != y.shape:
            found["reshaped_a"].append(i)
            found["reshaped_b"].append(j)
            continue
        if x.dtype != y.dtype:
            found["retyped"].append(len(found["in_a"]))
        found["in_a"].append(i)
        found["in_b"].append(j)
    add_shapes(found, [tensors_a[i].shape for i in found["in_a"]])
    for key in ("in_a", "in_b"):
        found[key] = torch.tensor(found[key], dtype=torch.int64, device="cpu")
    return found


def add_shapes(found: dict[str, Any], shapes: Collection[Collection[int]]) -> None:
    """The columns with the shapes of the rows."""
    found["sizes"] = torch.tensor([n for shape in shapes for n in shape], dtype=torch.int64, device="cpu")
    found["ends"] = torch.tensor([len(shape) for shape in shapes], dtype=torch.int64, device="cpu").cumsum(0)


def _positions(names: list[str], label: str) -> dict[str, int]:
    at: dict[str, int] = {}
    for i, name in enumerate(names):
        if at.setdefault(name, i) != i:
            raise ValueError(f"compare: two parameters of {label} are named {name!r}; names must be unique")
    return at
