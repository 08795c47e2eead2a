"""Samplers on tensors without elements: as torch.nn.init has it."""

from __future__ import annotations

import pytest
import torch

import pyparam


@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_"])
def test_kaiming_warns_of_a_tensor_without_elements(name: str) -> None:
    for shape in ((0, 3), (3, 0), (2, 0, 4)):
        tensor = torch.empty(shape)
        for module in (torch.nn.init, pyparam.init):
            extra = {} if module is torch.nn.init else {"seed": 0, "stream": "w"}
            with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op") as told:
                assert getattr(module, name)(tensor, **extra) is tensor
            assert told[0].filename == __file__
