"""spectrum: the largest singular values of every matrix, without full decompositions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.modes import require_memory
from pyparam._base.words import a_kind, dtype_name
from pyparam._measure import krylov
from pyparam._measure.measure import measure_strictly
from pyparam._measure.spectra import Spectrum, SpectrumRow
from pyparam._parts.place import dtensor_type
from pyparam._share.readable import read_of
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.chosen import picked, selected
from pyparam._sources.stand_in import Untold
from pyparam._sources.table import ParamTable

EXACT = 128
"""The smaller side up to which all singular values are calculated."""
_BATCH = 64 << 20
"""Bytes of equal matrices that are worked on together."""
_TALL = 1.5
"""From this ratio of the sides on, iterating on the triangular factor costs less than on the matrix."""


def spectrum(
    source: Any, k: int = 1, *, tolerance: float = 1e-4, condition: bool = True, select: Any = None
) -> Spectrum:
    """The ``k`` largest singular values, stable and effective rank and condition of every matrix of a source.

    A parameter of two dimensions or more is the matrix ``[first, the rest]``: the kernel of a convolution is
    ``[out, in × height × width]`` (of a transposed one ``[in, ...]``), which bounds the convolution's own
    norm but is not it. Vectors have no row.

    Where the smaller side is at most 128, all singular values are calculated (``torch.linalg.svdvals``).
    Elsewhere the k largest are found by block Lanczos iteration with full reorthogonalisation and thick
    restarts (see ``row.error``): what is returned is calculated from the vectors once more, never above the
    true value but for rounding, and its residual is measured, which bounds how far the nearest singular value
    is. Iteration ends when all k residuals are below ``tolerance`` × the largest value. Values that are
    nearer to each other than that are not told apart; the error of a value that stands apart by a gap g is
    about residual² / g. Condition and effective rank come of a QR factorisation, the smallest singular value
    by inverse subspace iteration with its R: an estimate of the condition from below, within a few per cent
    of the true one where the least values are close together. No full decomposition is made.

    float16, bfloat16 and float8 are calculated in float32, other dtypes in their own. Matrices are scaled by
    a power of two where squares would leave its range. Random starts have a seed of their own: the global
    generators are neither read nor moved, and a call gives the same again on the same threads.

    Args:
        source: anything with parameters. A checkpoint streams: a matrix at a time, or of small ones of equal
            shape 64 MiB.
        k: how many of each.
        tolerance: of the residuals, relative to the largest singular value.
        condition: whether to estimate condition and effective rank: most of the time for large matrices.
        select: a pattern of names, as of ``ParamTable.select``.

    Returns:
        A :class:`Spectrum`. A matrix that cannot be read (on the meta device, sparse, quantized, nested, of
        integers, a DTensor) costs its row: ``left_out`` has the reason. One with a value that is not finite
        has a row of NaN.

    Raises:
        TypeError: for what is no source, or a k that is no whole number.
        ValueError: for a k below 1 or a tolerance outside (0, 1); where ``select`` matches nothing.
    """
    require_memory("spectrum")
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"spectrum: k is {a_kind(k)}; expected a whole number")
    if k < 1:
        raise ValueError(f"spectrum: k must be positive, got {k}")
    if not 0 < tolerance < 1:
        raise ValueError(f"spectrum: tolerance must lie between 0 and 1, got {tolerance}")
    work = _Work(k, float(tolerance), condition)
    with krylov.in_full_precision():
        for name, tensor, key, done in _entries(source, select, work.left_out):
            work.take(name, tensor, key, done)
        work.finish()
    return work.result()


@dataclass
class _Entry:
    """A matrix that waits for others of its shape."""

    row: int
    name: str
    tensor: Tensor
    done: Callable[[], None]


class _Work:
    def __init__(self, k: int, tolerance: float, condition: bool) -> None:
        self.k, self.tolerance, self.condition = k, tolerance, condition
        self.rows: dict[int, SpectrumRow] = {}
        self.left_out: dict[str, str] = {}
        self.waiting: dict[Any, list[_Entry]] = {}
        self.first: dict[Any, int] = {}
        self.again: list[tuple[int, str, int]] = []
        self.count = 0

    def take(self, name: str, tensor: Tensor, key: Any, done: Callable[[], None]) -> None:
        row = self.count
        self.count += 1
        reason = refusal(tensor)
        if reason is not None:
            self.left_out[name] = reason
            return
        if key is not None and key in self.first:
            self.again.append((row, name, self.first[key]))
            return
        if key is not None:
            self.first[key] = row
        kind = (tensor.shape, tensor.dtype, tensor.device)
        group = self.waiting.setdefault(kind, [])
        group.append(_Entry(row, name, tensor, done))
        if len(group) * tensor.numel() * tensor.element_size() >= _BATCH:
            self._calculate(self.waiting.pop(kind))

    def finish(self) -> None:
        for group in self.waiting.values():
            self._calculate(group)
        self.waiting.clear()

    def _calculate(self, group: list[_Entry]) -> None:
        table = ParamTable([entry.name for entry in group], [entry.tensor for entry in group])
        stats, read = read_of(table, measure_strictly)
        self.left_out |= read.left_out
        entries = [group[row] for row in read.rows]
        nonfinite = (stats.nans + stats.posinfs + stats.neginfs).tolist()
        l2, largest = stats.l2.tolist(), stats.max_abs.tolist()
        good = [i for i, bad in enumerate(nonfinite) if not bad]
        for i, entry in enumerate(entries):
            if nonfinite[i]:
                self.rows[entry.row] = _row(entry, (math.nan,), nonfinite=nonfinite[i])
        if good:
            made = [matrix_of(entries[i].tensor, largest[i]) for i in good]
            batch, scales = _batch([matrix for matrix, _ in made]), [scale for _, scale in made]
            del made
            norms = [l2[i] for i in good]
            for i, row in zip(
                good, self._of_batch(batch, scales, norms, [entries[i] for i in good]), strict=True
            ):
                self.rows[entries[i].row] = row
        for entry in group:
            entry.done()

    def _of_batch(
        self, batch: Tensor, scales: list[float], norms: list[float], entries: list[_Entry]
    ) -> Iterator[SpectrumRow]:
        least = min(batch.shape[1:])
        floor = max(batch.shape[1:]) * torch.finfo(batch.dtype).eps
        if least <= EXACT:
            every = torch.linalg.svdvals(batch).cpu().double()
            fourth = every.pow(4).sum(1).tolist()
            found, residuals = every[:, : self.k].tolist(), [0.0] * len(entries)
            smallest = every[:, -1].tolist()
        else:
            fourth, smallest = [math.nan] * len(entries), [math.nan] * len(entries)
            tall = max(batch.shape[1:]) >= _TALL * least
            if self.condition or tall:
                factors = [krylov.triangular(matrix) for matrix in batch]
                if self.condition:
                    fourth = [krylov.fourth_moment(factor) for factor in factors]
                    smallest = [krylov.smallest(factor) for factor in factors]
                if tall:
                    batch = _batch(factors)
                del factors
            leading = krylov.leading(batch, self.k, self.tolerance)
            found, residuals = leading.values.tolist(), leading.residuals.amax(1).tolist()
        for i, entry in enumerate(entries):
            values = tuple(value * scales[i] for value in found[i])
            sigma, low = found[i][0], smallest[i]
            figures: dict[str, Any] = {
                "l2": norms[i],
                "stable_rank": (norms[i] / values[0]) ** 2 if values[0] > 0 else 0.0,
                "error": residuals[i] * scales[i],
            }
            if self.condition:
                square = (norms[i] / scales[i]) ** 2
                figures |= {
                    "effective_rank": square * square / fourth[i] if fourth[i] > 0 else 0.0,
                    "condition": sigma / low if low > floor * sigma else math.inf,
                }
            yield _row(entry, values, exact=least <= EXACT, **figures)

    def result(self) -> Spectrum:
        for row, name, first in self.again:
            if first in self.rows:
                source = self.rows[first]
                self.rows[first] = replace(source, shared_with=source.name)
                self.rows[row] = replace(source, name=name, shared_with=source.name)
            else:  # what was refused under its first name
                self.left_out[name] = "it shares the memory of one that was left out"
        return Spectrum([self.rows[row] for row in sorted(self.rows)], self.left_out, self.k)


def _row(
    entry: _Entry, values: tuple[float, ...], *, exact: bool = False, nonfinite: int = 0, **figures: float
) -> SpectrumRow:
    """Figures that are left out are NaN."""
    unknown = dict.fromkeys(("l2", "stable_rank", "effective_rank", "condition", "error"), math.nan)
    return SpectrumRow(
        name=entry.name,
        shape=tuple(entry.tensor.shape),
        matrix=sides(entry.tensor),
        dtype=entry.tensor.dtype,
        singular_values=values,
        exact=exact,
        nonfinite=nonfinite,
        shared_with=None,
        **unknown | figures,
    )


def _batch(matrices: list[Tensor]) -> Tensor:
    """A single large one is not copied."""
    return matrices[0].unsqueeze(0) if len(matrices) == 1 else torch.stack(matrices)


# --- what is a matrix ------------------------------------------------------------------------------------


def sides(tensor: Tensor) -> tuple[int, int]:
    """Rows and columns of a tensor as a matrix."""
    return tensor.shape[0], tensor.numel() // tensor.shape[0]


def is_matrix(tensor: Tensor) -> bool:
    """Whether it is one of at least 1 × 1, or cannot say so."""
    return is_lazy(tensor) or tensor.is_nested or (tensor.dim() >= 2 and tensor.numel() > 0)


def refusal(tensor: Tensor) -> str | None:
    """Why a tensor is no matrix of numbers, whatever its values are."""
    sharded = dtensor_type()
    if sharded is not None and isinstance(tensor, sharded):
        return "it is a DTensor, of which each rank has a part (take its full_tensor())"
    if is_lazy(tensor):
        return "its lazy module has not run"
    if tensor.is_nested:
        return "it is a nested tensor"
    if not tensor.is_quantized and not (tensor.is_floating_point() or tensor.is_complex()):
        return f"it is of {dtype_name(tensor.dtype)}, and a spectrum is of real or complex numbers"
    return None


def matrix_of(tensor: Tensor, largest: float) -> tuple[Tensor, float]:
    """As ``[first, the rest]`` in the dtype it is calculated in, its values near one where they were far off.

    ``largest`` is its largest magnitude. Also gives what the matrix has to be multiplied by.
    """
    matrix = tensor.detach().resolve_conj().resolve_neg().reshape(tensor.shape[0], -1)
    if matrix.dtype == torch.complex32:
        matrix = matrix.to(torch.complex64)
    elif matrix.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        matrix = matrix.float()
    scale = _scale(largest)
    # In two steps: 1 / scale may be no number of its own.
    return (matrix if scale == 1 else matrix * (scale**-0.5) * (scale**-0.5)), scale


def _scale(largest: float) -> float:
    """A power of four near the largest magnitude where that is far from one, else 1."""
    if largest == 0 or 2.0**-20 < largest < 2.0**20:
        return 1.0
    return 4.0 ** ((math.frexp(largest)[1] - 1) // 2)


# --- what a source has -----------------------------------------------------------------------------------


def _entries(
    source: Any, select: Any, left_out: dict[str, str]
) -> Iterator[tuple[str, Tensor, Any, Callable[[], None]]]:
    """Name, tensor, what tells its memory from others', and what is to be called when it is done with.

    What cannot be read from a file is added to ``left_out``.
    """
    if path.accepts(source):
        source = path.open(source)
    if not isinstance(source, Checkpoint):
        source = table_of(source)
    if select is not None:
        try:
            source = picked(source, select) or selected(table_of(source), select)
        except ValueError as error:
            raise ValueError(f"spectrum: {error}") from None
    if isinstance(source, Checkpoint):
        yield from _of_file(source, left_out)
        return
    for name, tensor in table_of(source):
        if is_matrix(tensor):
            plain = not is_lazy(tensor) and tensor.layout == torch.strided and not tensor.is_nested
            key = None
            if plain and not tensor.is_meta and type(tensor) in (Tensor, torch.nn.Parameter):
                key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
            yield name, tensor, key, _nothing


def _of_file(
    source: Checkpoint, left_out: dict[str, str]
) -> Iterator[tuple[str, Tensor, Any, Callable[[], None]]]:
    spare = bool(source.spare_files())
    for name in source:
        info = source.tensor_info(name)
        if len(info.shape) >= 2 and math.prod(info.shape) > 0:
            where = source.byte_range(name)
            key = None if where is None else (where, info.shape, info.dtype)
            done = functools.partial(source.release, name) if spare else _nothing
            try:
                tensor = source[name]
            except Untold as error:
                left_out[name] = str(error)
                continue
            yield name, tensor, key, done


def _nothing() -> None:
    pass
