"""pyparam: the native parameter engine for PyTorch."""

from pyparam._flatten import (
    flatten,
    flatten_groups,
    parameters_to_vector,
    scatter_,
    unflatten,
    vector_to_parameters,
)
from pyparam._table import ParamTable

__all__ = [
    "ParamTable",
    "flatten",
    "flatten_groups",
    "parameters_to_vector",
    "scatter_",
    "unflatten",
    "vector_to_parameters",
]
