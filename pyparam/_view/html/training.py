"""What a report tells of a training run: quantities of layers over steps, and what left its course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyparam._view.html.pack import Packer
from pyparam._view.over_steps import course
from pyparam._watch.course import departures
from pyparam._watch.records import Record

_LAYERS = 96
_TOLD = 200
UNKNOWN, ZERO, NOT_FINITE, LEVELS = 0, 1, 255, 253


def add_training(packer: Packer, names: Sequence[str], history: Sequence[Record]) -> dict[str, Any]:
    """Adds of each quantity its levels, [layers × steps]: 2 to 254 along the logarithm from "low" to "high"
    (powers of two), 0 where nothing is known, 1 for zero and 255 for what is not finite. Gives the header.

    ``names`` are those of the report's rows.
    """
    seen = course([record.step for record in history], list(history), _LAYERS)
    panels = []
    for i, (title, grid) in enumerate(seen.grids.items()):
        low, high, levels = levels_of(grid)
        packer.add(f"training_{i}", levels.flatten())
        panels.append({"title": title, "low": low, "high": high})
    position = {name: row for row, name in enumerate(names)}
    column = {step: t for t, step in enumerate(seen.steps)}
    told = []
    for departure in departures(history)[:_TOLD]:
        told.append(
            {
                "text": str(departure),
                "column": column[departure.step],
                "quantity": departure.quantity,
                "layers": sorted({seen.row_of[name] for name in departure.names if name in seen.row_of}),
                "rows": [position[name] for name in departure.names if name in position],
            }
        )
    return {
        "steps": seen.steps,
        "layers": [group.label for group in seen.groups],
        "panels": panels,
        "departures": told,
    }


def levels_of(grid: Tensor) -> tuple[float, float, Tensor]:
    """The powers of two of the least and the largest value, and each value's level, uint8 as ``grid``."""
    good = grid.isfinite() & (grid > 0)
    logs = torch.where(good, grid, 1.0).log2()
    low, high = (float(logs[good].min()), float(logs[good].max())) if bool(good.any()) else (0.0, 0.0)
    scale = (LEVELS - 1) / (high - low) if high > low else 0.0
    levels = 2 + ((logs - low) * scale).round()
    levels = torch.where(good, levels, float(UNKNOWN))
    levels = torch.where(grid == 0, float(ZERO), levels)
    levels = torch.where(grid.isinf(), float(NOT_FINITE), levels)
    return low, high, levels.to(torch.uint8)
