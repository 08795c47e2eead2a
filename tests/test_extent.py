"""Storages that were freed, or shrunk below what their tensors need: every verb refuses them by name, and
none reads or writes past their end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyparam
from pyparam import init

OPS = torch.ops.pyparam
NEEDS = r"needs a storage of \d+ bytes and has one of \d+ \(its memory was freed or resized\)"


def freed() -> Tensor:
    tensor = torch.ones(40, 50)
    tensor.untyped_storage().resize_(0)
    return tensor


def shrunk() -> Tensor:
    tensor = torch.ones(40, 50)
    tensor.untyped_storage().resize_(40 * 50 * 4 - 1)
    return tensor


def shrunk_columns() -> Tensor:
    whole = torch.ones(40, 50)
    tensor = whole[:, 10:20]
    whole.untyped_storage().resize_(39 * 50 * 4 + 19 * 4)
    return tensor


def shrunk_transposed() -> Tensor:
    tensor = torch.ones(40, 50).t()
    tensor.untyped_storage().resize_(4000)
    return tensor


def shrunk_slice() -> Tensor:
    whole = torch.ones(1000)
    tensor = whole[900:]
    whole.untyped_storage().resize_(950 * 4)
    return tensor


def shrunk_expanded() -> Tensor:
    whole = torch.ones(40)
    tensor = whole.expand(50, 40)
    whole.untyped_storage().resize_(39 * 4)
    return tensor


BAD: dict[str, Callable[[], Tensor]] = {
    f.__name__: f for f in (freed, shrunk, shrunk_columns, shrunk_transposed, shrunk_slice, shrunk_expanded)
}


def model_of(bad: Tensor, good: Tensor | None = None) -> nn.Module:
    model = nn.Module()
    model.good = nn.Parameter(torch.full((5,), 7.0) if good is None else good)
    model.bad = nn.Parameter(bad)
    return model


def with_gradient(bad: Tensor) -> list[nn.Parameter]:
    good, other = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(bad.shape))
    good.grad, other.grad = torch.full((5,), 7.0), bad
    return [good, other]


def tied(bad: Tensor) -> nn.Module:
    model = model_of(bad)
    model.other = model.bad
    return model


def swapped(bad: Tensor) -> None:
    model = model_of(torch.ones(bad.shape))
    average = pyparam.EMA(model, 0.9)
    model.bad = nn.Parameter(bad)
    average.swap()


READS: dict[str, Callable[[Tensor], Any]] = {
    "measure": lambda t: pyparam.measure({"bad": t}),
    "measure histogram": lambda t: pyparam.measure({"bad": t}, histogram=True),
    "measure shared": lambda t: pyparam.measure({"a": t, "b": t.view(t.shape)}),
    "measure op": lambda t: OPS.measure([torch.ones(2), t]),
    "total_norm": lambda t: pyparam.total_norm({"bad": t}),
    "total_norm op": lambda t: OPS.total_norm([t], 3.0),
    "compare op": lambda t: OPS.compare([t], [torch.ones(t.shape)]),
    "fingerprint": lambda t: pyparam.fingerprint({"bad": t}),
    "fingerprint op": lambda t: OPS.fingerprint([t]),
    "flatten": lambda t: pyparam.flatten({"good": torch.ones(2), "bad": t}),
    "flatten op": lambda t: OPS.flatten([t]),
    "flatten grad": lambda t: pyparam.flatten(with_gradient(t), grad=True),
    "flatten dtype": lambda t: pyparam.flatten([t], dtype=torch.float64),
    "flatten out": lambda t: pyparam.flatten([t], out=torch.empty(t.numel())),
    "flatten to out": lambda t: pyparam.flatten([torch.ones(t.numel())], out=t.view(-1)),
    "scatter from": lambda t: pyparam.scatter_([torch.ones(t.numel())], t.view(-1)),
    "parameters_to_vector": lambda t: pyparam.parameters_to_vector([t]),
    "pack_": lambda t: pyparam.pack_(model_of(t)),
    "untie_": lambda t: pyparam.untie_(tied(t), "other"),
    "EMA": lambda t: pyparam.EMA(model_of(t), 0.9),
    "EMA.swap": swapped,
}


@pytest.mark.parametrize("bad", [*BAD, "lazily negated"])
@pytest.mark.parametrize("verb", READS)
def test_what_reads_refuses(verb: str, bad: str) -> None:
    tensor = torch._neg_view(freed()) if bad == "lazily negated" else BAD[bad]()
    if verb in ("flatten to out", "scatter from") and not tensor.is_contiguous():
        pytest.skip("no vector")
    words = "flatten: out is a lazy" if bad == "lazily negated" and verb == "flatten to out" else NEEDS
    with pytest.raises(ValueError, match=words):
        READS[verb](tensor)


@pytest.mark.parametrize("bad", BAD)
def test_measure_goes_on_without_it(bad: str) -> None:
    stats = pyparam.measure({"good": torch.ones(2), "bad": BAD[bad]()})
    assert stats.names == ["good"]
    assert list(stats.unread) == ["bad"]
    assert stats.total.numel == 2
    gradients = pyparam.measure(with_gradient(BAD[bad]()), grad=True)
    assert len(gradients.unread) == 1


WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "scatter_": lambda good, t: pyparam.scatter_([good, t], torch.zeros(good.numel() + t.numel())),
    "scatter_ op": lambda good, t: OPS.scatter_([good, t], torch.zeros(good.numel() + t.numel())),
    "vector_to_parameters": lambda good, t: pyparam.vector_to_parameters(
        torch.zeros(good.numel() + t.numel()), [nn.Parameter(good), nn.Parameter(t)]
    ),
    "fill_": lambda good, t: OPS.fill_([good, t], [2, 2], [0.0, 1.0, 0.0, 0.0] * 2, 0, [0, 1], [], []),
    "fill_ constant": lambda good, t: OPS.fill_(
        [good, t], [0, 0], [5.0, 0.0, 0.0, 0.0] * 2, 0, [0, 1], [], []
    ),
    "initialize_": lambda good, t: init.initialize_(model_of(t, good), {"*": init.normal_}, seed=0),
    "initialize_ by a function": lambda good, t: init.initialize_(
        model_of(t, good), {"*": lambda x, seed, stream: x.fill_(1.0)}, seed=0
    ),
}


@pytest.mark.parametrize("bad", [name for name in BAD if name != "shrunk_expanded"])
@pytest.mark.parametrize("verb", WRITES)
def test_what_writes_refuses_before_it_writes(verb: str, bad: str) -> None:
    good = torch.full((5,), 7.0)
    with pytest.raises(ValueError, match=NEEDS):
        WRITES[verb](good, BAD[bad]())
    assert good.eq(7).all()


def test_clipping_refuses_before_it_scales() -> None:
    for make in BAD.values():
        parameters = with_gradient(make())
        with pytest.raises(ValueError, match=f"clip_grad_norm_: parameter '1' {NEEDS}"):
            pyparam.clip_grad_norm_(parameters, 1.0)
        assert parameters[0].grad is not None
        assert parameters[0].grad.eq(7).all()


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    name: getattr(init, name)
    for name in (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "constant_",
        "ones_",
        "zeros_",
        "xavier_uniform_",
        "kaiming_normal_",
        "orthogonal_",
        "eye_",
    )
}


@pytest.mark.parametrize("bad", [name for name in BAD if name != "shrunk_expanded"])
@pytest.mark.parametrize("name", [*SAMPLERS, "sparse_"])
def test_samplers_refuse(name: str, bad: str) -> None:
    tensor = BAD[bad]()
    if tensor.dim() != 2:
        tensor = tensor.view(10, 10)
    options: dict[str, Any] = {"constant_": {"val": 3.0}, "sparse_": {"sparsity": 0.5}}.get(name, {})
    with pytest.raises(ValueError, match=f"^{name}: the tensor {NEEDS}"):
        getattr(init, name)(tensor, seed=0, stream="s", **options)


def test_a_comparison_says_what_it_could_not_read() -> None:
    for make in BAD.values():
        bad = make()
        for pair in [
            ({"bad": bad}, {"bad": torch.ones(bad.shape)}),
            ({"bad": torch.ones(bad.shape)}, {"bad": bad}),
        ]:
            found = pyparam.compare(*pair)
            assert not found.equal
            assert "could not be read: bad (its memory was freed)" in str(found)


def test_dirac_refuses() -> None:
    tensor = torch.ones(4, 3, 5)
    tensor.untyped_storage().resize_(100)
    with pytest.raises(ValueError, match=f"^dirac_: the tensor {NEEDS}"):
        init.dirac_(tensor)


def test_tensors_that_overlap_in_a_shrunk_storage() -> None:
    whole = torch.ones(1000)
    parts = {"a": whole[:600], "b": whole[400:]}
    columns = torch.ones(30, 40)
    parts |= {"c": columns[:, :25], "d": columns[:, 20:]}
    whole.untyped_storage().resize_(2000)
    columns.untyped_storage().resize_(100)
    assert len(pyparam.ties(parts)) == 2
    for verb in (pyparam.measure, pyparam.total_norm, pyparam.fingerprint, pyparam.flatten):
        with pytest.raises(ValueError, match=f"parameter 'a' {NEEDS}"):
            verb(parts)
    grads = [nn.Parameter(torch.zeros(p.shape)) for p in parts.values()]
    for parameter, part in zip(grads, parts.values(), strict=True):
        parameter.grad = part
    with pytest.raises(ValueError, match=f"clip_grad_norm_: parameter '0' {NEEDS}"):
        pyparam.clip_grad_norm_(grads, 1.0)


def test_uninitialized_lists_what_has_no_memory() -> None:
    for make in BAD.values():
        found = init.uninitialized(model_of(make()))
        assert "bad" in found.certain
        assert "its memory was freed or resized" in found.reasons["bad"]


def test_files_are_neither_written_from_nor_loaded_into_it(tmp_path: Path) -> None:
    for make in BAD.values():
        model = model_of(make())
        with pytest.raises(ValueError, match=f"save_file: 'bad' {NEEDS}"):
            pyparam.save_file(model, tmp_path / "out.safetensors")
        assert not list(tmp_path.iterdir())
        whole = model_of(torch.ones(model.bad.shape))
        pyparam.save_file(whole, tmp_path / "in.safetensors")
        with pytest.raises(ValueError, match=f"load_file_: 'bad' {NEEDS}"):
            pyparam.load_file_(model, tmp_path / "in.safetensors")
        assert model.good.eq(7).all()
        (tmp_path / "in.safetensors").unlink()


def test_what_only_looks_at_names_and_shapes_still_works() -> None:
    for make in BAD.values():
        model = tied(make())
        assert len(pyparam.walk(model)) == 2
        assert pyparam.ties(model)[0].names == ("bad", "other")
        assert "bad" in repr(pyparam.walk(model))
        assert "bad" in pyparam.state_dict(model)
        assert pyparam.inspect(model).bad.shape == model.bad.shape


def test_memory_that_comes_back_is_read_again() -> None:
    tensor = torch.ones(40, 50)
    storage = tensor.untyped_storage()
    size = storage.nbytes()
    before = pyparam.fingerprint([tensor])
    storage.resize_(0)
    with pytest.raises(ValueError, match=NEEDS):
        pyparam.fingerprint([tensor])
    storage.resize_(size)
    tensor.fill_(1)
    assert pyparam.fingerprint([tensor]) == before
    assert copy.deepcopy(tensor).eq(1).all()


def test_an_empty_tensor_needs_no_memory() -> None:
    tensor = torch.ones(40, 50)[:0]
    tensor.untyped_storage().resize_(0)
    assert pyparam.measure([tensor])[0].numel == 0
    assert pyparam.flatten([tensor]).numel() == 0


def test_what_lies_behind_a_shrunk_storage_is_not_tied_to_it() -> None:
    for make in BAD.values():
        models = [tied(make()) for _ in range(50)]
        named = {
            f"{i}.{name}": parameter
            for i, model in enumerate(models)
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        # Their memory lies close together, and shrunk tensors reach into their neighbours'.
        for tie in pyparam.ties(named):
            assert len({name.partition(".")[0] for name in tie.names}) == 1
