"""tie_, untie_, retie_ and keep_ties: making ties, dropping them, and keeping them through what breaks
them."""

import copy
import gc
import re
import warnings
import weakref

import pytest
import reference_share as reference
import torch
from torch import nn
from torch.nn.utils import parametrize

import pyparam


def names(source, **options):
    return [tie.names for tie in pyparam.ties(source, **options)]


def linears(count=4, size=8):
    torch.manual_seed(1)
    return nn.Sequential(*(nn.Linear(size, size) for _ in range(count)))


class Zoo(nn.Module):
    """Every kind of tie, among parameters and buffers."""

    def __init__(self):
        super().__init__()
        buffer = torch.arange(48.0)
        self.a = nn.Parameter(buffer[:16].view(4, 4))
        self.transposed = nn.Parameter(self.a.data.t())
        self.slice = nn.Parameter(buffer[8:32])
        self.same_storage = nn.Parameter(self.a.data, requires_grad=False)
        self.same_object = self.a
        self.register_buffer("bytes", buffer.view(torch.uint8)[6:10])
        self.register_buffer("conjugate", torch.view_as_complex(buffer.view(24, 2)).conj()[2:4])
        self.register_buffer("windows", buffer[:6].unfold(0, 3, 1))
        self.register_buffer("expanded", buffer[:1].expand(5))
        self.alone = nn.Parameter(torch.ones(3))
        self.other = nn.Linear(4, 4)
        self.pair = nn.Linear(4, 4)
        self.pair.weight = self.other.weight
        self.pair.bias = nn.Parameter(self.other.bias.data)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_values(model, values):
    return all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


# ---------------------------------------------------------------- tie_


def test_tied_layers_stay_equal_and_gradients_add_up():
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    pyparam.tie_(net, "2.weight", "4.weight")
    apart = copy.deepcopy(net)
    pyparam.untie_(apart, "4.weight")
    x = torch.randn(3, 4)
    net(x).sum().backward()
    apart(x).sum().backward()
    torch.testing.assert_close(net[2].weight.grad, apart[2].weight.grad + apart[4].weight.grad)
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert torch.equal(net[2].weight, net[4].weight)
    with torch.no_grad():
        net[2].weight[0, 0] = 100
    assert net[4].weight[0, 0] == 100


def test_the_classic_example():
    net = reference.sequential()
    before = net[2].weight.detach().clone()
    net(torch.randn(3, 4)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert torch.equal(net[2].weight, net[4].weight)
    assert not torch.equal(net[2].weight, before)


def test_tie_gives_the_sources_object():
    net = linears()
    source = net[0].weight
    assert pyparam.tie_(net, "0.weight", "2.weight", "3.weight") is source
    assert net[2].weight is source
    assert net[3].weight is source
    assert names(net) == [("0.weight", "2.weight", "3.weight")]
    assert [name for name, _ in net.named_parameters()] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "2.bias",
        "3.bias",
    ]


def test_tying_what_is_tied_changes_nothing():
    net = reference.sequential()
    pyparam.tie_(net, "2.weight", "4.weight")
    assert names(net) == [("2.weight", "4.weight"), ("2.bias", "4.bias")]


def test_a_module_with_two_names_is_one_place():
    net = reference.sequential()
    extra = nn.Sequential(net, nn.Linear(8, 8))
    pyparam.tie_(extra, "1.weight", "0.4.weight")
    assert names(extra)[0] == ("0.2.weight", "0.4.weight", "1.weight")


def test_buffers_tie_to_buffers():
    model = nn.Module()
    for name in "ab":
        model.register_buffer(name, torch.zeros(3), persistent=name == "a")
    pyparam.tie_(model, "a", "b")
    assert model.a is model.b
    assert list(model.state_dict()) == ["a"]


def test_tied_weights_of_a_recurrent_net_are_used():
    model = nn.ModuleDict({"a": nn.LSTM(3, 3), "b": nn.LSTM(3, 3)})
    pyparam.tie_(model, *("a.weight_ih_l0", "b.weight_ih_l0"))
    assert model["b"]._flat_weights[0] is model["a"].weight_ih_l0
    model["b"](torch.zeros(1, 3))[0].sum().backward()
    assert model["a"].weight_ih_l0.grad is not None


