"""What the tests of sources share: where installed models lie, and the pairs PyTorch itself lists."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from torch import Tensor, nn


def installed(package: str) -> Path:
    """The directory of an installed package, which is not imported: only its files are wanted."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent


def assert_same_entries(table, expected) -> None:
    """The same names in the same order, and the very same tensor objects."""
    expected = list(expected)
    assert table.names == [name for name, _ in expected]
    assert all(ours is theirs for ours, (_, theirs) in zip(table.tensors, expected, strict=True))


def listed(module: nn.Module, *, buffers: bool = False, **options) -> list[tuple[str, Tensor]]:
    """What PyTorch lists, with each module's buffers after its parameters."""
    pairs = list(module.named_parameters(**options))
    if not buffers:
        return pairs
    order = {name: i for i, (name, _) in enumerate(module.named_modules(remove_duplicate=False))}
    pairs += module.named_buffers(**options)
    return sorted(pairs, key=lambda pair: order[pair[0].rpartition(".")[0]])
