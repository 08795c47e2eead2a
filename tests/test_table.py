import torch
from torch import nn

import pyparam


def test_a_table_keeps_names_order_and_identity():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    names, tensors = zip(*net.named_parameters(), strict=True)
    table = pyparam.ParamTable(names, tensors)
    assert table.names == list(names)
    assert len(table) == 4
    assert all(a is b for a, b in zip(table.tensors, net.parameters(), strict=True))
    assert torch.equal(dict(table)["1.bias"], net[1].bias)