def test_entries_of_lists_and_dicts():
    model = nn.ModuleDict(
        {"l": nn.ParameterList([torch.zeros(2), torch.ones(2)]), "d": nn.ParameterDict({"k": torch.zeros(2)})}
    )
    pyparam.tie_(model, "l.1", "l.0", "d.k")
    assert model["l"][0] is model["d"]["k"]
    assert model["l"][0].tolist() == [1, 1]


def test_a_scripted_model_can_be_tied():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.script(linears(2))
    pyparam.tie_(net, "0.weight", "1.weight")
    assert names(net) == [("0.weight", "1.weight")]
    with torch.no_grad():
        for parameter in (net[0].weight, net[0].bias, net[1].bias):
            parameter.fill_(0)
    assert net(torch.ones(1, 8)).abs().sum() == 0


def test_the_original_of_a_parametrization_can_be_tied():
    net = linears(2)
    torch.nn.utils.parametrizations.weight_norm(net[0])
    torch.nn.utils.parametrizations.weight_norm(net[1])
    first, second = "0.parametrizations.weight.original1", "1.parametrizations.weight.original1"
    pyparam.tie_(net, first, second)
    assert names(net) == [(first, second)]


def test_meta_models_can_be_tied():
    net = linears().to("meta")
    pyparam.tie_(net, "0.weight", "1.weight")
    assert names(net) == [("0.weight", "1.weight")]


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


def broken(kind):
    net = linears(2)
    net.register_buffer("buffer", torch.zeros(8, 8))
    net.register_parameter("absent", None)
    net.plain = torch.zeros(8, 8)
    if kind == "parametrized":
        parametrize.register_parametrization(net[1], "weight", Doubled())
    if kind == "lazy":
        net.append(nn.LazyLinear(8))
    if kind == "dtype":
        net[1].double()
    if kind == "device":
        net[0].to("meta")
    if kind == "layout":
        net[1].weight = nn.Parameter(torch.eye(8).to_sparse())
    return net


@pytest.mark.parametrize(
    ("kind", "target", "error", "words"),
    [
        ("", "1.bias", ValueError, "tie_: '1.bias' has shape [8], expected [8, 8], the shape of '0.weight'"),
        ("dtype", "1.weight", ValueError, "tie_: '1.weight' has dtype torch.float64, expected torch.float32"),
        ("device", "1.weight", ValueError, "tie_: '1.weight' has device cpu, expected meta"),
        (
            "layout",
            "1.weight",
            ValueError,
            "tie_: '1.weight' has layout torch.sparse_coo, expected torch.strided",
        ),
        ("", "0.weight", ValueError, "tie_: '0.weight' cannot be tied to itself"),
        ("", "buffer", TypeError, "tie_: '0.weight' is a parameter and 'buffer' is a buffer"),
        (
            "",
            "1.wieght",
            AttributeError,
            "tie_: the model has no parameter '1.wieght'; did you mean '1.weight'?",
        ),
        ("", "7.weight", AttributeError, "tie_: the model has no '7.weight': the model has no submodule '7'"),
        ("", "1.x.weight", AttributeError, "the model has no '1.x.weight': module '1' has no submodule 'x'"),
        ("", "1", AttributeError, "tie_: '1' is a module; name its parameters one by one"),
        ("", "absent", AttributeError, "tie_: 'absent' is None; there is nothing to share"),
        (
            "",
            "plain",
            AttributeError,
            "tie_: 'plain' is a plain tensor attribute, neither a parameter nor a buffer",
        ),
        ("", 3, TypeError, "tie_: expected the name of a parameter, got int"),
        (
            "parametrized",
            "1.weight",
            AttributeError,
            "'1.weight' is computed by a parametrization; name the parameter",
        ),
        ("parametrized", "1.weight", AttributeError, "'1.parametrizations.weight.original'"),
        ("lazy", "2.weight", ValueError, "tie_: '2.weight' is not initialised yet and has no shape"),
    ],
)
def test_what_cannot_be_tied(kind, target, error, words):
    net = broken(kind)
    before = dict(net.named_parameters())
    with pytest.raises(error, match=re.escape(words)):
        # A good target first: nothing may be half-written.
        pyparam.tie_(net, "0.weight", *([] if kind else ["1.weight"]), target)
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_a_buffer_cannot_take_a_parameter():
    with pytest.raises(TypeError, match=r"'buffer' is a buffer and '0\.weight' is a parameter"):
        pyparam.tie_(broken(""), "buffer", "0.weight")


def test_no_target():
    with pytest.raises(ValueError, match="tie_: no target: give the names"):
        pyparam.tie_(linears(), "0.weight")


