"""torch.export.ExportedProgram, whose ``named_parameters`` keeps every name of a tied parameter.

One that was exported strictly lists a tied parameter once, and has all its names in its state dict alone.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from pyparam._sources.table import ParamTable


def accepts(source: object) -> bool:
    # Who holds an exported program has imported the module; nobody else pays for importing it.
    export = sys.modules.get("torch.export")
    return export is not None and isinstance(source, export.ExportedProgram)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    pairs = list(source.named_parameters())
    listed = {id(tensor) for _, tensor in pairs}
    others = list(source.named_buffers())
    known = {name for name, _ in (*pairs, *others)}
    for name, tensor in source.state_dict.items():
        if name not in known and (id(tensor) in listed or isinstance(tensor, nn.Parameter)):
            pairs.append((name, tensor))
    if buffers:
        pairs += others
    return ParamTable([name for name, _ in pairs], [tensor for _, tensor in pairs])
