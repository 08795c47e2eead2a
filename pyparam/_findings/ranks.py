"""Matrices of few directions, and those that one direction rules unlike their siblings."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyparam._findings.families import COMPUTED
from pyparam._findings.finding import Finding
from pyparam._findings.outlying import outliers
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told
from pyparam._measure.krylov import in_full_precision

_SIDE = 64
_COLUMNS = 16
_FEW = 8  # directions
_RULES = 10.0  # the largest singular value of a sketch over the next, where siblings' are below ...
_USUAL = 3.0
_SIBLINGS = 3
_BATCH = 1 << 24  # bytes of equal matrices that are looked at together
_HALVES = (torch.float16, torch.bfloat16)


def ranks(seen: Survey) -> Iterator[Finding]:
    """Ranks of at most 8 in matrices of 64 or more either way, and one direction far above the others.

    A product with 16 columns of normal numbers has the matrix's rank, up to 16, and shows a direction that
    stands out (Halko, Martinsson and Tropp, 2011): one pass over the values.
    """
    # What one row or value rules is told of as that.
    told_of = outliers(seen)
    sketches = {
        row: values
        for row, values in _sketches(seen).items()
        if row not in told_of.rows and row not in told_of.damaged
    }
    few = {}
    for row, values in sketches.items():
        # What rounding to its dtype leaves of singular values that are zero: of errors of eps / 4 of a value,
        # drawn anew for each, the largest is sqrt(m) + sqrt(n) of them, of the first's sqrt(m n) at most.
        m, n = _sides(seen.sizes(row))
        floor = max(1e-5, torch.finfo(seen.layouts[row].dtype).eps * (m**-0.5 + n**-0.5))
        rank = int((values > floor * values[0]).sum())
        if rank <= _FEW:
            few[row] = f"rank {rank} of {min(m, n)}"
    if few:
        yield told(
            seen,
            few,
            "low-rank",
            "warning",
            "has few directions",
            "have few directions",
            reason="Nearly all singular values are zero: whatever is multiplied with it is mapped to a few "
            "directions, as by a product of two thin matrices or rows that are multiples of each other.",
            advice="Compare with the checkpoint it came from; pyparam.spectrum has the singular values.",
            confidence="likely",
        )
    ruled = {}
    for role in seen.roles:
        share = {row: float(sketches[row][0] / sketches[row][1]) for row in role.rows if row in sketches}
        usual = sorted(share.values())[len(share) // 2] if share else 0.0
        if len(share) > _SIBLINGS and usual < _USUAL:
            for row, ratio in share.items():
                if ratio > _RULES and row not in few:
                    ruled[row] = f"one direction about {ratio:.0f} times the next; its siblings' {usual:.1f}"
    if ruled:
        yield told(
            seen,
            ruled,
            "low-rank",
            "warning",
            "is ruled by one direction",
            "are ruled by one direction",
            reason="One singular value is far above the others, and in the same parameter of the other "
            "blocks none is: whatever is multiplied with it comes out nearly parallel.",
            advice="Look at when it grew with Monitor(spectral=True); pyparam.spectrum has the values.",
            confidence="likely",
        )


def _sides(sizes: tuple[int, ...]) -> tuple[int, int]:
    rest = 1
    for size in sizes[1:]:
        rest *= size
    return sizes[0], rest


def _near_one(matrix: Tensor, largest: float) -> Tensor:
    wide = matrix if matrix.dtype == torch.float64 else matrix.float()
    return (wide / largest).float()


def _sketches(seen: Survey) -> dict[int, Tensor]:
    """Singular values of sketches by row, in descending order, float64 [16]."""
    bad = seen.figure("nans") + seen.figure("posinfs") + seen.figure("neginfs")
    wide = seen.layouts.where(
        lambda kind: (
            (kind.dtype in (torch.float32, torch.float64, *_HALVES))
            and len(kind.sizes or ()) >= 2
            and min(_sides(kind.sizes or (0,))) >= _SIDE
        )
    )
    apart = seen.figure("max") > seen.figure("min")
    apart &= seen.figure("max_abs") > 1e-30
    rows = seen.those(seen.weighty & seen.matrices & wide & apart & (bad == 0) & ~seen.named_like(COMPUTED))
    kinds: dict[object, list[int]] = {}
    for row in rows:
        if not seen.is_table(row):
            kinds.setdefault(seen.layouts[row], []).append(row)
    found: dict[int, Tensor] = {}
    largest = seen.figure("max_abs")
    for alike in kinds.values():
        m, n = _sides(seen.sizes(alike[0]))
        step = max(1, _BATCH // (4 * m * n))
        generator = torch.Generator().manual_seed(0)
        omega = torch.randn(n, _COLUMNS, generator=generator, device="cpu", dtype=torch.float32)
        for first in range(0, len(alike), step):
            some = alike[first : first + step]
            batch = torch.stack(
                [_near_one(seen.values(row).reshape(m, n), float(largest[row])) for row in some]
            )
            with in_full_precision():
                image = torch.matmul(batch, omega.to(batch.device)).double()
                gram = torch.matmul(image.mT, image)
            values = torch.linalg.eigvalsh(gram).flip(-1).clamp(min=0).sqrt().cpu()
            found |= dict(zip(some, values, strict=True))
    return found
