"""Tensors that are saved in pieces go into a model piece by piece: no whole one is put together in memory."""

from __future__ import annotations

from torch import Tensor, nn

from pyparam._base.native import _C
from pyparam._load.checks import keeps_values
from pyparam._load.stream import stream
from pyparam._load.values import shaped, table_alone
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.pieces import Piece


def boxes_paired(model: nn.Module, source: DistributedCheckpoint, cast: bool) -> bool:
    """Fills a model whose names, shapes and dtypes are the checkpoint's, and that runs no code of its own.

    False, with nothing written, for any other. Raises ValueError, with nothing written, for a damaged piece.
    """
    if source.closed or table_alone(source) is None:
        return False
    stand_ins = {name: shaped(source, name) for name in source}
    matched = _C.match_state_dict(model, stand_ins)
    if matched is None or matched[0] or matched[1]:
        return False
    if not cast and not all(keeps_values(of, to) for _, of, to in matched[4]):
        return False
    if _C.share_memory(matched[2], []):
        return False
    names = {id(value): name for name, value in stand_ins.items()}
    targets: list[Tensor] = []
    sources: list[Tensor] = []
    others: list[tuple[str, Piece, Tensor]] = []
    for target, taken in zip(matched[2], matched[3], strict=True):
        name = names[id(taken)]
        for piece, values in source.boxes(name):
            box = target.detach()
            for axis, (first, size) in enumerate(zip(piece.offsets, piece.sizes, strict=True)):
                box = box.narrow(axis, first, size)
            # A box of columns is read band by band: nothing tells that its elements have places of their own.
            if values is None or not box.is_contiguous():
                others.append((name, piece, box))
            else:
                targets.append(box)
                sources.append(values)
    stream(targets, sources, source.mapped_files())
    for name, piece, box in others:
        source.fill(name, piece, box)
    return True
