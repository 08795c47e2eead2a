"""Tensors stored in pieces: which box of the whole lies where."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, TypeGuard

import torch

_MOST_COMPARISONS = 10_000_000


class Piece(NamedTuple):
    """A box of a tensor, and where it is stored.

    The box is ``[offsets, offsets + sizes)``, in elements of the whole tensor, a number a dimension.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    begin: int
    """Where it begins in the file, in bytes."""
    length: int
    """How many bytes it takes there."""
    saved: bool
    """Whether ``torch.save`` wrote these bytes; else they are the piece's elements, end to end."""


class Whole(NamedTuple):
    """A tensor as ``.metadata`` tells of it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def check_inside(path: Path, name: str, file: str) -> None:
    """Raises ValueError for a file's name that leads out of the directory."""
    posix, windows = PurePosixPath(file), PureWindowsPath(file)
    outside = (
        posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts or ".." in windows.parts
    )
    if outside or not file or "\0" in file:
        raise ValueError(f"{path}: entry {name!r} is stored in {file!r}, which is outside the directory")


def check_cover(path: Path, name: str, shape: tuple[int, ...], pieces: list[Piece]) -> None:
    """Raises ValueError unless the boxes lie inside ``shape``, meet nowhere, and leave nothing out."""
    total = 0
    for piece in pieces:
        offsets, sizes = piece.offsets, piece.sizes
        if (
            len(offsets) != len(shape)
            or len(sizes) != len(shape)
            or any(o + s > n for o, s, n in zip(offsets, sizes, shape, strict=True))
        ):
            raise ValueError(
                f"{path}: entry {name!r} of shape {list(shape)} has a piece at {list(offsets)} of sizes "
                f"{list(sizes)}, which is outside it"
            )
        total += math.prod(sizes)
    if total < math.prod(shape):
        raise ValueError(
            f"{path}: entry {name!r} is not complete: its pieces have {total} of {math.prod(shape)} elements"
        )
    full = sorted((piece for piece in pieces if 0 not in piece.sizes), key=lambda piece: piece.offsets)
    active: list[Piece] = []
    left = _MOST_COMPARISONS
    for piece in full:
        if shape:  # those that end before this one begins meet none of the later ones either
            active = [other for other in active if other.offsets[0] + other.sizes[0] > piece.offsets[0]]
        left -= len(active)
        if left < 0:
            raise ValueError(f"{path}: entry {name!r} has too many pieces to tell whether they overlap")
        for other in active:
            if all(
                o < p + q and p < o + s
                for o, s, p, q in zip(piece.offsets, piece.sizes, other.offsets, other.sizes, strict=True)
            ):
                raise ValueError(
                    f"{path}: entry {name!r} has pieces that overlap, at {list(other.offsets)} and "
                    f"{list(piece.offsets)}"
                )
        active.append(piece)


def is_shape(value: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, (tuple, list)) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
