"""unflatten, scatter_ and PyTorch's own drop-ins; any tensors there and back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from flat_models import mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_flatten import DTYPES, filled, flattened, same, zoo
from torch import nn

import pyparam


def versions(tensors: list[torch.Tensor]) -> list[int]:
    return [t._version for t in tensors]


class TestUnflatten:
    def test_gives_views_of_the_shapes(self) -> None:
        model = mlp()
        vector = torch.arange(81.0)
        views = pyparam.unflatten(vector, model)
        assert [v.shape for v in views] == [p.shape for p in model.parameters()]
        assert torch.equal(torch.cat([v.reshape(-1) for v in views]), vector)
        views[0][0, 0] = -1
        assert vector[0] == -1
        assert all(v._base is vector for v in views)

    def test_any_dtype_and_the_zoo(self) -> None:
        tensors = zoo()
        vector = torch.arange(sum(t.numel() for t in tensors), dtype=torch.int16)
        views = pyparam.unflatten(vector, tensors)
        assert [v.shape for v in views] == [t.shape for t in tensors]
        assert torch.equal(torch.cat([v.reshape(-1) for v in views]), vector)

    def test_is_differentiable(self) -> None:
        vector = torch.randn(81, requires_grad=True)
        views = pyparam.unflatten(vector, mlp())
        sum((v * v).sum() for v in views).backward()
        assert torch.allclose(vector.grad, 2 * vector.detach())

    def test_checks_the_vector(self) -> None:
        model = mlp()
        for vector, words in [
            (torch.zeros(80), "the vector is too short: it has 80 values; expected 81"),
            (torch.zeros(82), "the vector is too long: it has 82 values; expected 81"),
            (torch.zeros(81, 1), r"the vector has shape \[81, 1\]; expected one dimension"),
        ]:
            with pytest.raises(ValueError, match="unflatten: " + words):
                pyparam.unflatten(vector, model)
            with pytest.raises(ValueError, match="scatter_: " + words):
                pyparam.scatter_(model, vector)
        for verb in (lambda v: pyparam.unflatten(v, model), lambda v: pyparam.scatter_(model, v)):
            with pytest.raises(TypeError, match=r"the vector is a list; expected a torch.Tensor"):
                verb([0.0] * 81)


class TestScatter:
    def test_is_the_inverse_of_flatten(self) -> None:
        model = mlp()
        before = list(model.parameters())
        places = [(id(p), p.data_ptr()) for p in before]
        counts = versions(before)
        vector = torch.randn(81)
        assert pyparam.scatter_(model, vector) is None
        after = list(model.parameters())
        assert torch.equal(pyparam.flatten(model), vector)
        assert [(id(p), p.data_ptr()) for p in after] == places
        assert versions(after) == [v + 1 for v in counts]
        assert all(p.requires_grad and p.is_leaf for p in after)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_layout_that_can_be_written(self, dtype: torch.dtype) -> None:
        tensors = [t.clone() if 0 in t.stride() else t for t in zoo(dtype)]
        tensors = [t for i, t in enumerate(tensors) if i not in (4, 5, 11)]  # these share memory
        strides = [t.stride() for t in tensors]
        vector = filled((sum(t.numel() for t in tensors),), dtype, 9)
        pyparam.scatter_(tensors, vector)
        assert same(flattened(tensors), vector)
        assert [t.stride() for t in tensors] == strides

    def test_slices_leave_their_neighbours_alone(self) -> None:
        memory = torch.zeros(4, 6)
        pyparam.scatter_([memory[:, ::2], memory[1, 1:4:2]], torch.arange(1.0, 15.0))
        want = torch.zeros(4, 6)
        want[:, ::2] = torch.arange(1.0, 13.0).view(4, 3)
        want[1, 1:4:2] = torch.tensor([13.0, 14.0])
        assert torch.equal(memory, want)

    def test_strided_and_conjugate_vectors(self) -> None:
        target = torch.zeros(5)
        pyparam.scatter_([target], torch.arange(10.0)[::2])
        assert target.tolist() == [0, 2, 4, 6, 8]
        pyparam.scatter_([target], torch.ones(1).expand(5))
        assert target.tolist() == [1] * 5
        z = torch.zeros(3, dtype=torch.complex64)
        vector = torch.complex(torch.ones(3), torch.ones(3))
        pyparam.scatter_([z], vector.conj())
        assert torch.equal(z, vector.conj().resolve_conj())
        pyparam.scatter_([z.conj()], vector)
        assert torch.equal(z, vector.conj().resolve_conj())

    def test_refuses_dtype_device_and_expanded_before_writing(self) -> None:
        good = torch.zeros(2)
        for bad, error, words in [
            (
                torch.zeros(2).half(),
                TypeError,
                "parameter 'bad' is torch.float16 and the vector torch.float32",
            ),
            (torch.zeros(2, device="meta"), TypeError, "parameter 'bad' is on meta and the vector on cpu"),
            (
                torch.zeros(1).expand(2),
                ValueError,
                r"parameter 'bad' has elements that share memory \(shape \[2\]",
            ),
            (torch.zeros(4).as_strided((2, 2), (1, 1))[0], None, ""),
        ]:
            source = {"good": good, "bad": bad}
            if error is None:
                pyparam.scatter_(source, torch.zeros(4))
                continue
            with pytest.raises(error, match="scatter_: " + words):
                pyparam.scatter_(source, torch.ones(4))
            assert good.tolist() == [0, 0]
        with pytest.raises(ValueError, match="share memory"):
            pyparam.scatter_([torch.zeros(3).as_strided((2, 2), (1, 1))], torch.ones(4))

    def test_overlap_with_the_vector(self) -> None:
        memory = torch.arange(10.0)
        pyparam.scatter_([memory[:4], memory[4:]], memory)  # each already lies at its place
        assert torch.equal(memory, torch.arange(10.0))
        first = torch.zeros(5)
        pyparam.scatter_([first, memory[:5]], memory)  # the vector is read before it is overwritten
        assert first.tolist() == [0, 1, 2, 3, 4]
        assert memory.tolist() == [5, 6, 7, 8, 9, 5, 6, 7, 8, 9]
        memory = torch.arange(10.0)
        pyparam.scatter_([memory[:5]], memory[::2])
        assert memory.tolist() == [0, 2, 4, 6, 8, 5, 6, 7, 8, 9]

    @pytest.mark.parametrize("size", [4, 600_000])
    def test_parameters_that_share_memory_take_the_last(self, size: int) -> None:
        memory = torch.zeros(size)
        vector = torch.cat([torch.full((size,), float(i)) for i in range(5)])
        pyparam.scatter_([memory] * 5, vector)
        assert memory.eq(4.0).all()

    def test_large(self) -> None:
        tensors = [torch.zeros(n) for n in (3, 1_500_001, 0, 262_144)] + [torch.zeros(1500, 700).t()]
        vector = torch.randn(sum(t.numel() for t in tensors))
        pyparam.scatter_(tensors, vector)
        assert torch.equal(flattened(tensors), vector)

    def test_autograd_state(self) -> None:
        model = nn.Linear(3, 3, bias=False)
        loss = (model.weight * model.weight).sum()
        pyparam.scatter_(model, torch.ones(9))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        source = torch.randn(9, requires_grad=True)
        pyparam.scatter_(model, source * 2)
        assert model.weight.is_leaf
        assert torch.equal(model.weight.detach().view(-1), source.detach() * 2)

    def test_inference_tensor(self) -> None:
        with torch.inference_mode():
            target = torch.zeros(2)
            pyparam.scatter_([target], torch.ones(2))
            assert target.tolist() == [1, 1]
        ordinary = torch.zeros(2)
        with pytest.raises(ValueError, match="parameter '1' is an inference tensor"):
            pyparam.scatter_([ordinary, target], torch.zeros(4))


class TestDropIns:
    def test_parameters_to_vector(self) -> None:
        model = mlp()
        want = torch.nn.utils.parameters_to_vector(model.parameters())
        got = pyparam.parameters_to_vector(model.parameters())
        assert torch.equal(got, want)
        assert got.requires_grad
        weights = torch.randn_like(got)
        grads = torch.autograd.grad(got @ weights, list(model.parameters()))
        expected = torch.autograd.grad(want @ weights, list(model.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))
        with torch.no_grad():
            assert not pyparam.parameters_to_vector(model.parameters()).requires_grad

    def test_parameters_to_vector_refuses(self) -> None:
        with pytest.raises(
            TypeError, match=r"parameters_to_vector: parameter '0' is torch.float32 and parameter '1' is"
        ):
            pyparam.parameters_to_vector([torch.ones(2), torch.ones(2).double()])
        with pytest.raises(ValueError, match="expected a non-empty iterable"):
            pyparam.parameters_to_vector([])
        with pytest.raises(TypeError, match="entry 1 is of type int; expected a tensor"):
            pyparam.parameters_to_vector([torch.ones(2), 3])  # type: ignore[list-item]

    def test_vector_to_parameters(self) -> None:
        model = mlp()
        vector = torch.randn(81, requires_grad=True)
        pyparam.vector_to_parameters(vector, model.parameters())
        assert torch.equal(pyparam.flatten(model), vector.detach())
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())

    def test_vector_to_parameters_copies(self) -> None:
        model = mlp()
        vector = torch.zeros(81)
        pyparam.vector_to_parameters(vector, model.parameters())
        vector.fill_(1)
        assert not pyparam.flatten(model).any()

    def test_vector_to_parameters_refuses(self) -> None:
        model = mlp()
        before = pyparam.flatten(model)
        for vector, error, words in [
            (torch.zeros(82), ValueError, "vector_to_parameters: the vector is too long"),
            (torch.zeros(80), ValueError, "too short"),
            (torch.zeros(81).double(), TypeError, "is torch.float32 and the vector torch.float64"),
            (torch.zeros(81, device="meta"), TypeError, "is on cpu and the vector on meta"),
            ([0.0] * 81, TypeError, "expected torch.Tensor, but got: list"),
        ]:
            with pytest.raises(error, match=words):
                pyparam.vector_to_parameters(vector, model.parameters())
        assert torch.equal(pyparam.flatten(model), before)


SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(SHAPES)
    tensor = torch.randn(
        [2 * s + 1 for s in shape], generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    for dim, size in enumerate(shape):
        step = draw(st.integers(1, 2))
        tensor = tensor.narrow(dim, draw(st.integers(0, 1)), 2 * size)[
            (slice(None),) * dim + (slice(None, None, step),)
        ]
    return tensor.permute(draw(st.permutations(range(len(shape)))))


class TestProperties:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(tensors(), max_size=6), st.sampled_from([None, torch.float64, torch.bfloat16, torch.int32])
    )
    def test_flatten_then_scatter(self, parts: list[torch.Tensor], dtype: torch.dtype | None) -> None:
        if not parts:
            return
        assert same(pyparam.flatten(parts, dtype=dtype), flattened(parts, dtype))
        vector = pyparam.flatten(parts)
        assert [v.shape for v in pyparam.unflatten(vector, parts)] == [p.shape for p in parts]
        pyparam.scatter_(parts, vector.neg())
        assert torch.equal(flattened(parts), vector.neg())


@pytest.mark.slow
def test_more_than_two_to_the_31_elements() -> None:
    big = torch.empty((1 << 31) + 9, dtype=torch.int8)
    big[:] = 3
    big[-1] = 5
    vector = pyparam.flatten([torch.tensor([1], dtype=torch.int8), big, torch.tensor([2], dtype=torch.int8)])
    assert vector.numel() == (1 << 31) + 11
    assert vector[[0, 1, 1 << 31, -3, -2, -1]].tolist() == [1, 3, 3, 3, 5, 2]
    assert vector[(1 << 31) - 5 : -2].eq(3).all()
    vector[-2] = 7
    vector[1 << 31] = 6
    pyparam.scatter_([torch.empty(1, dtype=torch.int8), big, torch.empty(1, dtype=torch.int8)], vector)
    assert big[[0, (1 << 31) - 1, -1]].tolist() == [3, 6, 7]


@pytest.mark.slow
def test_memory_beyond_the_result() -> None:
    script = """
import re, torch, pyparam
# Of this process alone: ru_maxrss begins with what its parent had.
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
tensors = [torch.ones(1 << 20) for _ in range(256)] + [torch.ones(1024, 1024).t()]
pyparam.flatten([torch.ones(1 << 20)] * 4)
before = peak()
vector = pyparam.flatten(tensors)
print((peak() - before) / vector.nbytes)
"""
    ratio = float(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    )
    assert 0.9 < ratio < 1.01
