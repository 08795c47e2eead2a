"""Tensors without bytes to read, and how a verb that reads bytes refuses each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


def freed() -> Tensor:
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.ones(3)


# How to make it, the error's type, and a pattern of its words behind the parameter's name.
UNREADABLE: dict[str, tuple[Callable[[], Tensor], type[Exception], str]] = {
    "meta": (
        lambda: torch.ones(3, device="meta"),
        ValueError,
        "is on the meta device and has no data; load or initialise it first",
    ),
    "sparse": (
        lambda: torch.ones(3).to_sparse(),
        TypeError,
        r"is sparse \(layout Sparse\); expected a strided tensor",
    ),
    "compressed": (
        lambda: torch.ones(3, 3).to_sparse_csr(),
        TypeError,
        r"is sparse \(layout SparseCsr\); expected a strided tensor",
    ),
    "mkldnn": (
        lambda: torch.ones(3).to_mkldnn(),
        TypeError,
        "has the layout Mkldnn; expected a strided tensor",
    ),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(3)]),
        TypeError,
        r"is a nested tensor; expected a strided tensor \(take its \.values\(\)\)",
    ),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(3)], layout=torch.jagged),
        TypeError,
        "is a NestedTensor, which answers through __torch_dispatch__",
    ),
    "fake": (
        fake,
        TypeError,
        "is a FakeTensor, which answers through __torch_dispatch__; expected an ordinary tensor",
    ),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        TypeError,
        r"is quantized \(QInt8\); expected a plain tensor \(take its \.int_repr\(\) or \.dequantize\(\)\)",
    ),
    "lazy": (nn.UninitializedParameter, ValueError, r"is not initialised yet \(a lazy module's\)"),
    "freed": (freed, ValueError, r"needs a storage of 12 bytes and has one of 0 \(its memory was freed"),
}
