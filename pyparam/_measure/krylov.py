"""Leading singular values of matrices by block Krylov iteration, and what one triangular factor tells.

All in PyTorch's own products and factorisations, over a batch of equal shapes, in the matrices' precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_MORE = 3
"""Columns of a block beyond the k that are wanted: they separate the k from what follows."""
_BLOCKS = 8
"""Blocks a basis grows to before it is made anew of its best vectors."""
_INVERSE_STEPS = 12
_INVERSE_BLOCK = 4
_SEED = 0x5EED
_SLICE = 1 << 22
"""Elements of a tall matrix that are factored at a time."""


class Leading(NamedTuple):
    """The k largest singular values of each matrix of a batch, and how sure they are."""

    values: Tensor
    """float64 [batch, k], descending, on the CPU. Each is at most the true one, but for rounding."""
    residuals: Tensor
    """float64 [batch, k]: within this of each value lies a singular value of the matrix."""
    vectors: Tensor
    """[batch, smaller side, k + 3]: right singular vectors of the tall matrix, for another start."""


def leading(
    matrices: Tensor, k: int, tolerance: float, *, start: Tensor | None = None, steps: int = 200
) -> Leading:
    """The ``k`` largest singular values of ``[batch, rows, columns]``.

    Block Lanczos on AᴴA with full reorthogonalisation, from random vectors or from ``start``, as blocks of
    k + 3 columns (Golub and Underwood, 1977; how fast and for which gaps: Musco and Musco, 2015), restarted
    with the best Ritz vectors (thick restart: Wu and Simon, 2000). It ends when the residuals of all k are at
    most ``tolerance`` times the largest value, or after ``steps`` products with each of A and Aᴴ. Then values
    and residuals are calculated afresh from the vectors, not by the recurrence: with A v = s u to rounding,
    the residual ‖Aᴴu - s v‖ bounds the distance from s to a singular value (Weyl).

    The vectors begin from a seed of their own.
    """
    tall = matrices if matrices.shape[-2] >= matrices.shape[-1] else matrices.mH
    side = tall.shape[-1]
    k = min(k, side)
    width = min(k + _MORE, side)
    most = min(_BLOCKS * width, side)
    block = _orthonormal(_random(tall, width) if start is None else start[..., :width])
    basis = block
    product = torch.bmm(tall, block)  # A times the basis
    for _ in range(steps - 1):
        values, turn = torch.linalg.eigh(_double(torch.bmm(product.mH, product)))
        turn = turn.flip(-1).to(tall.dtype)
        roots = values.flip(-1).clamp(min=0).sqrt()[:, :width]
        best, image = torch.bmm(basis, turn[..., :width]), torch.bmm(product, turn[..., :width])
        squares = (roots * roots).to(roots.dtype)
        away = torch.bmm(tall.mH, image) - best * squares.to(tall.dtype).unsqueeze(1)
        if _converged(away, roots, k, tolerance) or basis.shape[-1] >= side:
            break
        if basis.shape[-1] + width > most:
            kept = min(2 * width, most - width)
            basis = _orthonormal(torch.bmm(basis, turn[..., :kept]))
            product = torch.bmm(tall, basis)
        block = _against(away[..., : side - basis.shape[-1]], basis)
        basis = torch.cat((basis, block), -1)
        product = torch.cat((product, torch.bmm(tall, block)), -1)
    return _checked(tall, basis, product, k, width)


def once(matrix: Tensor, vectors: Tensor) -> tuple[float, float, Tensor]:
    """One step of subspace iteration of ``[rows, columns]`` from orthonormal right vectors of its tall form.

    The largest Ritz value, its residual ‖Aᴴu - s v‖ (see ``leading``), and the vectors of the next step: one
    product with the matrix and one with its adjoint.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mH
    image, factor = torch.linalg.qr(torch.mm(tall, vectors))
    turned, values, back = torch.linalg.svd(factor)
    towards = torch.mm(tall.mH, torch.mm(image, turned))
    away = towards[:, 0] - torch.mv(vectors, back[0].conj()) * values[0]
    return float(values[0]), float(torch.linalg.vector_norm(away)), _orthonormal(towards)


