"""Values with fewer digits than their dtype: once bfloat16 or float16, or dequantized integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from pyparam._findings.families import WEIGHT
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_LARGE = 4096
_SLICE = 2048
_MINORITY = 0.34
_FEWEST = 3
_SPARSE = 0.3
# (consecutive values, at most so many distinct among them, what that is)
_INTEGERS = ((32, 16, "4-bit"), (256, 192, "8-bit"))

Digits = Literal["bfloat16", "float16"]


def coarse(seen: Survey) -> Iterator[Finding]:
    """float32 matrices whose values all are bfloat16's or float16's; matrices with few distinct values.

    Told for information where most are, and as a warning of a few that are so among their siblings.
    """
    zeros, numel = seen.figure("zeros"), seen.figure("numel")
    looked_at = seen.those(
        seen.weighty
        & seen.matrices
        & seen.named_like(WEIGHT)
        & (numel >= _LARGE)
        & ~(zeros > _SPARSE * numel.double())
        & seen.layouts.where(lambda kind: kind.dtype.itemsize > 1)
        & ~(seen.figure("min") == seen.figure("max"))
    )
    narrow: dict[int, str] = {}
    integers: dict[int, str] = {}
    for row in looked_at:
        dtype, tensor = seen.layouts[row].dtype, seen.values(row)
        digits = digits_of(tensor) if dtype == torch.float32 else None
        if digits is not None:
            narrow[row] = f"values of {digits} in float32"
        elif found := few_values(tensor):
            integers[row] = f"{found} values in {str(dtype).removeprefix('torch.')}"
    for rows, kind in ((narrow, "narrow"), (integers, "integers")):
        odd = _odd(seen, rows)
        rest = {row: words for row, words in rows.items() if row not in odd}
        if odd:
            yield _finding(seen, odd, kind, True)
        if 2 * len(rows) > len(looked_at) and rest:
            yield _finding(seen, rest, kind, False)


def _finding(seen: Survey, rows: dict[int, str], kind: str, odd: bool) -> Finding:
    siblings = (" where its siblings are not", " where their siblings are not") if odd else ("", "")
    if kind == "narrow":
        return told(
            seen,
            rows,
            "coarse",
            "warning" if odd else "info",
            f"was rounded to half precision{siblings[0]}",
            f"were rounded to half precision{siblings[1]}",
            reason="The last bits of every value are zero: it was converted from bfloat16 or float16, and "
            "takes twice the memory for the same digits.",
            advice="Store it in that dtype; if master weights in float32 were meant, load those.",
        )
    return told(
        seen,
        rows,
        "coarse",
        "warning" if odd else "info",
        f"has the few values of dequantized integers{siblings[0]}",
        f"have the few values of dequantized integers{siblings[1]}",
        reason="Neighbouring values repeat as those of a quantized matrix do once it is multiplied out.",
        advice="Fine for inference; train or quantize from the original weights instead.",
        confidence="likely",
    )


def _odd(seen: Survey, rows: dict[int, str]) -> dict[int, str]:
    odd: dict[int, str] = {}
    for role in seen.roles if rows else ():
        some = [row for row in role.rows if row in rows]
        if some and len(role.rows) >= _FEWEST and len(some) <= _MINORITY * len(role.rows):
            odd |= {row: rows[row] for row in some}
    return odd


def digits_of(tensor: Tensor) -> Digits | None:
    """The narrower type that a float32 tensor's values all are of."""
    flat = tensor.reshape(-1)
    samples = torch.cat([flat[:_SLICE], flat[len(flat) // 2 :][:_SLICE], flat[-_SLICE:]])
    if torch.unique(samples).numel() <= _LARGE // 64:
        return None  # so few values that they say nothing of digits
    for part in (samples, flat):
        bits = part.contiguous().view(torch.int32)
        lost = "bfloat16" if not bool((bits & 0xFFFF).any()) else None
        if lost is None and bool((bits & 0x1FFF).any()):
            return None
    if lost == "bfloat16":
        return "bfloat16"
    return "float16" if torch.equal(flat.half().float(), flat) else None


def few_values(tensor: Tensor) -> str | None:
    """What integers a matrix looks multiplied out of."""
    flat = tensor.reshape(-1)
    for length, most, what in _INTEGERS:
        if length == 256 and tensor.dtype == torch.bfloat16:
            continue  # of so many, bfloat16's own values repeat
        if tensor.shape[-1] % length and tensor.dim() == 2:
            continue
        count = len(flat) // length
        if not count:
            continue
        chosen = torch.linspace(0, count - 1, min(64, count), dtype=torch.float64, device="cpu").long()
        pieces = flat[: count * length].reshape(count, length)[chosen.to(flat.device)].float()
        ordered = pieces.sort(1).values
        distinct = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
        if bool((distinct <= most).all()):
            return what
    return None
