"""pyparam: the native parameter engine for PyTorch."""

from pyparam._table import ParamTable

__all__ = ["ParamTable"]