def test_not_a_model():
    with pytest.raises(
        TypeError, match=r"tie_: expected an nn\.Module or a mapping that can be written, got list"
    ):
        pyparam.tie_([], "a", "b")


def test_not_an_optimizer():
    net = linears()
    for call in (
        lambda: pyparam.tie_(net, "0.weight", "1.weight", optimizer=3),
        lambda: pyparam.untie_(net, "0.weight", optimizer=3),
        lambda: pyparam.retie_(net, [], optimizer=3),
    ):
        with pytest.raises(TypeError, match=r"tie_: optimizer must be a torch\.optim\.Optimizer, got int"):
            call()
    assert names(net) == []


# ---------------------------------------------------------------- optimizers


def stepped(net, optimizer):
    optimizer.zero_grad()
    net(torch.ones(2, 8)).sum().backward()
    optimizer.step()


def test_an_optimizer_is_mended():
    net = linears()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    stepped(net, optimizer)
    kept = optimizer.state[net[0].weight]
    pyparam.tie_(net, "0.weight", "2.weight", "3.weight", optimizer=optimizer)
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert optimizer.state[net[0].weight] is kept
    assert set(map(id, optimizer.state)) == set(map(id, net.parameters()))
    before = net[0].weight.detach().clone()
    stepped(net, optimizer)
    assert not torch.equal(net[0].weight, before)
    assert torch.equal(net[0].weight, net[3].weight)
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_source_that_the_optimizer_lacks_takes_the_targets_place():
    net = linears(2)
    optimizer = torch.optim.SGD(
        [{"params": [net[0].bias]}, {"params": [net[1].weight, net[1].bias], "lr": 0.5}], lr=0.1
    )
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    assert optimizer.param_groups[1]["params"][0] is net[0].weight


def test_a_group_may_become_empty():
    net = linears(2)
    optimizer = torch.optim.Adam([{"params": [net[0].weight]}, {"params": [net[1].weight]}], lr=0.1)
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 0]
    stepped(net, optimizer)


def test_names_in_an_optimizer_follow():
    net = linears(3)
    optimizer = torch.optim.SGD(net.named_parameters(), lr=0.1)
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    (group,) = optimizer.param_groups
    assert group["param_names"] == ["0.weight", "0.bias", "1.bias", "2.weight", "2.bias"]
    pyparam.untie_(net, "1.weight", optimizer=optimizer)
    assert group["param_names"] == ["0.weight", "0.bias", "1.bias", "2.weight", "2.bias", "1.weight"]
    assert group["params"][-1] is net[1].weight


