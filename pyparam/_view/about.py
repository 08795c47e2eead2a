"""What is told of a checkpoint beside its tree: its parts, its file, and what else it says."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from pyparam._base.native import _C
from pyparam._base.words import dtype_name, plain, plural, size
from pyparam._inspect.nodes import Node, TreeNode
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


def about(node: Node, outline: _C.Outline) -> About:
    """What is told of what an Inspector looks at, whose entries are those of an outline."""
    if not isinstance(node, TreeNode) or node.index or node.slice_label:
        return About([], [])
    source = node.tree.checkpoint
    names = node.tree.table.names
    extras = {} if source is None else source.extras
    found = sections_of(names, saved=True, extras=None if source is None else extras)
    shares = []
    listed = partitioned(extras)
    if listed or len(found) > 1 or any(s.kind != "model" or buffer_rows(names, s, extras) for s in found):
        shares = [_share(outline, names, section, extras) for section in found]
    facts: list[tuple[str, str]] = []
    if source is not None:
        held = sum(outline.holding(0, buffers).bytes for buffers in (False, True))
        facts = [*_file(source, held), *_faults(source), *_dtypes(outline, node.tree.table)]
        facts += facts_of(source.extras, source.metadata)
        facts += beside(source.path, source.files)
    facts += _quantized(node.tree.table, source)
    elsewhere = _elsewhere(shares, listed)
    if len(shares) == 1 and shares[0].kind == "model" and not elsewhere:
        return About([], facts, shares[0])
    return About(shares, facts, None, elsewhere)


def _elsewhere(shares: list[Share], listed: tuple[int, int] | None) -> str:
    if listed is None or any(share.kind == "model" and share.values >= listed[1] for share in shares):
        return ""
    return f"all ranks' files: {plural(listed[1], 'value')} in {plural(listed[0], 'parameter')} of the model"


def _share(outline: _C.Outline, names: Sequence[str], section: Section, extras: Mapping[str, Any]) -> Share:
    is_model = section.kind in ("model", "average")
    buffers = buffer_rows(names, section, extras) if is_model else []
    parameters = set(section.rows).difference(buffers)
    tensors, values, nbytes = _held(outline, {names[row] for row in parameters})
    more, more_values, more_bytes = _held(outline, {names[row] for row in buffers})
    return Share(section.kind, section.prefix, tensors, values, nbytes + more_bytes, more, more_values)


def _held(outline: _C.Outline, names: Collection[str]) -> tuple[int, int, int]:
    """Tensors, values and bytes of the entries of these names."""
    entries = range(outline.entry_count()) if names else ()
    kept = [outline.entry_name(entry) in names for entry in entries]
    if not any(kept):
        return 0, 0, 0
    restricted = outline.restricted(kept, 0)
    both = [restricted.holding(0, buffers) for buffers in (False, True)]
    return sum(h.tensors for h in both), sum(h.unique for h in both), sum(h.bytes for h in both)


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


def _dtypes(outline: _C.Outline, table: ParamTable) -> Iterator[tuple[str, str]]:
    """How many values are of each dtype, and in how many entries; the most first, where there are several."""
    kinds = _C.layout_kinds(table._native)
    dtype_of = [table._tensor(row).dtype for row in kinds.first]
    if len(set(dtype_of)) < 2:
        return
    names: dict[torch.dtype, set[str]] = {}
    for name, kind in zip(table.names, kinds.kind_of.tolist(), strict=True):
        names.setdefault(dtype_of[kind], set()).add(name)
    values = {dtype: _held(outline, own)[1] for dtype, own in names.items()}
    ordered = sorted(values, key=lambda dtype: -values[dtype])
    told = [f"{values[dtype]:,} {dtype_name(dtype)} in {len(names[dtype]):,}" for dtype in ordered]
    yield "dtypes", ", ".join(told)


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
