"""pyparam: the native parameter engine for PyTorch."""

from pyparam._inspect import Inspector, inspect
from pyparam._measure import measure
from pyparam._norm import clip_grad_norm_, total_norm
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._stats import Stats
from pyparam._table import ParamTable
from pyparam._view.text import show

__all__ = [
    "Checkpoint",
    "Inspector",
    "ParamTable",
    "Stats",
    "clip_grad_norm_",
    "inspect",
    "measure",
    "open",
    "show",
    "total_norm",
]