def test_a_parameter_that_another_name_still_holds_stays():
    net = linears(3)
    pyparam.tie_(net, "1.weight", "2.weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pyparam.tie_(net, "0.weight", "2.weight", optimizer=optimizer)
    assert sum(p is net[1].weight for p in optimizer.param_groups[0]["params"]) == 1


def test_retie_mends_an_optimizer():
    net = reference.sequential()
    recorded = pyparam.ties(net)
    pyparam.untie_(net, "4.weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == 7
    pyparam.retie_(net, recorded, optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in net.parameters()]


# ---------------------------------------------------------------- untie_


def test_untie_gives_an_own_copy():
    net = linears(2)
    pyparam.tie_(net, "0.weight", "1.weight")
    net(torch.ones(1, 8)).sum().backward()
    old = net[0].weight
    new = pyparam.untie_(net, "1.weight")
    assert net[1].weight is new
    assert net[0].weight is old
    assert names(net) == []
    assert torch.equal(new, old)
    assert (type(new), new.requires_grad, new.dtype, new.stride()) == (
        nn.Parameter,
        True,
        old.dtype,
        old.stride(),
    )
    assert new.grad is None
    assert old.grad is not None


def test_untie_keeps_attributes_strides_and_requires_grad():
    net = linears(2)
    net[0].weight = nn.Parameter(torch.randn(8, 8).t(), requires_grad=False)
    net[0].weight.mark = "kept"
    pyparam.tie_(net, "0.weight", "1.weight")
    new = pyparam.untie_(net, "0.weight")
    assert (new.stride(), new.requires_grad, new.mark) == ((1, 8), False, "kept")


def test_untie_a_slice_keeps_the_object():
    buffer = torch.arange(10.0)
    model = nn.Module()
    model.whole, model.part = nn.Parameter(buffer), nn.Parameter(buffer[2:4])
    part = model.part
    assert pyparam.untie_(model, "part") is part
    assert names(model) == []
    assert part.tolist() == [2, 3]
    assert part.untyped_storage().nbytes() == 8


def test_untie_a_module_that_has_two_names():
    net = reference.sequential()
    pyparam.untie_(net, "4.weight")
    assert names(net) == [("2.bias", "4.bias")]
    assert net[2] is not net[4]
    assert torch.equal(net[2].weight, net[4].weight)
    net(torch.ones(1, 4)).sum().backward()
    assert not torch.equal(net[2].weight.grad, net[4].weight.grad)
    assert list(net.state_dict()) == list(reference.sequential().state_dict())


def test_untie_below_a_module_that_has_two_names():
    block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net = nn.ModuleDict({"a": block, "b": block})
    pyparam.untie_(net, "b.1.weight")
    assert names(net) == [("a.0.weight", "b.0.weight"), ("a.0.bias", "b.0.bias"), ("a.1.bias", "b.1.bias")]
    assert net["a"] is block
    assert net["b"][0] is block[0]


def test_untie_a_shared_recurrent_net():
    layer = nn.LSTM(3, 3)
    net = nn.ModuleDict({"a": layer, "b": layer})
    pyparam.untie_(net, "b.weight_ih_l0")
    assert net["a"]._flat_weights[0] is net["a"].weight_ih_l0
    assert net["b"]._flat_weights[0] is net["b"].weight_ih_l0
    assert net["a"].weight_ih_l0 is not net["b"].weight_ih_l0


def test_untie_a_buffer():
    model = nn.Module()
    for name in "ab":
        model.register_buffer(name, torch.ones(3))
    pyparam.tie_(model, "a", "b")
    pyparam.untie_(model, "b")
    assert model.a is not model.b
    assert model.b.tolist() == [1, 1, 1]


def test_untie_what_is_not_tied():
    net = linears()
    weight = net[0].weight
    assert pyparam.untie_(net, "0.weight") is weight


def test_untie_copies_the_optimizers_state():
    net = linears(2)
    optimizer = torch.optim.Adam(net.parameters())
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    stepped(net, optimizer)
    new = pyparam.untie_(net, "1.weight", optimizer=optimizer)
    old = net[0].weight
    assert torch.equal(optimizer.state[new]["exp_avg"], optimizer.state[old]["exp_avg"])
    assert optimizer.state[new]["exp_avg"] is not optimizer.state[old]["exp_avg"]
    stepped(net, optimizer)
    assert not torch.equal(new, old)


def test_untie_names_what_is_missing():
    with pytest.raises(
        AttributeError, match=r"untie_: the model has no parameter '0\.wight'; did you mean '0\.weight'"
    ):
        pyparam.untie_(linears(), "0.wight")


def test_a_scripted_module_with_two_names_is_not_split():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.jit.script(nn.Linear(2, 2))
    net = nn.Sequential(layer, layer)
    with pytest.raises(
        TypeError, match=r"untie_: '1\.weight' belongs to a TorchScript module that has several names"
    ):
        pyparam.untie_(net, "1.weight")
    assert len(names(net)) == 2


# ---------------------------------------------------------------- retie_ and keep_ties


def to_meta(model):
    model.to("meta")


def to_empty(model):
    model.to_empty(device="cpu")


def assign(model):
    model.load_state_dict(snapshot(model), assign=True)


def copy_parts(model):
    for name, child in list(model.named_children()):
        setattr(model, name, copy.deepcopy(child))
    for name, parameter in list(model.named_parameters(recurse=False, remove_duplicate=False)):
        setattr(model, name, copy.deepcopy(parameter))
    for name, buffer in list(model.named_buffers(recurse=False, remove_duplicate=False)):
        setattr(model, name, buffer.clone())


def materialise(model):
    values = snapshot(model)
    model.to("meta")
    model.to_empty(device="cpu")
    # load_state_dict refuses targets whose elements overlap one another.
    strange = {name: values.pop(name) for name in ("windows", "expanded") if name in values}
    model.load_state_dict(values, strict=False)
    for name, value in strange.items():
        setattr(model, name, value)


def through_meta_and_assign(model):
    values = snapshot(model)
    model.to("meta")
    model.load_state_dict(values, assign=True)


OPERATIONS = [to_meta, to_empty, assign, copy_parts, materialise, through_meta_and_assign]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("make", [reference.tied, Zoo])
def test_ties_after_are_ties_before(make, operation):
    model = make()
    before, values = pyparam.ties(model, buffers=True), snapshot(model)
    with pyparam.keep_ties(model) as recorded:
        assert recorded == before
        operation(model)
        # On the device where it is, to_empty swaps the data of an object and leaves the object.
        broken_now = pyparam.ties(model, buffers=True) != before
        assert broken_now == ((make, operation) != (reference.tied, to_empty))
    after = pyparam.ties(model, buffers=True)
    assert after == before
    assert [tie.layouts for tie in after] == [tie.layouts for tie in before]
    if operation not in (to_meta, to_empty):
        assert same_values(model, values)


@pytest.mark.parametrize("operation", [to_meta, to_empty, assign, copy_parts])
def test_a_module_with_two_names_stays_one_or_becomes_tied(operation):
    model = reference.sequential()
    before = pyparam.ties(model)
    with pyparam.keep_ties(model):
        operation(model)
    assert pyparam.ties(model) == before


def test_keep_ties_of_a_block_that_breaks_nothing():
    model = Zoo()
    before = dict(model.named_parameters())
    with pyparam.keep_ties(model):
        pass
    assert all(value is before[name] for name, value in model.named_parameters())


def test_a_half_precision_model_is_tied_as_before():
    model = nn.Module()
    buffer = torch.arange(16.0)
    model.whole, model.part = nn.Parameter(buffer), nn.Parameter(buffer[4:8])
    with pyparam.keep_ties(model):
        model.bfloat16().to("meta").to_empty(device="cpu")
        model.load_state_dict({"whole": buffer.bfloat16(), "part": torch.zeros(4, dtype=torch.bfloat16)})
    (tie,) = pyparam.ties(model)
    assert tie.layouts[1].offset == 8
    assert model.part.tolist() == [4, 5, 6, 7]
    assert (model.part.dtype, model.whole.untyped_storage().nbytes()) == (torch.bfloat16, 32)


def test_values_come_from_the_first_name_then_from_the_next():
    model = nn.Module()
    buffer = torch.zeros(6)
    model.a, model.b = nn.Parameter(buffer[:4]), nn.Parameter(buffer[2:])
    recorded = pyparam.ties(model)
    model.a, model.b = nn.Parameter(torch.full((4,), 1.0)), nn.Parameter(torch.full((4,), 2.0))
    pyparam.retie_(model, recorded)
    assert model.a.tolist() == [1, 1, 1, 1]
    assert model.b.tolist() == [1, 1, 2, 2]


def test_values_come_from_the_first_name_that_has_some():
    net = reference.sequential()
    recorded = pyparam.ties(net)
    values = copy.deepcopy(net[2])
    net[2] = copy.deepcopy(net[2]).to("meta")
    net[4] = values
    pyparam.retie_(net, recorded)
    assert pyparam.ties(net) == recorded
    assert net[2].weight is values.weight


def test_a_slice_on_meta_is_restored_from_its_whole():
    model = nn.Module()
    buffer = torch.arange(6.0)
    model.part, model.whole = nn.Parameter(buffer[2:4], requires_grad=False), nn.Parameter(buffer)
    recorded = pyparam.ties(model)
    model.part = nn.Parameter(model.part.to("meta"), requires_grad=False)
    pyparam.retie_(model, recorded)
    assert pyparam.ties(model) == recorded
    assert model.part.tolist() == [2, 3]
    assert not model.part.requires_grad


def test_objects_are_kept_where_only_memory_was_shared():
    model = Zoo()
    recorded = pyparam.ties(model, buffers=True)
    assign(model)
    objects = dict(model.named_parameters())
    pyparam.retie_(model, recorded)
    assert all(value is objects[name] for name, value in model.named_parameters())


def test_retie_a_state_dict():
    state = reference.sequential().state_dict()
    recorded = pyparam.ties(state)
    state = {name: value.clone() for name, value in state.items()}
    assert pyparam.ties(state) == []
    pyparam.retie_(state, recorded)
    assert pyparam.ties(state) == recorded


def break_and_raise(net, operation):
    with pyparam.keep_ties(net):
        operation()
        raise KeyError("theirs")


def test_a_block_that_raises_is_restored_and_its_error_seen():
    net = reference.tied()
    before = pyparam.ties(net)
    with pytest.raises(KeyError, match="theirs"):
        break_and_raise(net, lambda: net.to("meta"))
    assert pyparam.ties(net) == before


class Renamed(nn.Module):
    """Lists its parameters under names that lead nowhere."""

    def __init__(self):
        super().__init__()
        self.inner = reference.tied()

    def named_parameters(self, *args, **kwargs):
        for name, parameter in super().named_parameters(*args, **kwargs):
            yield name.removeprefix("inner."), parameter


def test_names_that_lead_nowhere_are_told_before_the_block():
    model = Renamed()
    with (
        pytest.raises(AttributeError, match=r"keep_ties: the model has no '2\.weight'"),
        pyparam.keep_ties(model),
    ):
        pytest.fail("the block ran")


def test_a_block_that_raises_and_cannot_be_restored():
    net = reference.sequential()
    with pytest.raises(KeyError, match="theirs"):
        break_and_raise(net, lambda: net.pop(4))


def slice_model():
    model = nn.Module()
    buffer = torch.arange(8.0)
    model.whole, model.part = nn.Parameter(buffer), nn.Parameter(buffer[2:4])
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: nn.Parameter(torch.zeros(3)), "retie_: 'part' has shape [3], expected [2], as recorded"),
        (
            lambda: nn.Parameter(torch.zeros(2, dtype=torch.float64)),
            "retie_: 'part' has dtype torch.float64, expected torch.float32, as recorded",
        ),
        (
            lambda: nn.Parameter(torch.zeros(2).to_sparse()),
            "retie_: 'part' has layout torch.sparse_coo, expected torch.strided",
        ),
        (nn.parameter.UninitializedParameter, "retie_: 'part' is not initialised yet"),
    ],
)
def test_memory_that_cannot_be_shared_again(change, words):
    model = slice_model()
    recorded = pyparam.ties(model)
    model.part = change()
    held = model.whole, model.part
    with pytest.raises(ValueError, match=re.escape(words)):
        pyparam.retie_(model, recorded)
    assert (model.whole, model.part) == held
    assert names(model) == []


