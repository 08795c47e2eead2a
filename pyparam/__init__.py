"""pyparam: the native parameter engine for PyTorch."""

from pyparam._measure import measure
from pyparam._norm import clip_grad_norm_, total_norm
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._stats import Stats
from pyparam._table import ParamTable

__all__ = ["Checkpoint", "ParamTable", "Stats", "clip_grad_norm_", "measure", "open", "total_norm"]
