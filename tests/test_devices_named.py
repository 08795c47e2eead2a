"""Every tensor that the package makes names its device and its dtype.

``torch.set_default_device`` and ``torch.set_default_dtype`` are the user's: a factory that leaves them to
PyTorch puts our working tensors on the user's GPU, or rounds them to bfloat16.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._device import _device_constructors

import pyparam

# What a default device applies to, asked of PyTorch itself: a factory that a later version adds counts too.
FACTORIES = {function.__name__ for function in _device_constructors()}  # type: ignore[no-untyped-call]
# Of integers, which are int64 under every default dtype.
WITHOUT_DTYPE = {"arange", "randint", "randperm", "tril_indices", "triu_indices"}


def left_open(source: str) -> Iterator[tuple[int, str]]:
    """The lines that make a tensor without saying where, or of what type."""
    tree = ast.parse(source)
    modules = {"torch"}
    functions: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "torch" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "torch":
            functions |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        made = None
        if isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Name) and node.func.value.id in modules:
                made = node.func.attr
        elif isinstance(node.func, ast.Name):
            made = functions.get(node.func.id)
        if made not in FACTORIES:
            continue
        given = {keyword.arg for keyword in node.keywords}
        if "device" not in given:
            yield node.lineno, f"torch.{made} names no device"
        if "dtype" not in given and made not in WITHOUT_DTYPE:
            yield node.lineno, f"torch.{made} names no dtype"


def test_every_factory_names_its_device_and_its_dtype() -> None:
    root = Path(pyparam.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) > 100
    found = [
        f"{path.relative_to(root)}:{line}: {words}"
        for path in files
        for line, words in left_open(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.empty(3)", ["torch.empty names no device", "torch.empty names no dtype"]),
        ("import torch as t\nt.zeros(3, dtype=t.int8)", ["torch.zeros names no device"]),
        ("from torch import tensor as made\nmade([1], device='cpu')", ["torch.tensor names no dtype"]),
        ("import torch\ntorch.arange(3)", ["torch.arange names no device"]),
        ("import torch\ntorch.arange(3, device='cpu')", []),
        ("import torch\ntorch.full((3,), 0.5, dtype=torch.float64, device='cpu')", []),
        ("import torch\ntorch.cat([])", []),
        ("import numpy\nnumpy.empty(3)", []),
    ],
)
def test_what_the_check_sees(source: str, found: list[str]) -> None:
    assert [words for _, words in left_open(source)] == found


def test_factories_are_those_of_a_default_device() -> None:
    assert {"tensor", "empty", "zeros", "ones", "full", "arange", "linspace", "empty_strided"} <= FACTORIES
    with torch.device("meta"):
        assert torch.frombuffer(
            bytearray(4), dtype=torch.uint8
        ).is_cpu  # in no such list: it is where its bytes are
