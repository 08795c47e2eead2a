"""pyparam: the native parameter engine for PyTorch."""

from pyparam._access import (
    buffers,
    get_buffer,
    get_parameter,
    get_submodule,
    modules,
    named_buffers,
    named_modules,
    named_parameters,
    parameters,
    state_dict,
    walk,
)
from pyparam._compare import Comparison, compare
from pyparam._fingerprint import Fingerprint, fingerprint
from pyparam._inspect import Inspector, inspect
from pyparam._install import install, installed, uninstall
from pyparam._measure import measure
from pyparam._norm import clip_grad_norm_, total_norm
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._stats import Stats
from pyparam._table import ParamTable
from pyparam._view.text import show

__all__ = [
    "Checkpoint",
    "Comparison",
    "Fingerprint",
    "Inspector",
    "ParamTable",
    "Stats",
    "buffers",
    "clip_grad_norm_",
    "compare",
    "fingerprint",
    "get_buffer",
    "get_parameter",
    "get_submodule",
    "inspect",
    "install",
    "installed",
    "measure",
    "modules",
    "named_buffers",
    "named_modules",
    "named_parameters",
    "open",
    "parameters",
    "show",
    "state_dict",
    "total_norm",
    "uninstall",
    "walk",
]
