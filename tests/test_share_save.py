"""Saving shared memory once, and having it shared again after loading."""

import json
import warnings

import pytest
import reference_share as reference
import safetensors
import safetensors.torch
import torch
from dtypes import FLOAT8, FLOATS, INTEGERS
from tied_models import Zoo, same_values, slice_model, small_models, snapshot
from torch import nn

import pyparam
from pyparam._share.save import with_shared


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def zeroed(make):
    """A model whose every place holds zeros of its own."""
    model = make()
    for place, entries in (("_parameters", model.named_parameters), ("_buffers", model.named_buffers)):
        for name, value in list(entries(remove_duplicate=False)):
            path, _, attribute = name.rpartition(".")
            zeros = torch.zeros_like(value)
            own = nn.Parameter(zeros, value.requires_grad) if place == "_parameters" else zeros
            getattr(model.get_submodule(path), place)[attribute] = own
    return model


# ---------------------------------------------------------------- state dicts


def test_keep_is_the_state_dict_itself():
    state = reference.sequential().state_dict()
    assert with_shared(state, "keep") is state


def test_once_keeps_the_first_name_and_the_metadata():
    state = reference.sequential().state_dict()
    once = with_shared(state, "once")
    assert list(once) == ["0.weight", "0.bias", "2.weight", "2.bias", "6.weight", "6.bias"]
    assert once._metadata == state._metadata
    assert once["2.weight"].data_ptr() == state["2.weight"].data_ptr()
    assert "4.weight" in state


def test_once_shares_no_byte():
    once = with_shared(Zoo().state_dict(), "once")
    assert pyparam.ties(once) == []
    assert list(once) == [
        *("a", "transposed", "slice", "alone", "bytes", "conjugate", "windows", "expanded"),
        *("other.weight", "other.bias"),
    ]


def test_once_is_what_safetensors_takes(path):
    once = with_shared(Zoo().state_dict(), "once")
    safetensors.torch.save_file({name: value.contiguous() for name, value in once.items()}, path)


def test_once_keeps_what_is_no_tensor():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"step": 3}

    state = Extra(2, 2).state_dict()
    assert with_shared(state, "once")["_extra_state"] == {"step": 3}


def test_other_words():
    with pytest.raises(ValueError, match="state_dict: shared must be 'keep' or 'once', got 'twice'"):
        with_shared({}, "twice")


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("make", [reference.sequential, reference.tied, Zoo, slice_model])
def test_round_trip(make, assign, path):
    model = make()
    before = pyparam.ties(model, buffers=True)
    pyparam.save_file(model, path)
    again = zeroed(make)
    assert (pyparam.ties(again, buffers=True) == before) == (make is reference.sequential)
    assert pyparam.load_file_(again, path, assign=assign) == ([], [])
    assert pyparam.ties(again, buffers=True) == before
    assert same_values(again, snapshot(model))
    assert pyparam.ties(model, buffers=True) == before


@pytest.mark.parametrize("make", [reference.sequential, Zoo])
def test_onto_a_meta_model(make, path):
    model = make()
    pyparam.save_file(model, path)
    again = make().to("meta")
    pyparam.load_file_(again, path, assign=True)
    assert pyparam.ties(again, buffers=True) == pyparam.ties(model, buffers=True)
    assert same_values(again, snapshot(model))


def test_a_model_built_untied_becomes_tied(path):
    pyparam.save_file(reference.sequential(), path)
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    pyparam.load_file_(net, path)
    assert net[2].weight is net[4].weight
    assert same_values(net, reference.sequential().state_dict())


def test_shared_bytes_are_written_once(path):
    model = reference.sequential()
    pyparam.save_file(model, path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}
        header = file.metadata()
    assert header["format"] == "pt"
    assert [tie["names"] for tie in json.loads(header["pyparam.ties"])] == [
        ["2.weight", "4.weight"],
        ["2.bias", "4.bias"],
    ]


def test_nothing_shared_nothing_noted(path):
    pyparam.save_file(nn.Linear(2, 2), path, metadata={"by": "hand"})
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "by": "hand"}


def test_safetensors_own_reader_takes_it(path):
    pyparam.save_file(reference.sequential(), path)
    again = reference.sequential()
    with torch.no_grad():
        again[2].weight.zero_()
    safetensors.torch.load_model(again, path)
    assert same_values(again, reference.sequential().state_dict())


