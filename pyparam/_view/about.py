"""What is told of a checkpoint beside its tree: its parts, its file, and what else it says."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from pyparam._base.words import dtype_name, plain, plural, size
from pyparam._findings.layouts import Layouts
from pyparam._inspect.nodes import Node, TreeNode
from pyparam._share.ties import tie_sets
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.contents import Section, buffer_rows, facts_of, partitioned, sections_of
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.folders import beside
from pyparam._sources.quantized import quantized
from pyparam._sources.table import ParamTable

# A file of which this much more than its tensors is not explained by headers and alignment.
_SPARE = 1 << 20
_TIMES = 1.2
_EACH = 512  # bytes that headers have of each tensor
_EACH_PIECE = 2048  # the same of a piece, which is an archive of its own

NOT_LISTED = "not listed"
"""The fact of a file that is larger than what it lists."""

_CALLED = {"model": "model", "average": "average", "optimizer": "optimizer state", "other": "other"}


class Share(NamedTuple):
    """What one part of a checkpoint holds; shared storage is counted once.

    ``tensors`` and ``values`` are without buffers, ``bytes`` with them.
    """

    kind: str
    prefix: str
    tensors: int
    values: int
    bytes: int
    buffers: int
    buffer_values: int

    def text(self) -> str:
        where = f" ({plain(self.prefix.removesuffix('.'))})" if self.prefix else ""
        return f"{_CALLED[self.kind]}{where}: {self.total()}"

    def total(self) -> str:
        noun = "parameter" if self.kind in ("model", "average") else "tensor"
        more = f" and {self.buffer_values:,} in {plural(self.buffers, 'buffer')}" if self.buffers else ""
        return f"{plural(self.values, 'value')} in {plural(self.tensors, noun)}{more}, {size(self.bytes)}"


class About(NamedTuple):
    """Parts, where there is more than a model, and facts as lines."""

    shares: list[Share]
    facts: list[tuple[str, str]]
    model: Share | None = None
    """All there is, where it is a model some of whose entries are known to be buffers."""

    elsewhere: str = ""
    """What the file says of a model of which it holds a part."""

    def headline(self) -> str:
        told = [share.text() for share in self.shares]
        return "; ".join([*told, self.elsewhere] if self.elsewhere else told)

    def lines(self) -> Iterator[str]:
        for name, text in self.facts:
            yield f"{name}: {plain(text)}"

    def to_dict(self) -> dict[str, Any]:
        return {"parts": [share._asdict() for share in self.shares], "facts": dict(self.facts)}


def about(node: Node) -> About:
    """What is told of what an Inspector looks at."""
    if not isinstance(node, TreeNode) or node.index or node.slice_label:
        return About([], [])
    return about_table(node.tree.table, node.tree.checkpoint)


def about_table(table: ParamTable, source: Checkpoint | None) -> About:
    """What is told of a table of what somebody saved, and of the checkpoint it is of."""
    names = table.names
    extras = {} if source is None else source.extras
    found = sections_of(names, saved=True, extras=None if source is None else extras)
    shares = []
    listed = partitioned(extras)
    if listed or len(found) > 1 or any(s.kind != "model" or buffer_rows(names, s, extras) for s in found):
        shares = [_share(table, section, extras) for section in found]
    facts: list[tuple[str, str]] = []
    if source is not None:
        facts = [*_file(source, tie_sets(table).total_bytes), *_faults(source), *_dtypes(table)]
        facts += facts_of(source.extras, source.metadata)
        facts += beside(source.path, source.files)
    facts += _quantized(table, source)
    elsewhere = _elsewhere(shares, listed)
    if len(shares) == 1 and shares[0].kind == "model" and not elsewhere:
        return About([], facts, shares[0])
    return About(shares, facts, None, elsewhere)


def _elsewhere(shares: list[Share], listed: tuple[int, int] | None) -> str:
    if listed is None or any(share.kind == "model" and share.values >= listed[1] for share in shares):
        return ""
    return f"all ranks' files: {plural(listed[1], 'value')} in {plural(listed[0], 'parameter')} of the model"


def _share(table: ParamTable, section: Section, extras: Mapping[str, Any]) -> Share:
    is_model = section.kind in ("model", "average")
    buffers = buffer_rows(table.names, section, extras) if is_model else []
    parameters = sorted(set(section.rows).difference(buffers)) if buffers else section.rows
    tensors, values, nbytes = _held(table, parameters)
    more, more_values, more_bytes = _held(table, buffers)
    return Share(section.kind, section.prefix, tensors, values, nbytes + more_bytes, more, more_values)


def _held(table: ParamTable, rows: Sequence[int]) -> tuple[int, int, int]:
    """Tensors, values and bytes of some rows, of which what they share counts once."""
    if not rows:
        return 0, 0, 0
    some = table if len(rows) == len(table) else table._take(rows)
    layouts, sets = Layouts(some), tie_sets(some)
    values = layouts.each(
        lambda kind: 0 if kind.sizes is None else math.prod(max(0, size) for size in kind.sizes)
    )
    whole = values * layouts.each(lambda kind: kind.dtype.itemsize)
    for row in layouts.odd:
        if some._tensor(row).layout != torch.strided:
            whole[row] = sets.bytes[row]
    again = sets.group != torch.arange(len(some), device="cpu")  # as far as an earlier one has its bytes
    fresh = torch.where(again, sets.bytes, whole)
    nothing = again & (fresh == 0)
    shared = (values * ((whole - fresh).double() / whole.clamp(min=1))).long()
    own = torch.where(nothing, 0, values - torch.where(again, shared, 0))
    return int((~nothing).sum()), int(own.sum()), int(fresh.sum())


def _quantized(table: ParamTable, source: Checkpoint | None) -> Iterator[tuple[str, str]]:
    found = quantized(table, source)
    for scheme in dict.fromkeys(one.scheme for one in found.logical):
        alike = [one for one in found.logical if one.scheme == scheme]
        values, stored = sum(one.numel for one in alike), sum(one.nbytes for one in alike)
        yield (
            scheme,
            f"{plural(values, 'value')} in {plural(len(alike), 'parameter')}, "
            f"{8 * stored / max(values, 1):.3g} bits a value; "
            f"{alike[0].name} stands for {list(alike[0].shape)}",
        )
    if found.raw:
        yield "raw", f"{plural(len(found.raw), 'tensor')} of no known scheme: {', '.join(found.raw[:3])}"


def _faults(source: Checkpoint) -> Iterator[tuple[str, str]]:
    """What of it cannot be read, as far as that is known without reading."""
    faults = source.faults()
    if faults:
        first = next(iter(faults.values())).removeprefix(f"{source.path}: ")
        more = ", and so on" if len(faults) > 1 else ""
        yield "not complete", f"{plural(len(faults), 'tensor')} cannot be read: {first}{more}"


def _dtypes(table: ParamTable) -> Iterator[tuple[str, str]]:
    """How many values are of each dtype, and in how many entries; the most first, where there are several."""
    layouts = Layouts(table)
    dtypes = list(dict.fromkeys(kind.dtype for kind in layouts.kinds))
    if len(dtypes) < 2:
        return
    of = layouts.each(lambda kind: dtypes.index(kind.dtype))
    rows = {dtype: (of == i).nonzero().flatten().tolist() for i, dtype in enumerate(dtypes)}
    values = {dtype: _held(table, own)[1] for dtype, own in rows.items()}
    ordered = sorted(values, key=lambda dtype: -values[dtype])
    yield "dtypes", ", ".join(f"{values[d]:,} {dtype_name(d)} in {len(rows[d]):,}" for d in ordered)


def _file(source: Checkpoint, held: int) -> Iterator[tuple[str, str]]:
    files = dict.fromkeys(source.files)
    try:
        here = [file for file in files if os.path.isfile(file)]
        total = sum(os.stat(file).st_size for file in here)
    except OSError:
        return
    missing = f" and {len(files) - len(here):,} missing" if len(here) < len(files) else ""
    yield "file", f"{source.format or 'no file'}, {plural(len(here), 'file')}{missing}, {size(total)}"
    headers = _EACH * len(source)
    if isinstance(source, DistributedCheckpoint):
        headers = _EACH_PIECE * sum(len(source.pieces(name)) for name in source)
    if total > _TIMES * held + _SPARE + headers:
        yield (
            NOT_LISTED,
            f"{size(total - held)} of the {size(total)} are none of the tensors listed: storage saved whole "
            "beside its views, or what is no tensor",
        )
