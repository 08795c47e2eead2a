"""load_file_ keeps what the model ties, also where the file knows no ties."""

import re

import pytest
import safetensors.torch
import torch
from test_share_keep_values import Sliced, Tied
from torch import nn

import pyparam


def meta(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("written", ["save_model", "both", "pyparam"])
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("build", [lambda make: make(), meta], ids=["real", "meta"])
def test_a_tied_model_stays_tied(written, assign, build, tmp_path):
    if build is meta and not assign:
        pytest.skip("a model on the meta device needs assign")
    torch.manual_seed(3)
    saved = Tied()
    path = tmp_path / "model.safetensors"
    if written == "save_model":
        safetensors.torch.save_model(saved, str(path))
    elif written == "both":
        safetensors.torch.save_file({k: v.clone() for k, v in saved.state_dict().items()}, path)
    else:
        pyparam.save_file(saved, path)
    model = build(Tied)
    assert pyparam.load_file_(model, path, assign=assign) == ([], [])
    assert model.emb.weight is model.head.weight
    assert torch.equal(model.emb.weight, saved.emb.weight)
    assert len(list(model.parameters())) == 1


@pytest.mark.parametrize("assign", [False, True])
def test_slices_of_one_buffer_stay_slices(assign, tmp_path):
    state = {"qkv": torch.arange(12.0).view(6, 2) + 1}
    state |= {name: part.clone() for name, part in zip("qkv", state["qkv"].tensor_split(3), strict=True)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    model = Sliced()
    before = pyparam.ties(model)
    pyparam.load_file_(model, tmp_path / "model.safetensors", assign=assign)
    assert pyparam.ties(model) == before
    assert torch.equal(model.qkv, state["qkv"])
    assert torch.equal(model.v, state["v"])


@pytest.mark.parametrize("assign", [False, True])
def test_a_file_that_gives_tied_names_other_values_changes_nothing(assign, tmp_path):
    model = Tied()
    held = model.emb.weight
    values = held.detach().clone()
    state = {"emb.weight": torch.zeros(6, 4), "head.weight": torch.ones(6, 4)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    words = "load_file_: the model ties 'emb.weight' and 'head.weight', and the file gives them other values"
    with pytest.raises(ValueError, match=re.escape(words)):
        pyparam.load_file_(model, tmp_path / "model.safetensors", assign=assign)
    assert model.emb.weight is held
    assert model.head.weight is held
    assert torch.equal(held, values)


def test_an_untied_model_takes_both(tmp_path):
    state = {"0.weight": torch.zeros(3, 3), "1.weight": torch.ones(3, 3)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    pyparam.load_file_(model, tmp_path / "model.safetensors", assign=True)
    assert model[1].weight.eq(1).all()
    assert pyparam.ties(model) == []
