"""What a report tells of roles: the parameters that stand at one place of each layer, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyparam._findings import Survey
from pyparam._measure.labels import roles_of
from pyparam._measure.spectra import Spectrum
from pyparam._view.html.pack import Packer
from pyparam._view.html.training import levels_of

_FEWEST = 3
"""Members, below which there is nothing to compare."""
_ROLES = 200
_MOST = 100_000
"""Tensors, beyond which a cell of a strip would stand for hundreds."""


def add_roles(packer: Packer, seen: Survey, spectrum: Spectrum | None) -> list[dict[str, Any]]:
    """Adds of each role the levels of its members, as in training.py, each figure on a scale of its role.

    Gives what the header says: its name, how many it has, and of each figure where it begins and its range.
    """
    members: dict[str, list[int]] = {}
    if len(seen) <= _MOST:
        names, buffer = seen.names, seen.is_buffer
        measured = [i for i, row in enumerate(seen.at.tolist()) if row >= 0 and not buffer[i]]
        for role, i in zip(roles_of([names[i] for i in measured]), measured, strict=True):
            members.setdefault(role, []).append(i)
    figures = _figures(seen, spectrum) if members else {}
    told: list[dict[str, Any]] = []
    order: list[int] = []
    parts, at = [torch.empty(0, dtype=torch.uint8, device="cpu")], 0
    for role, rows in members.items():
        if len(rows) < _FEWEST or len(told) == _ROLES:
            continue
        made = []
        for title, values in figures.items():
            own = values[rows]
            if bool(own.isnan().all()):
                continue
            low, high, levels = levels_of(own)
            made.append({"title": title, "low": low, "high": high, "at": at})
            parts.append(levels)
            at += len(levels)
        order += rows
        told.append({"role": role, "length": len(rows), "figures": made})
    packer.add("role_row", torch.tensor(order, dtype=torch.int64, device="cpu"))
    packer.add("role_level", torch.cat(parts))
    return told


def _figures(seen: Survey, spectrum: Spectrum | None) -> Mapping[str, Tensor]:
    """float64 [rows]: NaN where there is none, infinite where it is not finite."""
    stats, at = seen.stats, seen.at
    there = at.clamp(min=0)
    bad = (stats.nans + stats.posinfs + stats.neginfs)[there] > 0
    rms = torch.where(bad, math.inf, stats.rms[there])
    figures = {"RMS": torch.where(at < 0, math.nan, rms)}
    if spectrum is not None:
        position = {name: i for i, name in enumerate(seen.names)}
        for title, column in (
            ("largest singular value", spectrum.sigma_max),
            ("stable rank", spectrum.stable_rank),
        ):
            values = torch.full((len(seen),), math.nan, dtype=torch.float64, device="cpu")
            for name, value in zip(spectrum.names, column.tolist(), strict=True):
                if name in position:
                    values[position[name]] = value
            figures[title] = values
    return figures
