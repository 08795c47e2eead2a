"""pyparam: the native parameter engine for PyTorch."""

from pyparam import init
from pyparam._access.access import (
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
from pyparam._access.grads import requires_grad_, zero_grad
from pyparam._access.index import Index, index
from pyparam._access.install import install, installed, uninstall
from pyparam._base.public import publish as _publish
from pyparam._compare.compare import compare
from pyparam._compare.comparison import Comparison
from pyparam._compare.fingerprint import Fingerprint, fingerprint
from pyparam._findings import Finding, findings
from pyparam._inspect.inspector import Inspector, inspect
from pyparam._load.average import EMA, copy_
from pyparam._load.load import load_, load_file_
from pyparam._measure.measure import measure
from pyparam._measure.norm import clip_grad_norm_, total_norm
from pyparam._measure.optimizer_state import optimizer_state
from pyparam._measure.spectra import Spectrum
from pyparam._measure.spectrum import spectrum
from pyparam._measure.stats import Stats
from pyparam._memory.flatten import (
    flatten,
    flatten_groups,
    parameters_to_vector,
    scatter_,
    unflatten,
    vector_to_parameters,
)
from pyparam._memory.pack import Packed, pack_
from pyparam._share.keep import keep_ties
from pyparam._share.save import save_file
from pyparam._share.tie import retie_, tie_, untie_
from pyparam._share.ties import ties
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import Tie
from pyparam._view.plot import plot
from pyparam._view.report import Report, report
from pyparam._view.text import show
from pyparam._watch.course import Departure, departures
from pyparam._watch.log import log
from pyparam._watch.monitor import Monitor
from pyparam._watch.records import NonFinite, NonFiniteError, Record
from pyparam._watch.rules import (
    DEFAULT_RULES,
    Alarm,
    GradientSpike,
    LearningRateJump,
    NoGradient,
    SecondMoment,
    Standstill,
    UpdateRatio,
    UpdateSpike,
)

__all__ = [
    "DEFAULT_RULES",
    "EMA",
    "Alarm",
    "Checkpoint",
    "Comparison",
    "Departure",
    "Finding",
    "Fingerprint",
    "GradientSpike",
    "Index",
    "Inspector",
    "LearningRateJump",
    "Monitor",
    "NoGradient",
    "NonFinite",
    "NonFiniteError",
    "Packed",
    "ParamTable",
    "Record",
    "Report",
    "SecondMoment",
    "Spectrum",
    "Standstill",
    "Stats",
    "Tie",
    "UpdateRatio",
    "UpdateSpike",
    "buffers",
    "clip_grad_norm_",
    "compare",
    "copy_",
    "departures",
    "findings",
    "fingerprint",
    "flatten",
    "flatten_groups",
    "get_buffer",
    "get_parameter",
    "get_submodule",
    "index",
    "init",
    "inspect",
    "install",
    "installed",
    "keep_ties",
    "load_",
    "load_file_",
    "log",
    "measure",
    "modules",
    "named_buffers",
    "named_modules",
    "named_parameters",
    "open",
    "optimizer_state",
    "pack_",
    "parameters",
    "parameters_to_vector",
    "plot",
    "report",
    "requires_grad_",
    "retie_",
    "save_file",
    "scatter_",
    "show",
    "spectrum",
    "state_dict",
    "tie_",
    "ties",
    "total_norm",
    "unflatten",
    "uninstall",
    "untie_",
    "vector_to_parameters",
    "walk",
    "zero_grad",
]

_publish("pyparam", (globals()[_name] for _name in __all__))
