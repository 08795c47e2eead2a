"""pyparam: the native parameter engine for PyTorch."""

from pyparam._fingerprint import Fingerprint, fingerprint
from pyparam._table import ParamTable

__all__ = ["Fingerprint", "ParamTable", "fingerprint"]
