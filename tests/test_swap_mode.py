"""PyTorch's swap mode converts a model by swapping tensors, which one that native code holds does not allow."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import pyparam


@pytest.fixture
def swapping():
    """Switches the mode on when it is called."""
    yield lambda: torch.__future__.set_swap_module_params_on_conversion(True)
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.fixture
def swap_mode(swapping):
    swapping()


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
    "ParamTable": lambda net: pyparam.ParamTable(*zip(*net.named_parameters(), strict=True)),
    "half an iterator": half_listed,
    "state_dict": pyparam.state_dict,
    "flatten_groups": pyparam.flatten_groups,
    "load_": lambda net: pyparam.load_(net, net.state_dict()),
    "Monitor": monitored,
}


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("verb", KEPT)
def test_a_model_is_converted_while_what_a_verb_gave_is_kept(swapping, verb, mode):
    if mode == "before":
        swapping()
    net = ours()
    weight = net[0].weight
    kept = KEPT[verb](net)
    swapping()
    net.double()
    assert net[0].weight is weight
    assert weight.dtype == torch.float64
    del kept


@pytest.mark.parametrize(
    "verb", ["walk", "walk of a state dict", "select", "slice", "Inspector.select", "ParamTable"]
)
def test_a_model_of_tensor_subclasses_is_converted(verb):
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].weight = nn.Parameter(TwoTensor(torch.ones(3, 3), torch.ones(3, 3)))
    kept = KEPT[verb](net)
    net.double()  # which swaps whatever the mode is
    assert net[0].weight.dtype == torch.float64
    assert kept[0] is net[0].weight


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


def test_a_table_that_is_kept_answers_and_is_used_as_any():
    net = ours()
    table = pyparam.walk(net, buffers=True)
    made = pyparam.ParamTable(table.names, table.tensors)
    for kept in (table, made, table[:], table.select("*")):
        assert len(kept) == len(kept.names) == 8
        assert kept["2.bias"] is kept[4] is net[2].bias
        assert kept.attributes[:2] == ["weight", "bias"]
        assert pyparam.fingerprint(kept) == pyparam.fingerprint(pyparam.walk(net, buffers=True))
        assert torch.equal(pyparam.flatten(kept[:5]), pyparam.flatten(net))
    assert [owner and type(owner).__name__ for owner in table.owners][:3] == [
        "Linear",
        "Linear",
        "BatchNorm1d",
    ]
    with pytest.raises(ValueError, match="names and tensors differ in length"):
        pyparam.ParamTable(["a"], [])
    with pytest.raises(TypeError, match="ParamTable: names are str, and 3 is an int"):
        pyparam.ParamTable([3], [torch.ones(1)])


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


def test_a_kept_table_holds_its_tensors_through_a_call_where_other_threads_may_swap_them():
    table = pyparam.walk(ours())
    alone, done = threading.active_count() == 1, threading.Event()
    waiting = threading.Thread(target=done.wait)
    waiting.start()
    try:
        held = table._borrowed
        assert [tensor._use_count() for tensor in table.tensors] == [2] * len(table)
        del held
    finally:
        done.set()
        waiting.join()
    if alone:
        borrowed = table._borrowed
        assert [tensor._use_count() for tensor in table.tensors] == [1] * len(table)
        del borrowed
