"""PyTorch's swap mode converts a model by swapping tensors, which one that native code holds does not allow."""

import contextlib
import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import pyparam
from pyparam._base.native import _C


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


@contextlib.contextmanager
def another_thread():
    done = threading.Event()
    waiting = threading.Thread(target=done.wait)
    waiting.start()
    try:
        yield
    finally:
        done.set()
        waiting.join()


class Mode(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_a_call_holds_the_tensors_of_a_table_where_other_code_may_swap_them():
    net = ours()
    table = pyparam.walk(net)
    borrowed, held = [1] * len(table), [2] * len(table)
    if threading.active_count() == 1:
        assert _C.holders(table._native) == borrowed
    with another_thread():
        assert _C.holders(table._native) == held
    with Mode():
        assert _C.holders(table._native) == held
    # A signal's handler is Python code that runs within a long pass.
    assert _C.holders(table._native, asks=True) == held
    net[2].bias = nn.Parameter(TwoTensor(torch.ones(3), torch.ones(3)))
    assert _C.holders(pyparam.walk(net)._native) == held
    assert [tensor._use_count() for tensor in table.tensors] == borrowed


def test_a_call_that_is_refused_leaves_the_holders_of_its_tensors_as_they_were():
    tensor = torch.ones(2)
    for around in (contextlib.nullcontext, another_thread):
        with around(), pytest.raises(TypeError, match=r"tensors\[1\] is no tensor but an int"):
            _C.share_memory([tensor, 3], [tensor])
        assert tensor._use_count() == 1
    assert tensor.tolist() == [1, 1]


def test_a_table_that_its_own_tensor_refers_to_is_collected():
    net = ours()
    net[0].weight.table = table = pyparam.walk(net)
    weight, gone = weakref.ref(net[0].weight), weakref.ref(table)
    del net, table
    gc.collect()
    assert gone() is None
    assert weight() is None


def test_a_table_has_lists_of_its_own():
    names, tensors = ["a", "b"], [torch.ones(1), torch.ones(2)]
    native = _C.ParamTable(names, tensors)
    names.clear(), tensors.clear(), native.tensors.clear()
    assert native.names == ["a", "b"]
    assert [len(tensor) for tensor in native.tensors] == [1, 2]
    for method in (native.tensor, lambda i: native.take([i])):
        with pytest.raises(IndexError, match="index out of range"):
            method(2)
