"""PyTorch's swap mode converts a model by swapping tensors, which one that native code holds does not allow."""

import gc
import weakref

import pytest
import torch
from torch import nn

import pyparam


@pytest.fixture
def swap_mode():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def ours() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    return net


def monitored(net: nn.Module):
    optimizer = torch.optim.Adam(net.parameters())
    monitor = pyparam.Monitor(net)
    monitor.attach(optimizer)
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    net.zero_grad()
    return optimizer, monitor


def half_listed(net: nn.Module):
    listing = pyparam.named_parameters(net)
    return listing, next(listing)


# Values are what a person may keep.
KEPT = {
    "walk": pyparam.walk,
    "walk, buffers": lambda net: pyparam.walk(net, buffers=True),
    "walk of a state dict": lambda net: pyparam.walk(dict(net.named_parameters())),
    "select": lambda net: pyparam.walk(net).select("*"),
    "slice": lambda net: pyparam.walk(net)[:2],
    "used table": lambda net: (lambda t: (t, t.owners, t.attributes, pyparam.measure(t), repr(t)))(
        pyparam.walk(net)
    ),
    "Inspector.select": lambda net: pyparam.inspect(net).select("*.weight"),
    "Inspector": lambda net: (lambda i: (i, repr(i)))(pyparam.inspect(net)),
    "pack_": pyparam.pack_,
    "intact": lambda net: (lambda packed: (packed, packed.intact()))(pyparam.pack_(net)),
    "index": lambda net: (lambda i: (i, list(i.items()), i["0.weight"]))(pyparam.index(net)),
    "measure": lambda net: pyparam.measure(net, histogram=True),
    "fingerprint": pyparam.fingerprint,
    "compare": lambda net: pyparam.compare(net, net),
    "ties": lambda net: pyparam.ties(net, buffers=True),
    "initialize_": lambda net: pyparam.init.initialize_(net, seed=1),
    "EMA": lambda net: pyparam.EMA(net, 0.9),
    "findings": pyparam.findings,
    "half an iterator": half_listed,
    "state_dict": pyparam.state_dict,
    "flatten_groups": pyparam.flatten_groups,
    "load_": lambda net: pyparam.load_(net, net.state_dict()),
    "Monitor": monitored,
}


@pytest.mark.parametrize("verb", KEPT)
def test_a_model_is_converted_while_what_a_verb_gave_is_kept(swap_mode, verb):
    net = ours()
    weight = net[0].weight
    kept = KEPT[verb](net)
    net.double()
    assert net[0].weight is weight
    assert weight.dtype == torch.float64
    del kept


def test_a_packed_model_is_converted_whenever_the_mode_was_switched_on():
    net = ours()
    packed = pyparam.pack_(net, grads=True)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net.zero_grad()
        net.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert packed.intact().broken == tuple(pyparam.walk(net).names)
    values = pyparam.flatten(net).clone()
    packed.unpack_()
    packed.unpack_()
    assert torch.equal(pyparam.flatten(net), values)


def test_a_table_follows_what_its_objects_become(swap_mode):
    net = ours()
    table = pyparam.walk(net, buffers=True)
    before = pyparam.flatten(table[:5])
    assert table.owners[0] is net[0]
    net.double()
    assert table["0.weight"] is net[0].weight
    assert table[0].dtype == torch.float64
    assert table.select("*.weight").tensors == [net[0].weight, net[1].weight]
    assert table.attributes[:2] == ["weight", "bias"]
    assert len(table) == len(table.names) == len(table.tensors)
    assert next(iter(table))[1] is net[0].weight
    assert pyparam.measure(table[:5])["0.weight"].dtype == torch.float64
    assert before.dtype == torch.float32


def test_a_table_made_earlier_lets_go_when_it_is_used():
    net = ours()
    table = pyparam.walk(net)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with pytest.raises(RuntimeError, match="Couldn't swap"):
            net.double()
        assert len(table) == 5
        net.double()
        assert table[0].dtype == torch.float64
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert table["0.weight"] is net[0].weight


@pytest.mark.parametrize("verb", ["walk", "pack_"])
def test_the_model_is_freed_with_what_holds_it(swap_mode, verb):
    net = ours()
    kept = KEPT[verb](net)
    weight = weakref.ref(net[0].weight)
    del net
    if verb == "walk":
        assert weight() is not None  # a table keeps its tensors alive
        assert kept.owners[0] is None
    del kept
    gc.collect()
    assert weight() is None