def _converged(away: Tensor, roots: Tensor, k: int, tolerance: float) -> bool:
    """Residuals of AᴴA over the value are those of A. They are not below what rounding makes of them."""
    first, rounding = roots[:, :1], 8 * torch.finfo(away.dtype).eps
    residual = torch.linalg.vector_norm(away[..., :k], dim=1).double()
    limit = (tolerance * first * roots[:, :k]).maximum(rounding * first * first)
    return bool((residual <= limit).all())


def _checked(tall: Tensor, basis: Tensor, product: Tensor, k: int, width: int) -> Leading:
    """Values from a product of their own and an SVD of its few columns; residuals from another."""
    _, turn = torch.linalg.eigh(_double(torch.bmm(product.mH, product)))
    right = _orthonormal(torch.bmm(basis, turn.flip(-1)[..., :width].to(tall.dtype)))
    image, factor = torch.linalg.qr(torch.bmm(tall, right))
    turned, values, back = torch.linalg.svd(_double(factor), full_matrices=False)
    left = torch.bmm(image, turned.to(tall.dtype))
    right = torch.bmm(right, back.mH.to(tall.dtype))
    away = torch.bmm(tall.mH, left) - right * values.to(tall.dtype).unsqueeze(1)
    residuals = torch.linalg.vector_norm(away[..., :k], dim=1)
    return Leading(values[:, :k].cpu(), residuals.double().cpu(), right)


def _against(block: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal columns, in whose span is the block's part outside the basis.

    Twice is enough (Kahan) for a block of full rank. Of one that is not, as where others of a batch go on,
    the first time leaves columns of rounding in place of what is not there.
    """
    for _ in range(3):
        # Columns of very unequal length would drown in each other's rounding.
        length = torch.linalg.vector_norm(block, dim=1, keepdim=True)
        block = block / torch.where(length > 0, length, 1)
        block = _orthonormal(block - torch.bmm(basis, torch.bmm(basis.mH, block)))
    return block


def _orthonormal(block: Tensor) -> Tensor:
    q: Tensor = torch.linalg.qr(block).Q
    return q


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _random(like: Tensor, width: int) -> Tensor:
    """Normal numbers, the same for each matrix of the batch and every time."""
    generator = torch.Generator(device=like.device).manual_seed(_SEED)
    made = torch.randn((like.shape[-1], width), generator=generator, device=like.device, dtype=like.dtype)
    return made.expand(like.shape[0], *made.shape)


# --- the whole spectrum's figures, from a triangular factor ----------------------------------------------


def triangular(matrix: Tensor) -> Tensor:
    """R of a QR factorisation of ``[rows, columns]`` or of its adjoint, whichever is tall.

    It has the singular values of the matrix. A tall one is factored some rows at a time, each below the R of
    those before, so that only the R is held beside it.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mH
    side = tall.shape[1]
    rows = max(2 * side, _SLICE // side)
    factor = tall[:0]
    for first in range(0, tall.shape[0], rows):
        factor = torch.linalg.qr(torch.cat((factor, tall[first : first + rows])), mode="r").R
    return factor


def fourth_moment(factor: Tensor) -> float:
    """The sum of the fourth powers of the singular values: ‖R Rᴴ‖², by the Gram matrix."""
    gram = torch.mm(factor, factor.mH)
    return float(torch.linalg.vector_norm(_double(gram))) ** 2


def smallest(factor: Tensor) -> float:
    """The least singular value of a triangular matrix, from above, by inverse subspace iteration; 0 where a
    division shows that it is singular."""
    block = _orthonormal(_random(factor.unsqueeze(0), min(_INVERSE_BLOCK, factor.shape[0]))[0])
    found = last = float("inf")
    for _ in range(_INVERSE_STEPS):
        block = torch.linalg.solve_triangular(factor.mH, block, upper=False)
        block = block / torch.linalg.vector_norm(block, dim=0, keepdim=True)
        block = torch.linalg.solve_triangular(factor, block, upper=True)
        block = block / torch.linalg.vector_norm(block, dim=0, keepdim=True)
        if not bool(block.isfinite().all()):
            return 0.0
        block = _orthonormal(block)
        found = float(torch.linalg.svdvals(torch.mm(factor, block))[-1])
        if abs(last - found) <= 1e-3 * found:
            break
        last = found
    return found


@contextlib.contextmanager
def in_full_precision() -> Iterator[None]:
    """Products in the dtype they are written in: neither under autocast nor in TF32 or bfloat16 passes."""
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False) if torch.cuda.is_available() else contextlib.nullcontext(),
        ):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)
