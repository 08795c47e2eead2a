"""How numbers, names and shapes are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch

from pyparam._base.native import _C

_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """Bytes with three digits: "640 B", "12.0 MiB"."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    if unit == "B":
        return f"{count} B"
    return (
        f"{value:.2f} {unit}"
        if value < 10
        else f"{value:.1f} {unit}"
        if value < 100
        else f"{value:.0f} {unit}"
    )


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32"."""
    return str(dtype).removeprefix("torch.")


def shape_text(shape: Sequence[int]) -> str:
    """ "3×4", or "scalar" of no dimensions."""
    return "×".join(map(str, shape)) or "scalar"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def a_name(name: str) -> str:
    """ "a Linear", "an int", "an LSTM", "a uint8"."""
    return f"{_C.article_of(name)} {name}"


def a_kind(value: object) -> str:
    """A value by its type, as a sentence has it: "a dict", "an int"."""
    return a_name(type(value).__name__)


def span(keys: Sequence[str]) -> str:
    """ "0 – 60" for numbered names in a row, else the names with commas, the middle left out where long."""
    if len(keys) == 1:
        return keys[0]
    first, last = _NUMBERED.fullmatch(keys[0]), _NUMBERED.fullmatch(keys[-1])
    if first and last and first[1] == last[1] and int(last[2]) - int(first[2]) == len(keys) - 1:
        return f"{keys[0]} – {keys[-1]}"
    return ", ".join(keys) if len(keys) <= 4 else f"{keys[0]}, {keys[1]}, … {keys[-1]}"


def plain(text: str) -> str:
    """A name as a line may hold it: control characters and lone surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def ranges(numbers: Iterable[int]) -> str:
    """ "0 to 3" for 0, 1, 2, 3; "0, 2" for 0 and 2; shortened where there are many."""
    ordered = sorted(numbers)
    if ordered == list(range(ordered[0], ordered[-1] + 1)) and len(ordered) > 1:
        return f"{ordered[0]} to {ordered[-1]}"
    shown = ", ".join(map(str, ordered[:8]))
    return shown if len(ordered) <= 8 else f"{shown}, … {ordered[-1]}"
