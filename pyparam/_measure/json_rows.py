"""Rows of statistics as JSON, made of columns: no row and no number becomes a Python object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii
from typing import Any

from torch import Tensor

from pyparam._base.native import _C
from pyparam._measure.rows import NUMBERS
from pyparam._measure.stats import Stats

_TOGETHER = 1000


def json_rows(stats: Stats, limit: int | None, between: str) -> Iterator[str]:
    """The first ``limit`` rows, each as ``json.dumps(row.to_dict())`` has it but for null where a number is
    NaN or infinite, with ``between`` between them; some rows at a time."""
    rows = len(stats) if limit is None else min(limit, len(stats))
    names, shared = stats.names, stats.shared_with
    layouts = list(zip(stats.shape, stats.dtype, stats.device, strict=True))
    told = {layout: _layout(*layout) for layout in dict.fromkeys(layouts[:rows])}
    figures: list[Tensor] = [getattr(stats, name) for name in NUMBERS]
    keys = ['{"name": ', ", ", *(f', "{name}": ' for name in NUMBERS)]
    quantiles = stats.quantiles.unbind(1)
    if quantiles:
        points = [f'"{point!r}": ' for point in stats._points]
        keys += [f', "quantiles": {{{points[0]}', *(f", {point}" for point in points[1:])]
    keys += [f'{"}" if quantiles else ""}, "shared_with": ', "}"]
    for begin in range(0, rows, _TOGETHER):
        end = min(begin + _TOGETHER, rows)
        text = _C.json_rows(
            keys,
            [
                list(map(encode_basestring_ascii, names[begin:end])),
                [told[layout] for layout in layouts[begin:end]],
                *(column[begin:end] for column in (*figures, *quantiles)),
                ["null" if first is None else encode_basestring_ascii(first) for first in shared[begin:end]],
            ],
            between,
        )
        yield text if begin == 0 else between + text


def _layout(shape: Any, dtype: Any, device: Any) -> str:
    """As ``Row.to_dict`` tells it, without its braces."""
    told = {
        "shape": None if shape is None else list(shape),
        "dtype": None if dtype is None else str(dtype),
        "device": None if device is None else str(device),
    }
    return json.dumps(told)[1:-1]
