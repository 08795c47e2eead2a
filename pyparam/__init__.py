"""pyparam: the native parameter engine for PyTorch."""

from pyparam._inspect import Inspector, inspect
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._table import ParamTable
from pyparam._view.text import show

__all__ = ["Checkpoint", "Inspector", "ParamTable", "inspect", "open", "show"]
