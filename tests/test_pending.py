"""Results that stay where they are until somebody reads them, as far as a machine without a device shows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyparam
from pyparam._base.pending import Pending, made, on_host, packed, unpacked


def test_packing_keeps_every_shape_dtype_and_bit() -> None:
    tensors = [
        torch.arange(3, dtype=torch.int32),
        torch.tensor([[1.5, float("nan")], [-0.0, float("inf")]], dtype=torch.float64),
        torch.empty(0, 4, dtype=torch.int64),
        torch.arange(12).reshape(3, 4).t(),
        torch.tensor([True, False, True]),
        torch.tensor(7, dtype=torch.int16),
    ]
    raw = packed(tensors)
    assert raw.numel() == sum(t.numel() * t.element_size() for t in tensors)
    for got, tensor in zip(unpacked(raw, tensors), tensors, strict=True):
        assert (got.shape, got.dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(got.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_what_is_in_host_memory_is_made_at_once_and_not_copied() -> None:
    tensor = torch.ones(3)
    assert made([tensor], lambda t: t) is tensor
    assert on_host([tensor])[0] is tensor
    pending = Pending([tensor], lambda t: t)
    assert pending.lasting
    assert pending.read() is tensor


@pytest.mark.parametrize("lasting", [True, False])
def test_pending_figures_are_read_once_unless_they_may_change(lasting: bool) -> None:
    """As on a device, but that the figures lie here."""
    model = nn.Linear(3, 2)
    stats, comparison = pyparam.measure(model, histogram=True), pyparam.compare(model, nn.Linear(3, 2))
    fingerprint = pyparam.fingerprint(model)
    for result in (stats, comparison, fingerprint):
        found, reads = result._found, []

        def read(found: object = found, reads: list[int] = reads) -> object:
            reads.append(1)
            return found

        pending: Pending[object] = Pending([], read)
        pending.lasting = lasting
        result._found = pending
        before = repr(result)
        assert repr(result) == before
        assert (len(reads) == 1) == lasting
    assert stats.total.numel == 8
    assert (stats + stats).total.numel == 16
    assert fingerprint == pyparam.fingerprint(model)


def test_figures_of_a_table_that_shares_memory_wait_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    expected = pyparam.measure(model, histogram=True)
    monkeypatch.setattr("pyparam._measure.measure.made", lambda tensors, make: Pending(tensors, make))
    stats = pyparam.measure(model, histogram=True)
    assert isinstance(stats._found, Pending)
    assert torch.equal(stats._counts, expected._counts)
    assert stats._bins is not None
    assert expected._bins is not None
    assert all(torch.equal(a, b) for a, b in zip(stats._bins, expected._bins, strict=True))
