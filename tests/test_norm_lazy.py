"""Lazily conjugated and negated gradients: clipped as PyTorch clips them, with the flag left on."""

import functools

import pytest
import torch
from torch import nn

import pyparam


def gradients(kind: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2, 5, dtype=torch.complex64, generator=generator)
    plain = torch.randn(3, generator=generator)
    if kind == "imag of conj":  # real, and negated
        return [base.conj().imag, plain]
    lazy = {"conj": base.conj(), "neg": torch._neg_view(base), "conj, strided": base.t().conj()[1:]}[kind]
    return [lazy, plain]


@pytest.mark.parametrize("order", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("kind", ["conj", "neg", "conj, strided", "imag of conj"])
def test_clipped_as_pytorch_does(kind: str, order: float) -> None:
    def clipped(verb):
        made = gradients(kind)
        flags = [(g.is_conj(), g.is_neg()) for g in made]
        parameters = [nn.Parameter(torch.zeros_like(g.resolve_conj().resolve_neg())) for g in made]
        for parameter, gradient in zip(parameters, made, strict=True):
            parameter.grad = gradient
        norm = verb(parameters, 0.1, order)
        assert [(p.grad.is_conj(), p.grad.is_neg()) for p in parameters] == flags
        assert all(p.grad is g for p, g in zip(parameters, made, strict=True))
        return norm, [p.grad.resolve_conj().resolve_neg() for p in parameters]

    assert any(g.is_conj() or g.is_neg() for g in gradients(kind))
    one_by_one = functools.partial(nn.utils.clip_grad_norm_, foreach=False)  # which alone takes them
    (norm, ours), (expected, theirs) = clipped(pyparam.clip_grad_norm_), clipped(one_by_one)
    torch.testing.assert_close(norm, expected)
    torch.testing.assert_close(ours, theirs)


def test_one_that_is_not_finite_is_named() -> None:
    model = nn.ParameterDict(
        {"good": nn.Parameter(torch.zeros(2)), "bad": torch.zeros(2, dtype=torch.complex64)}
    )
    model.good.grad = torch.ones(2)
    model.bad.grad = torch.tensor([1, complex(0, float("nan"))], dtype=torch.complex64).conj()
    with pytest.raises(RuntimeError, match="bad"):
        pyparam.clip_grad_norm_(model, 1.0, error_if_nonfinite=True)
    assert model.good.grad.tolist() == [1.0, 1.0]
