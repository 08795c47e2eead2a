"""flatten, scatter_ and pack_ beside PyTorch's parameters_to_vector, vector_to_parameters, cat and copy_."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import MODELS, drawn
from pairing import versus
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import pyparam

LARGE = 25  # matrices of 4096×4096 float32: 1.68 GB


def table(model: nn.Module) -> pyparam.ParamTable:
    names, tensors = zip(*model.named_parameters(), strict=True)
    return pyparam.ParamTable(names, tensors)


@pytest.fixture(scope="module")
def mixture() -> nn.Module:
    return MODELS["mixture"]()


@pytest.fixture(scope="module")
def large() -> Iterator[list[Tensor]]:
    tensors = [drawn(1 << 24).view(4096, 4096) for _ in range(LARGE)]
    yield tensors
    tensors.clear()


@pytest.fixture(scope="module")
def large_halves() -> Iterator[list[Tensor]]:
    tensors = [drawn(1 << 24).view(4096, 4096).bfloat16() for _ in range(LARGE)]
    yield tensors
    tensors.clear()


class TestTiny:
    def test_flatten_mixture_from_the_module(self, benchmark: Any, mixture: nn.Module) -> None:
        assert torch.equal(pyparam.flatten(mixture), parameters_to_vector(mixture.parameters()))
        versus(
            benchmark,
            lambda: pyparam.flatten(mixture),
            lambda: parameters_to_vector(mixture.parameters()),
            rounds=10,
            floor=7,
        )

    def test_flatten_mixture_from_a_table(self, benchmark: Any, mixture: nn.Module) -> None:
        walked = table(mixture)
        assert torch.equal(pyparam.flatten(walked), parameters_to_vector(mixture.parameters()))
        versus(
            benchmark,
            lambda: pyparam.flatten(walked),
            lambda: parameters_to_vector(mixture.parameters()),
            rounds=10,
            floor=20,
        )

    def test_flatten_mixture_without_recording(self, benchmark: Any, mixture: nn.Module) -> None:
        """The peer under no_grad and given a list: it neither records nor walks."""
        walked, parameters = table(mixture), list(mixture.parameters())
        with torch.no_grad():
            versus(
                benchmark,
                lambda: pyparam.flatten(walked),
                lambda: parameters_to_vector(parameters),
                rounds=10,
            )

    def test_parameters_to_vector_mixture(self, benchmark: Any, mixture: nn.Module) -> None:
        """Both record for autograd."""
        parameters = list(mixture.parameters())
        ours, peer = pyparam.parameters_to_vector(parameters), parameters_to_vector(parameters)
        assert torch.equal(ours, peer)
        versus(
            benchmark,
            lambda: pyparam.parameters_to_vector(parameters),
            lambda: parameters_to_vector(parameters),
            rounds=10,
        )

    def test_flatten_chain_from_the_module(self, benchmark: Any) -> None:
        chain = MODELS["chain"]()
        assert torch.equal(pyparam.flatten(chain), parameters_to_vector(chain.parameters()))
        versus(
            benchmark,
            lambda: pyparam.flatten(chain),
            lambda: parameters_to_vector(chain.parameters()),
            rounds=50,
            floor=40,
        )

    def test_flatten_mlp_from_the_module(self, benchmark: Any) -> None:
        mlp = MODELS["mlp"]()
        versus(
            benchmark,
            lambda: pyparam.flatten(mlp),
            lambda: parameters_to_vector(mlp.parameters()),
            rounds=500,
        )

    def test_scatter_mixture_from_a_table(self, benchmark: Any) -> None:
        ours, peer = MODELS["mixture"](), MODELS["mixture"]()
        walked, vector = table(ours), torch.randn(sum(p.numel() for p in ours.parameters()))
        pyparam.scatter_(walked, vector)
        vector_to_parameters(vector, peer.parameters())
        assert torch.equal(parameters_to_vector(ours.parameters()), parameters_to_vector(peer.parameters()))
        versus(
            benchmark,
            lambda: pyparam.scatter_(walked, vector),
            lambda: vector_to_parameters(vector, peer.parameters()),
            rounds=10,
            floor=15,
        )

    def test_unflatten_mixture(self, benchmark: Any, mixture: nn.Module) -> None:
        walked, tensors = table(mixture), list(mixture.parameters())
        vector = pyparam.flatten(walked)
        sizes = [t.numel() for t in tensors]

        def peer() -> list[Tensor]:
            return [part.view(t.shape) for part, t in zip(vector.split(sizes), tensors, strict=True)]

        pairs = zip(pyparam.unflatten(vector, walked), peer(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        versus(benchmark, lambda: pyparam.unflatten(vector, walked), peer, rounds=10)


class TestLarge:
    def test_flatten_fresh_output(self, benchmark: Any, large: list[Tensor]) -> None:
        assert torch.equal(pyparam.flatten(large), parameters_to_vector(large))
        versus(
            benchmark,
            lambda: pyparam.flatten(large),
            lambda: parameters_to_vector(large),
            rounds=7,
            floor=1.8,
        )

    def test_flatten_into_out(self, benchmark: Any, large: list[Tensor]) -> None:
        """The peer copies one tensor of the same bytes."""
        source = pyparam.flatten(large)
        out = torch.empty_like(source)
        pyparam.flatten(large, out=out)
        assert torch.equal(out, source)
        versus(
            benchmark,
            lambda: pyparam.flatten(large, out=out),
            lambda: out.copy_(source),
            rounds=11,
            floor=0.95,
        )

    def test_scatter(self, benchmark: Any, large: list[Tensor]) -> None:
        """The peer copies one tensor of the same bytes."""
        vector = pyparam.flatten(large)
        target = torch.empty_like(vector)
        versus(benchmark, lambda: pyparam.scatter_(large, vector), lambda: target.copy_(vector), rounds=11)

    def test_bfloat16_to_float32(self, benchmark: Any, large_halves: list[Tensor]) -> None:
        def ours() -> Tensor:
            return pyparam.flatten(large_halves, dtype=torch.float32)

        def peer() -> Tensor:
            return torch.cat([p.view(-1).float() for p in large_halves])

        assert torch.equal(ours(), peer())
        versus(benchmark, ours, peer, rounds=7, floor=4)


def test_packed_is_free() -> None:
    model = MODELS["mixture"]()
    packed = pyparam.pack_(model)
    (flat,) = packed.flat.values()
    assert flat.data_ptr() == next(model.parameters()).data_ptr()
    assert torch.equal(flat, parameters_to_vector(model.parameters()))
    print(f"\npacked: the vector is the storage at {flat.data_ptr():#x}, no copy")
