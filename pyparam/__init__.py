"""pyparam: the native parameter engine for PyTorch."""

from pyparam import init
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
from pyparam._findings import Finding
from pyparam._fingerprint import Fingerprint, fingerprint
from pyparam._flatten import (
    flatten,
    flatten_groups,
    parameters_to_vector,
    scatter_,
    unflatten,
    vector_to_parameters,
)
from pyparam._inspect import Inspector, inspect
from pyparam._install import install, installed, uninstall
from pyparam._measure import measure
from pyparam._monitor import Monitor
from pyparam._norm import clip_grad_norm_, total_norm
from pyparam._pack import Packed, pack_
from pyparam._records import NonFinite, NonFiniteError, Record
from pyparam._report import Report, report
from pyparam._save import load_file_, save_file
from pyparam._share import ties
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._stats import Stats
from pyparam._table import ParamTable
from pyparam._tie import keep_ties, retie_, tie_, untie_
from pyparam._tied import Tie
from pyparam._view.log import log
from pyparam._view.plot import plot
from pyparam._view.text import show

__all__ = [
    "Checkpoint",
    "Comparison",
    "Finding",
    "Fingerprint",
    "Inspector",
    "Monitor",
    "NonFinite",
    "NonFiniteError",
    "Packed",
    "ParamTable",
    "Record",
    "Report",
    "Stats",
    "Tie",
    "buffers",
    "clip_grad_norm_",
    "compare",
    "fingerprint",
    "flatten",
    "flatten_groups",
    "get_buffer",
    "get_parameter",
    "get_submodule",
    "init",
    "inspect",
    "install",
    "installed",
    "keep_ties",
    "load_file_",
    "log",
    "measure",
    "modules",
    "named_buffers",
    "named_modules",
    "named_parameters",
    "open",
    "pack_",
    "parameters",
    "parameters_to_vector",
    "plot",
    "report",
    "retie_",
    "save_file",
    "scatter_",
    "show",
    "state_dict",
    "tie_",
    "ties",
    "total_norm",
    "unflatten",
    "uninstall",
    "untie_",
    "vector_to_parameters",
    "walk",
]