def test_safetensors_own_writer_is_read(path):
    safetensors.torch.save_model(reference.sequential(), path)
    again = reference.sequential()
    with torch.no_grad():
        again[2].weight.zero_()
    assert pyparam.load_file_(again, path) == ([], [])
    assert same_values(again, reference.sequential().state_dict())


@pytest.mark.parametrize("which", [0, 1], ids=["gpt2", "bert"])
def test_transformers(which, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, again = small_models()[which], small_models()[which]
    pyparam.save_file(model, path)
    before = pyparam.ties(model)
    again.to("meta")
    pyparam.load_file_(again, path, assign=True, strict=False)
    assert pyparam.ties(again) == before
    values = snapshot(model)
    assert all(torch.equal(p, values[name]) for name, p in again.named_parameters())


def test_strides_come_back(path):
    tensors = {
        "channels_last": torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 4).t(),
        "column": torch.randn(3, 4)[:, 1],
        "expanded": torch.randn(3, 1).expand(3, 4),
        "plain": torch.randn(3),
    }
    pyparam.save_file(tensors, path)
    model = nn.Module()
    for name, value in tensors.items():
        model.register_parameter(name, nn.Parameter(torch.empty_like(value, device="meta")))
    pyparam.load_file_(model, path, assign=True)
    assert all(torch.equal(getattr(model, name), value) for name, value in tensors.items())
    assert model.channels_last.stride() == tensors["channels_last"].stride()
    assert model.transposed.stride() == (1, 4)
    assert model.column.stride() == (1,)


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, *INTEGERS, *FLOATS, torch.complex64, *FLOAT8],
    ids=str,
)
def test_dtypes(dtype, path):
    value = torch.arange(8, dtype=torch.uint8).repeat(8).view(dtype)
    if dtype == torch.bool:
        value = torch.tensor([True, False])
    model = nn.Module()
    model.register_buffer("a", value)
    model.register_buffer("empty", value[:0])
    model.register_buffer("scalar", value[1])
    pyparam.save_file(model, path)
    again = nn.Module()
    for name, tensor in model.named_buffers():
        again.register_buffer(name, torch.zeros_like(tensor))
    pyparam.load_file_(again, path)
    for name, tensor in model.named_buffers():
        assert again.get_buffer(name).dtype == dtype
        assert (
            again.get_buffer(name).reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))
        )


def test_conjugate_and_negative_views(path):
    z = torch.randn(4, dtype=torch.complex64)
    pyparam.save_file({"conj": z.conj(), "neg": z.conj().imag}, path)
    saved = safetensors.torch.load_file(path)
    assert torch.equal(saved["conj"], z.conj())
    assert torch.equal(saved["neg"], -z.imag)


def test_not_strict(path):
    pyparam.save_file({"weight": torch.ones(2, 2), "more": torch.ones(1)}, path)
    model = nn.Linear(2, 2)
    keys = pyparam.load_file_(model, path, strict=False)
    assert keys.missing_keys == ["bias"]
    assert keys.unexpected_keys == ["more"]
    assert model.weight.tolist() == [[1, 1], [1, 1]]


def test_recorded_names_that_the_model_lacks(path):
    net = reference.sequential()
    pyparam.save_file(net, path)
    part = nn.Sequential(*list(net)[:4])
    assert set(pyparam.load_file_(part, path, strict=False).unexpected_keys) == {"6.weight", "6.bias"}
    assert pyparam.ties(part) == []


def test_lazy_parameters_take_their_shape(path):
    layer = nn.Linear(3, 2)
    pyparam.save_file(nn.Sequential(layer, layer), path)
    lazy = nn.Sequential(nn.LazyLinear(2), nn.LazyLinear(2))
    pyparam.load_file_(lazy, path)
    assert [tie.names for tie in pyparam.ties(lazy)] == [("0.weight", "1.weight"), ("0.bias", "1.bias")]
    assert torch.equal(lazy[1].weight, layer.weight)


def test_another_dtype_in_the_model(path):
    pyparam.save_file(reference.sequential(), path)
    net = reference.sequential().double()
    pyparam.load_file_(net, path)
    assert net[2].weight.dtype == torch.float64
    assert len(pyparam.ties(net)) == 2


def test_a_loaded_model_does_not_write_to_its_file(path):
    pyparam.save_file(nn.Linear(2, 2), path)
    before = path.read_bytes()
    model = nn.Linear(2, 2)
    pyparam.load_file_(model, path, assign=True)
    with torch.no_grad():
        model.weight.fill_(7)
    assert path.read_bytes() == before
