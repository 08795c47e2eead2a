"""pack_ and Packed: one buffer, the same Parameters, and everything that a model is asked to survive."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import pyparam

CPU32 = (torch.device("cpu"), torch.float32)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))


def train(
    model: nn.Module, steps: int = 3, optimizer: torch.optim.Optimizer | None = None, **zero: Any
) -> None:
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad(**zero)
        model(torch.randn(5, 4, generator=generator)).pow(2).sum().backward()
        optimizer.step()


def saved_bytes(thing: Any) -> int:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.tell()


class TestPack:
    def test_flat_is_the_storage(self) -> None:
        model = mlp()
        want = pyparam.flatten(model)
        objects = [id(p) for p in model.parameters()]
        packed = pyparam.pack_(model)
        assert list(packed.flat) == [CPU32]
        flat = packed.flat[CPU32]
        assert torch.equal(flat, want)
        assert torch.equal(pyparam.flatten(model), want)
        assert [id(p) for p in model.parameters()] == objects
        assert flat.data_ptr() == model[0].weight.data_ptr()
        assert flat.data_ptr() % 64 == 0
        offset = 0
        for parameter in model.parameters():
            assert parameter.data_ptr() == flat.data_ptr() + 4 * offset
            assert parameter.is_leaf
            assert parameter.requires_grad
            offset += parameter.numel()
        flat.zero_()
        assert not any(p.any() for p in model.parameters())
        with torch.no_grad():
            model[4].bias.fill_(5.0)
        assert flat[-1] == 5.0

    def test_flatten_into_the_buffer_copies_nothing(self) -> None:
        model = mlp()
        flat = pyparam.pack_(model).flat[CPU32]
        want = flat.clone()
        assert pyparam.flatten(model, out=flat) is flat
        assert torch.equal(flat, want)
        pyparam.scatter_(model, flat)
        assert torch.equal(flat, want)

    def test_groups(self) -> None:
        model = mlp()
        model[2].bfloat16()
        groups = pyparam.flatten_groups(model)
        packed = pyparam.pack_(model)
        assert list(packed.flat) == list(groups)
        assert all(torch.equal(packed.flat[key], groups[key]) for key in groups)
        assert "torch.bfloat16 on cpu: 36" in repr(packed)

    def test_empty_and_zero_dimensional_and_strided(self) -> None:
        model = nn.ParameterList(
            [torch.empty(0, 3), torch.tensor(2.0), torch.randn(3, 5).t(), torch.empty(0)]
        )
        model.append(nn.Parameter(torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)))
        model.append(nn.Parameter(torch.randn(8, 8)[::2, ::3]))
        want = pyparam.flatten(model)
        shapes = [p.shape for p in model]
        packed = pyparam.pack_(model)
        assert torch.equal(packed.flat[CPU32], want)
        assert [p.shape for p in model] == shapes
        assert packed.intact()
        packed.unpack_()
        assert torch.equal(pyparam.flatten(model), want)
        assert model[2].stride() == (1, 5)
        assert model[4].is_contiguous(memory_format=torch.channels_last)
        assert model[5].is_contiguous()

    def test_no_parameters(self) -> None:
        packed = pyparam.pack_(nn.ReLU())
        assert packed.flat == {}
        assert packed.intact()

    def test_training_is_the_same(self) -> None:
        plain, model = mlp(), mlp()
        packed = pyparam.pack_(model)
        train(plain)
        train(model)
        assert packed.intact()
        assert torch.equal(packed.flat[CPU32], pyparam.flatten(plain))

    def test_an_optimizer_made_before_keeps_working(self) -> None:
        plain, model = mlp(), mlp()
        optimizers = [torch.optim.Adam(m.parameters(), lr=0.1) for m in (plain, model)]
        train(plain, optimizer=optimizers[0])
        train(model, optimizer=optimizers[1])
        seen: list[int] = []
        model[0].weight.register_hook(lambda grad: seen.append(grad.numel()))
        packed = pyparam.pack_(model)
        train(plain, optimizer=optimizers[0])
        train(model, optimizer=optimizers[1])
        assert torch.equal(packed.flat[CPU32], pyparam.flatten(plain))
        assert seen == [32, 32, 32]

    def test_a_graph_recorded_before_stays_right(self) -> None:
        model = mlp()
        loss = model(torch.ones(1, 4)).sum()
        want = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        pyparam.pack_(model)
        got = torch.autograd.grad(loss, list(model.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


class TestTies:
    def test_one_parameter_under_two_names(self) -> None:
        model = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
        model[1].weight = model[0].weight
        packed = pyparam.pack_(model)
        assert packed.flat[CPU32].numel() == 9
        assert model[1].weight is model[0].weight

    def test_two_parameters_over_one_memory(self) -> None:
        memory = torch.arange(12.0)
        model = nn.ParameterList(
            [torch.ones(2), memory[:8].view(2, 4), memory[4:].view(4, 2), torch.zeros(3)]
        )
        packed = pyparam.pack_(model)
        assert packed.flat[CPU32].tolist() == [1, 1, *range(12), 0, 0, 0]
        with torch.no_grad():
            model[1][1, 0] = -1.0
        assert model[2][0, 0] == -1.0
        assert model[1].untyped_storage()._cdata == model[2].untyped_storage()._cdata
        assert packed.intact()
        packed.unpack_()
        assert model[1].untyped_storage()._cdata == model[2].untyped_storage()._cdata
        with torch.no_grad():
            model[1][1, 1] = -2.0
        assert model[2][0, 1] == -2.0

    def test_memory_from_numpy_has_two_storages(self) -> None:
        numpy = pytest.importorskip("numpy")
        array = numpy.arange(6, dtype=numpy.float32)
        model = nn.ParameterList([torch.from_numpy(array), torch.from_numpy(array)])
        packed = pyparam.pack_(model)
        assert packed.flat[CPU32].tolist() == list(range(6))
        with torch.no_grad():
            model[0][3] = 9.0
        assert model[1][3] == 9.0

    def test_a_buffer_that_shares_memory_moves_along(self) -> None:
        model = nn.Linear(3, 3)
        model.register_buffer("alias", model.weight.detach()[1])
        model.register_buffer("other", torch.ones(2))
        place = model.other.data_ptr()
        packed = pyparam.pack_(model)
        packed.flat[CPU32].fill_(4.0)
        assert model.alias.tolist() == [4.0] * 3
        assert model.other.data_ptr() == place
        packed.unpack_()
        with torch.no_grad():
            model.weight.zero_()
        assert not model.alias.any()

    def test_expanded_parameter(self) -> None:
        model = nn.ParameterList([torch.ones(1, 3).expand(4, 3)])
        packed = pyparam.pack_(model)
        assert packed.flat[CPU32].numel() == 3
        assert model[0].stride() == (0, 1)
        packed.unpack_()
        assert model[0].stride() == (0, 1)

    def test_two_dtypes_over_one_memory(self) -> None:
        memory = torch.zeros(4)
        model = nn.ParameterDict({"a": memory})
        model["b"] = nn.Parameter(memory.view(torch.int32)[1:], requires_grad=False)
        with pytest.raises(
            TypeError, match="pack_: parameter 'a' and parameter 'b' share memory under two dtypes"
        ):
            pyparam.pack_(model)


class TestIntact:
    def test_names_what_broke(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        answer = packed.intact()
        assert answer
        assert answer.broken == ()
        model[2].weight.data = torch.zeros(4, 8)
        assert packed.intact().broken == ("2.weight",)
        model[4].bias = nn.Parameter(torch.zeros(1))
        assert packed.intact().broken == ("2.weight", "4.bias")
        del model[0].bias
        model[0].extra = nn.Parameter(torch.zeros(1))
        answer = packed.intact()
        assert not answer
        assert set(answer.broken) == {"0.bias", "0.extra", "2.weight", "4.bias"}

    def test_the_same_bytes_seen_otherwise(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        model[0].weight.data = model[0].weight.data.t()
        model[2].weight.data = model[2].weight.data.view(8, 4)
        assert packed.intact().broken == ("0.weight", "2.weight")

    def test_to_another_dtype_and_back(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        model.to(torch.float32)
        assert packed.intact()
        model.double()
        assert len(packed.intact().broken) == 6
        model.float()
        assert not packed.intact()

    def test_a_move_within_the_model(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        model[0], model[2] = model[2], model[0]
        assert set(packed.intact().broken) == {"0.weight", "0.bias", "2.weight", "2.bias"}
        pyparam.pack_(model)
        assert not packed.intact()


class TestUnpack:
    def test_gives_each_its_own_storage(self) -> None:
        model = mlp()
        want = pyparam.flatten(model)
        packed = pyparam.pack_(model)
        flat = packed.flat[CPU32]
        packed.unpack_()
        assert torch.equal(pyparam.flatten(model), want)
        flat.zero_()
        assert torch.equal(pyparam.flatten(model), want)
        assert packed.flat == {}
        assert packed.intact().broken == tuple(n for n, _ in model.named_parameters())
        assert repr(packed) == "Packed(unpacked)"
        packed.unpack_()
        train(model)

    def test_leaves_alone_what_has_left(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        own = torch.ones(4, 8)
        model[2].weight.data = own
        packed.unpack_()
        assert model[2].weight.data_ptr() == own.data_ptr()

    def test_memory_is_returned(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        buffer = weakref.ref(packed.flat[CPU32])
        packed.unpack_()
        gc.collect()
        assert buffer() is None

    def test_the_buffer_outlives_the_handle(self) -> None:
        model = mlp()
        want = pyparam.flatten(model)
        packed = pyparam.pack_(model)
        del packed
        gc.collect()
        assert torch.equal(pyparam.flatten(model), want)


class TestGrads:
    def test_gradients_lie_beside_the_parameters(self) -> None:
        plain, model = mlp(), mlp()
        model[2].bias.requires_grad_(False)
        plain[2].bias.requires_grad_(False)
        packed = pyparam.pack_(model, grads=True)
        assert packed.flat_grad[CPU32].shape == packed.flat[CPU32].shape
        assert not packed.flat_grad[CPU32].any()
        assert model[2].bias.grad is None
        train(plain, set_to_none=False)
        train(model, set_to_none=False)
        assert packed.intact()
        assert torch.equal(packed.flat_grad[CPU32], pyparam.flatten(plain, grad=True, missing="zeros"))
        assert torch.equal(packed.flat[CPU32], pyparam.flatten(plain))

    def test_existing_gradients_are_kept(self) -> None:
        model = mlp()
        model(torch.ones(2, 4)).sum().backward()
        want = pyparam.flatten(model, grad=True)
        objects = [id(p.grad) for p in model.parameters()]
        packed = pyparam.pack_(model, grads=True)
        assert torch.equal(packed.flat_grad[CPU32], want)
        assert [id(p.grad) for p in model.parameters()] == objects
        packed.unpack_()
        assert torch.equal(pyparam.flatten(model, grad=True), want)

    def test_a_replaced_gradient_is_named(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model, grads=True)
        model[0].zero_grad(set_to_none=True)
        assert packed.intact().broken == ("0.weight", "0.bias")

    def test_refuses_shared_memory_and_sparse(self) -> None:
        memory = torch.zeros(4)
        model = nn.ParameterList([memory, memory])
        with pytest.raises(
            ValueError, match="parameter '0' and parameter '1' share memory, so with grads=True"
        ):
            pyparam.pack_(model, grads=True)
        expanded = nn.ParameterList([torch.ones(1).expand(3)])
        with pytest.raises(ValueError, match="parameter '0' has elements that share memory"):
            pyparam.pack_(expanded, grads=True)
        embedding = nn.Embedding(4, 2, sparse=True)
        embedding(torch.tensor([1])).sum().backward()
        place = embedding.weight.data_ptr()
        with pytest.raises(TypeError, match="the gradient of parameter 'weight' is sparse"):
            pyparam.pack_(embedding, grads=True)
        assert embedding.weight.data_ptr() == place


class TestAsAModel:
    def test_deepcopy_is_independent(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        twin = copy.deepcopy(model)
        assert torch.equal(pyparam.flatten(twin), packed.flat[CPU32])
        packed.flat[CPU32].zero_()
        assert pyparam.flatten(twin).any()
        train(twin)
        assert not pyparam.flatten(model).any()
        assert packed.intact()

    def test_state_dict_and_back(self) -> None:
        model, other = mlp(), mlp()
        with torch.no_grad():
            other[0].weight.fill_(3.0)
        packed = pyparam.pack_(model)
        model.load_state_dict(other.state_dict())
        assert packed.intact()
        assert torch.equal(packed.flat[CPU32], pyparam.flatten(other))
        other.load_state_dict(model.state_dict())
        model.load_state_dict({k: v.clone() for k, v in other.state_dict().items()}, assign=True)
        assert len(packed.intact().broken) == 6

    def test_saving_one_parameter_writes_only_it(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(300, 300))
        pyparam.pack_(model)
        assert saved_bytes(model[0].weight) < 4096
        assert saved_bytes(model[0].state_dict()) < 4096
        assert model[0].weight.untyped_storage().nbytes() == 64
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        assert file.tell() < 4 * pyparam.flatten(model).numel() + 4096
        file.seek(0)
        loaded = torch.load(file)
        assert all(torch.equal(loaded[k], v) for k, v in model.state_dict().items())

    def test_saving_the_whole_model(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        assert torch.equal(pyparam.flatten(loaded), packed.flat[CPU32])

    def test_safetensors(self) -> None:
        safetensors = pytest.importorskip("safetensors.torch")
        model = mlp()
        packed = pyparam.pack_(model)
        loaded = safetensors.load(safetensors.save(model.state_dict()))
        assert torch.equal(
            torch.cat([loaded[n].view(-1) for n, _ in model.named_parameters()]), packed.flat[CPU32]
        )

    def test_shared_memory(self) -> None:
        model = mlp()
        packed = pyparam.pack_(model)
        want = packed.flat[CPU32].clone()
        model.share_memory()
        assert torch.equal(pyparam.flatten(model), want)
        assert len(packed.intact().broken) == 6
        train(model)

    def test_resizing_cannot_reach_a_neighbour(self) -> None:
        model = mlp()
        pyparam.pack_(model)
        with pytest.raises(RuntimeError, match="not resizable"):
            model[0].bias.untyped_storage().resize_(4096)

    def test_compiled(self) -> None:
        model = mlp()
        pyparam.pack_(model)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        compiled(torch.ones(2, 4)).sum().backward()
        want = torch.autograd.grad(model(torch.ones(2, 4)).sum(), list(model.parameters()))
        assert all(torch.allclose(p.grad, g) for p, g in zip(model.parameters(), want, strict=True))

    def test_under_inference_mode(self) -> None:
        model = mlp()
        with torch.inference_mode():
            packed = pyparam.pack_(model)
        assert not packed.flat[CPU32].is_inference()
        train(model)
        assert packed.intact()

    def test_lstm(self) -> None:
        torch.manual_seed(0)
        model = nn.LSTM(3, 4, num_layers=2)
        x = torch.randn(5, 1, 3)
        want = model(x)[0]
        packed = pyparam.pack_(model)
        assert torch.equal(model(x)[0], want)
        assert packed.intact()


class TestErrors:
    def test_refuses_and_changes_nothing(self) -> None:
        for bad, error, words in [
            (
                nn.Parameter(torch.ones(2, device="meta")),
                TypeError,
                "is on meta; expected one that has memory",
            ),
            (nn.Parameter(torch.eye(2).to_sparse()), TypeError, "is sparse"),
            (nn.UninitializedParameter(), TypeError, "is uninitialized"),
            (nn.Parameter(torch.ones(2, dtype=torch.complex64).conj()), TypeError, "is a lazy conjugate"),
        ]:
            model = mlp()
            model.bad = bad
            places = [p.data_ptr() for p in model[0].parameters()]
            with pytest.raises(error, match="pack_: parameter 'bad' " + words):
                pyparam.pack_(model)
            assert [p.data_ptr() for p in model[0].parameters()] == places

    def test_freed_memory(self) -> None:
        model = mlp()
        model[2].weight.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"pack_: parameter '2.weight' needs a storage of 128 bytes"):
            pyparam.pack_(model)

    def test_refuses_a_wrapper(self) -> None:
        from torch.testing._internal.two_tensor import TwoTensor

        model = nn.Linear(2, 2)
        model.weight = nn.Parameter(TwoTensor(torch.ones(2, 2), torch.ones(2, 2)))
        with pytest.raises(TypeError, match="parameter 'weight' is a wrapper without memory of its own"):
            pyparam.pack_(model)

    def test_not_a_module(self) -> None:
        with pytest.raises(TypeError, match=r"pack_: the model is a list; expected a torch.nn.Module"):
            pyparam.pack_([torch.ones(2)])  # type: ignore[arg-type]
