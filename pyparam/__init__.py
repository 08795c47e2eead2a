"""pyparam: the native parameter engine for PyTorch."""

from pyparam._compare import Comparison, compare
from pyparam._fingerprint import Fingerprint, fingerprint
from pyparam._table import ParamTable

__all__ = ["Comparison", "Fingerprint", "ParamTable", "compare", "fingerprint"]
