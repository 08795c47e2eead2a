"""Singular values of a source's matrices."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.errors import spoken_by
from pyparam._base.words import plural
from pyparam._measure.measure import measure
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._view import figure as look
from pyparam._view.series import Line, draw_lines

MATRICES = 32
EXACT = 1024
LARGEST = 128
_MORE = 16
_ITERATIONS = 2


def draw(source: Any) -> Figure:
    """Raises ValueError where there is no matrix of finite values; as ``measure`` for what it cannot read."""
    table = table_of(source)
    matrices = _matrices(table)
    if not matrices:
        raise ValueError(
            f"plot: 'spectrum' needs a parameter of two dimensions or more, at least 2 × 2 as a matrix; "
            f"none of {plural(len(table), 'parameter')} is one"
        )
    chosen = table._take(_largest(table, matrices, MATRICES))
    with spoken_by("plot", "measure"):
        stats = measure(chosen)
    unread = stats.unread
    chosen = chosen._take([i for i, name in enumerate(chosen.names) if name not in unread])
    bad = set(stats.nonfinite())
    if len(bad) == len(chosen):
        others = "" if len(chosen) == 1 else f", and so has every other of {len(chosen)}"
        raise ValueError(f"plot: no spectrum: {chosen.names[0]!r} has non-finite values{others}")
    lines, approximate = [], 0
    for name, tensor in chosen:
        if name in bad:
            continue
        values, exact = singular_values(tensor)
        approximate += not exact
        # What rounding makes of zero has no place on a logarithmic axis.
        floor = float(values[0]) * max(tensor.shape[0], tensor[0].numel()) * torch.finfo(torch.float32).eps
        values = values[values > floor]
        shape = f"{tensor.shape[0]}×{tensor[0].numel()}"
        lines.append(Line(name, list(range(1, len(values) + 1)), values.tolist(), shape))
    figure = look.new(look.WIDTH, 3.6)
    ((axes,),) = look.grid(figure, 1, 1)
    draw_lines(figure, [axes], [lines], markers=False, together=True)
    look.log_axis(axes, "y", [value for line in lines for value in line.y])
    look.label(axes, x="number of the singular value", y="singular value")
    parts = []
    if len(chosen) < len(matrices):
        parts.append(f"The {len(chosen)} largest of {len(matrices):,} matrices.")
    if approximate:
        parts.append(f"{approximate} by subspace iteration, their {LARGEST} largest values.")
    if bad:
        parts.append(f"{len(bad)} left out for non-finite values: {', '.join(sorted(bad)[:3])}.")
    if unread:
        parts.append(f"{len(unread)} left out that cannot be read: {', '.join(sorted(unread)[:3])}.")
    look.note(figure, " ".join(parts))
    return figure


def _matrices(table: ParamTable) -> list[int]:
    """Positions of what is a matrix of at least 2 × 2; a tensor that stands under several names once."""
    once: dict[Any, int] = {}
    for i, tensor in enumerate(table.tensors):
        if is_lazy(tensor) or tensor.is_nested or tensor.dim() < 2 or tensor.numel() == 0:
            continue
        if min(tensor.shape[0], tensor.numel() // tensor.shape[0]) < 2:
            continue
        where = tensor.data_ptr() if tensor.layout == torch.strided and not tensor.is_meta else id(tensor)
        once.setdefault((where, tensor.shape, tensor.dtype, tensor.device), i)
    return list(once.values())


def _largest(table: ParamTable, matrices: list[int], count: int) -> list[int]:
    """The largest in the model's order; among equals at the limit some of each part of the model."""
    tensors = table.tensors
    size = {i: tensors[i].numel() for i in matrices}
    if len(matrices) <= count:
        return matrices
    limit = sorted(size.values(), reverse=True)[count - 1]
    larger = [i for i in matrices if size[i] > limit]
    equal = [i for i in matrices if size[i] == limit]
    wanted = count - len(larger)
    return sorted(larger + [equal[k * len(equal) // wanted] for k in range(wanted)])


def singular_values(tensor: Tensor) -> tuple[Tensor, bool]:
    """Descending, float32 or float64, on the CPU, and whether they are exact: all of them, by an SVD."""
    matrix = tensor.detach().reshape(tensor.shape[0], -1)
    if matrix.dtype not in (torch.float64, torch.complex64, torch.complex128):
        matrix = matrix.float()
    if min(matrix.shape) <= EXACT:
        return torch.linalg.svdvals(matrix).cpu(), True
    generator = torch.Generator(device=matrix.device).manual_seed(0)
    size = (matrix.shape[1], LARGEST + _MORE)
    start = torch.randn(size, generator=generator, device=matrix.device, dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mH @ basis).Q).Q
    return torch.linalg.svdvals(basis.mH @ matrix)[:LARGEST].cpu(), False
