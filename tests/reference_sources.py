"""What the tests of sources share: where installed models lie, and the pairs PyTorch itself lists."""

from __future__ import annotations

import importlib.util
import zipfile
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


class Net(nn.Module):
    """Two tied layers and buffers."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(3, 4)
        self.b.weight = self.a.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.a(x) + self.b(x))


def rewritten(source: Path, target: Path, change, *, compression: int = zipfile.ZIP_STORED) -> Path:
    """Copies a zip archive with ``change(name, data)`` applied to its members.

    A member for which that gives None is dropped. Further members come from ``change(None, b"")``, a dict.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.namelist():
            root, _, name = member.partition("/")
            data = change(name, old.read(member))
            if data is not None:
                new.writestr(f"{root}/{name}", data)
        for name, data in (change(None, b"") or {}).items():
            new.writestr(f"{root}/{name}", data)
    return target
