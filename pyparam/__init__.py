"""pyparam: the native parameter engine for PyTorch."""

from pyparam._inspect import Inspector, inspect
from pyparam._save import load_file_, save_file
from pyparam._share import ties
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.path import open
from pyparam._table import ParamTable
from pyparam._tie import keep_ties, retie_, tie_, untie_
from pyparam._tied import Tie
from pyparam._view.text import show

__all__ = [
    "Checkpoint",
    "Inspector",
    "ParamTable",
    "Tie",
    "inspect",
    "keep_ties",
    "load_file_",
    "open",
    "retie_",
    "save_file",
    "show",
    "tie_",
    "ties",
    "untie_",
]
