"""retie_ and keep_ties: ties that an operation cut, made again."""

import copy
import gc
import re
import warnings
import weakref

import pytest
import reference_share as reference
import torch
from tied_models import Zoo, linears, names, same_values, slice_model, small_models, snapshot, stepped
from torch import nn

import pyparam

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
        model.load_state_dict({"whole": buffer.bfloat16(), "part": buffer[4:8].bfloat16()})
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