def test_objects_that_cannot_be_one_again():
    net = reference.sequential()
    recorded = pyparam.ties(net)
    net[4] = nn.Linear(8, 9)
    with pytest.raises(ValueError, match=re.escape("retie_: '4.weight' has shape [9, 8], expected [8, 8]")):
        pyparam.retie_(net, recorded)
    del net[4]
    with pytest.raises(AttributeError, match="retie_: "):
        pyparam.retie_(net, recorded)


def test_a_first_error_leaves_every_tie_alone():
    net = nn.Sequential(reference.tied(), slice_model())
    recorded = pyparam.ties(net)
    assert len(recorded) == 3
    assign(net)
    net[1].part = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="as recorded"):
        pyparam.retie_(net, recorded)
    assert names(net) == []


def test_sparse_memory_cannot_be_shared_again():
    s = torch.eye(3).to_sparse()
    state = {"a": s, "b": s.detach()}
    recorded = pyparam.ties(state)
    state["b"] = s.clone()
    with pytest.raises(
        ValueError, match="retie_: 'a' shared memory under a layout that cannot be made again"
    ):
        pyparam.retie_(state, recorded)


def test_retie_takes_ties():
    with pytest.raises(TypeError, match=r"retie_: expected Tie, what ties\(\) gives, got str"):
        pyparam.retie_(linears(), ["0.weight"])
    with pytest.raises(
        TypeError, match=r"retie_: expected an nn\.Module or a mapping that can be written, got tuple"
    ):
        pyparam.retie_((), [])


def test_nothing_is_kept_alive():
    net = linears(2)
    gone = weakref.ref(net[1].weight)
    optimizer = torch.optim.Adam(net.parameters())
    stepped(net, optimizer)
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    gc.collect()
    assert gone() is None


# ---------------------------------------------------------------- transformers


def small_models():
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gpt2 = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8)
        )
        bert = transformers.BertForMaskedLM(
            transformers.BertConfig(
                hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20
            )
        )
    return [gpt2, bert]


@pytest.mark.parametrize("which", [0, 1], ids=["gpt2", "bert"])
@pytest.mark.parametrize("operation", [to_meta, to_empty, assign])
def test_models_with_their_own_tie_weights(which, operation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = small_models()[which]
        before = pyparam.ties(model)
        embedding = model.get_input_embeddings().weight
        assert any(
            {n for n, p in model.named_parameters(remove_duplicate=False) if p is embedding} == set(tie.names)
            for tie in before
        )
        with pyparam.keep_ties(model):
            operation(model)
        assert pyparam.ties(model) == before
        model.tie_weights()
        assert pyparam.ties(model) == before
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
