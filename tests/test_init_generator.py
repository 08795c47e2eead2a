"""``generator=``, as the samplers of ``torch.nn.init`` take it: where a seed that was left out is drawn from."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import pyparam
from pyparam import init

SAMPLERS = [
    init.uniform_,
    init.normal_,
    init.trunc_normal_,
    init.xavier_uniform_,
    init.xavier_normal_,
    init.kaiming_uniform_,
    init.kaiming_normal_,
    init.orthogonal_,
    functools.partial(init.sparse_, sparsity=0.3),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: getattr(sampler, "__name__", "partial"))
def test_a_generator_draws_what_the_default_one_draws_in_the_same_state(sampler) -> None:
    from_generator, from_default, of_another = (torch.empty(5, 4) for _ in range(3))
    sampler(from_generator, generator=generator(42))
    with torch.random.fork_rng():
        torch.manual_seed(42)
        sampler(from_default)
    sampler(of_another, generator=generator(43))
    assert torch.equal(from_generator, from_default)
    assert not torch.equal(from_generator, of_another)


def test_a_generator_moves_on_and_leaves_the_default_one_alone() -> None:
    drawn, before = generator(0), torch.get_rng_state()
    first, second = (init.normal_(torch.empty(100), generator=drawn) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_stands_where_pytorch_has_it() -> None:
    ours, theirs = torch.empty(3, 4), torch.empty(3, 4)
    init.kaiming_uniform_(ours, 0, "fan_in", "relu", generator(1))
    init.kaiming_uniform_(theirs, 0, "fan_in", "relu", generator=generator(1))
    assert torch.equal(ours, theirs)


def test_what_is_refused() -> None:
    w = torch.zeros(3, 4)
    with pytest.raises(TypeError, match="normal_: got a seed and a generator; pass one of them"):
        init.normal_(w, seed=3, generator=generator(0))
    with pytest.raises(TypeError, match=r"normal_: generator: expected a torch.Generator, got int"):
        init.normal_(w, generator=3)
    model = nn.Linear(3, 4)
    before = model.weight.detach().clone()
    with pytest.raises(TypeError, match="'weight'"):
        pyparam.init.initialize_(
            model, {"*": functools.partial(init.normal_, generator=generator(0))}, seed=0
        )
    assert torch.equal(model.weight, before)
    assert not w.any()
