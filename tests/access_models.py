"""What PyTorch's own methods give, beside ours."""

from __future__ import annotations

import reference_access as reference
import torch
from torch import nn

import pyparam


def same(model: nn.Module) -> None:
    """Every access function, lazily and in bulk, gives what the module's method gives."""
    for name in ("named_parameters", "parameters", "named_buffers", "buffers", "named_modules", "modules"):
        ours, theirs = getattr(pyparam, name), getattr(model, name)
        expected = reference.listing(theirs())
        assert reference.listing(list(ours(model))) == expected, name
        assert reference.listing(item for item in ours(model)) == expected, name
    for options in ({"recurse": False}, {"remove_duplicate": False}, {"prefix": "a.b"}):
        for name in ("named_parameters", "named_buffers"):
            expected = reference.listing(getattr(model, name)(**options))
            assert reference.listing(list(getattr(pyparam, name)(model, **options))) == expected, (
                name,
                options,
            )
            assert reference.listing(i for i in getattr(pyparam, name)(model, **options)) == expected
    for options in ({"remove_duplicate": False}, {"prefix": "a.b"}):
        expected = reference.listing(model.named_modules(**options))
        assert reference.listing(list(pyparam.named_modules(model, **options))) == expected
        assert reference.listing(i for i in pyparam.named_modules(model, **options)) == expected
    same_state(model)
    table = pyparam.walk(model)
    assert list(zip(table.names, map(id, table.tensors), strict=True)) == reference.listing(
        model.named_parameters()
    )


def same_state(model: nn.Module, **options: object) -> None:
    expected, got = model.state_dict(**options), pyparam.state_dict(model, **options)
    assert type(got) is type(expected)
    assert list(got) == list(expected)
    assert list(got._metadata.items()) == list(expected._metadata.items())
    for name, value in expected.items():
        if not isinstance(value, torch.Tensor):
            assert got[name] == value
            continue
        assert got[name].requires_grad == value.requires_grad
        assert type(got[name]) is type(value)
        # What a class makes anew at each call has the same values; the rest is the same memory.
        assert got[name].data_ptr() == value.data_ptr() or torch.equal(got[name], value)
        assert got[name].shape == value.shape
        assert got[name].stride() == value.stride()


def demo() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
