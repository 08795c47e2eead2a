"""pyparam: the native parameter engine for PyTorch."""

from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._table import ParamTable

__all__ = ["Checkpoint", "ParamTable", "open"]
