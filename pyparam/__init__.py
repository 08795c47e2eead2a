"""pyparam: the native parameter engine for PyTorch."""

from pyparam._flatten import (
    flatten,
    flatten_groups,
    parameters_to_vector,
    scatter_,
    unflatten,
    vector_to_parameters,
)
from pyparam._pack import Packed, pack_
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._table import ParamTable

__all__ = [
    "Checkpoint",
    "Packed",
    "ParamTable",
    "flatten",
    "flatten_groups",
    "open",
    "pack_",
    "parameters_to_vector",
    "scatter_",
    "unflatten",
    "vector_to_parameters",
]
