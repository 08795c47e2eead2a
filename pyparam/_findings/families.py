"""Families: parameters that play one role in alike blocks of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

NUMBERS = re.compile(r"\d+")
BARE = re.compile(r"[\d.]*")
INDICES = re.compile(r"(?<![^.])\d+(?![^.])")
# The matrix or the kernel of a layer.
WEIGHT = re.compile(r"(weight|kernel|proj|original\d?|matrix|(^|\.)w\d*)[^.]*$", re.I)
# Rows that are looked up by an index, of which some may never be.
TABLE = re.compile(r"embed|wte|wpe|token|vocab|lm_head|position|(^|\.)shared\.", re.I)
# What is computed and not trained, though a file may list it among the weights.
COMPUTED = re.compile(r"stft|dft|fourier|filter_?bank|window|basis|mask|(^|[._])mel([._]|$)", re.I)
SHIFT = re.compile(r"(bias|beta|shift|offset)[^.]*$", re.I)
NORM = re.compile(r"(^|[._])(\w*norm\w*|ln\w*|bn\d*)\.(weight|gamma|scale|g)$", re.I)


class Family(NamedTuple):
    """Rows of one name but for its numbers, and of one shape."""

    key: str
    """The name with ``#`` for every number: ``layers.#.fc#.weight``."""
    rows: Sequence[int]


def family_key(name: str) -> str:
    """``layers.3.fc1.weight`` and ``layers.4.fc2.weight`` are one family.

    A bare number, as an iterable of tensors has for names, says nothing of what a tensor is for.
    """
    return name if BARE.fullmatch(name) else NUMBERS.sub("#", name)


def role_key(name: str) -> str:
    """Only indices go: ``layers.3.fc1.weight`` and ``layers.4.fc1.weight`` have one role."""
    return name if BARE.fullmatch(name) else INDICES.sub("#", name)
