"""pyparam: the native parameter engine for PyTorch."""

from pyparam._inspect import Inspector, inspect
from pyparam._table import ParamTable
from pyparam._view.text import show

__all__ = ["Inspector", "ParamTable", "inspect", "show"]
