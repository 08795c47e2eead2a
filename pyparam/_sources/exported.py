"""torch.export.ExportedProgram. Its ``named_parameters`` keeps every name of a tied parameter, and so does
this.
"""

from __future__ import annotations

import sys
from typing import Any

from pyparam._sources.table import ParamTable


def accepts(source: object) -> bool:
    # Who holds an exported program has imported the module; nobody else pays for importing it.
    export = sys.modules.get("torch.export")
    return export is not None and isinstance(source, export.ExportedProgram)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    pairs = list(source.named_parameters())
    if buffers:
        pairs += source.named_buffers()
    return ParamTable([name for name, _ in pairs], [tensor for _, tensor in pairs])
