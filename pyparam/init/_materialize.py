"""A meta model becomes real: parameters and buffers, all or none, ties kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyparam._base.modes import lasting
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam.init._defaults import default_buffer
from pyparam.init._fill import ordinary
from pyparam.init._owners import Owners
from pyparam.init._parts import fresh_part, is_part
from pyparam.init._rules import Rules, Subject, assign, pairs_of

Sampler = Callable[..., Any]
Place = tuple[dict[str, Any], str]


class Materialized:
    """The table to fill:

    of the model itself, or of the fresh tensors that take the meta ones' places afterwards.
    """

    def __init__(self, table: ParamTable) -> None:
        self.table = table
        self.rebuilt: list[str] = []
        self.parameters: list[tuple[nn.Parameter, nn.Parameter, list[Place]]] = []
        self.buffers: list[tuple[Tensor, str, Sampler, list[Place]]] = []

    def fill_buffers(self, run: Callable[[Sampler, Tensor, str], Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Fills the fresh buffers, aside like every custom sampler."""
        return [(fresh, run(sampler, fresh, name)) for fresh, name, sampler, _ in self.buffers]

    def install(self) -> None:
        """Puts everything in its places. Nothing here can fail for the user's reasons."""
        for old, new, places in self.parameters:
            _take_place(old, new, places)
        for fresh, name, _, places in self.buffers:
            for owner, key in places:
                owner[key] = fresh
            self.rebuilt.append(name)


@contextlib.contextmanager
def materialized(
    model: Any,
    table: ParamTable,
    subject: Subject,
    job: Any,
    device: torch.device | str | None,
    buffers: Rules | None,
) -> Iterator[Materialized]:
    """Yields the table to fill; on leaving without an error, the model has what was filled."""
    made = Materialized(table)
    on_meta = job.on_meta()
    meta_buffers = [] if device is None else _meta_buffers(model)
    if device is None:
        writes = [subject.names[i] for i in on_meta if not job.kept(i)]
        if writes:
            raise ValueError(
                f"initialize_: parameter {writes[0]!r} is on the meta device and has no memory; "
                "say device= to materialise"
            )
    if device is None or not (on_meta or meta_buffers):
        yield made
        return
    target = torch.device(device)
    if target.type == "meta":
        raise ValueError("initialize_: device must be one with memory, got 'meta'")
    keeping = [subject.names[i] for i in on_meta if job.kept(i)]
    if keeping:
        raise ValueError(
            f"initialize_: parameter {keeping[0]!r} is on the meta device: there is nothing to keep"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"initialize_: only a module can be materialised, got {type(model).__name__}")
    samplers = _buffer_samplers(meta_buffers, buffers, subject.owners)
    places = _places(model)
    tensors = list(subject.tensors)
    for i in on_meta:
        old: Any = tensors[i]
        what = f"initialize_: parameter {subject.names[i]!r}"
        if is_part(old):
            fresh = fresh_part(old, target, what)
        else:
            ordinary(old, what)
            fresh = _fresh_parameter(old, target)
        tensors[i] = fresh
        made.parameters.append((old, fresh, places.get(id(old), [])))
    for (tensor, name, where), sampler in zip(meta_buffers, samplers, strict=True):
        with lasting():
            made.buffers.append((torch.empty_like(tensor, device=target), name, sampler, where))
    made.table = ParamTable(subject.names, tensors)
    yield made
    names = made.table.names
    # What was on the meta device and what takes its place are not to be kept.
    subject.tensors = tensors = []
    subject.table = made.table = ParamTable([], [])
    made.install()
    made.table = table_of(model)
    if made.table.names != names:
        raise RuntimeError(
            "pyparam internal error, please report: materialising changed the parameters' names"
        )


def _fresh_parameter(old: Any, device: torch.device) -> Any:
    """Memory of the same shape, strides, dtype and class, with the attributes people hang on parameters."""
    with lasting():
        data = torch.empty_like(old.detach(), device=device)
        fresh = torch.Tensor._make_subclass(type(old), data, old.requires_grad)
    fresh.__dict__.update(old.__dict__)
    return fresh


def _take_place(old: Any, fresh: Any, places: list[Place]) -> None:
    swap: Any = torch.utils.swap_tensors
    try:
        swap(old, fresh)
    except RuntimeError:
        for owner, key in places:
            owner[key] = fresh


def _places(model: Any) -> dict[int, list[Place]]:
    """Every dictionary entry that holds a parameter, by the parameter's id."""
    places: dict[int, list[Place]] = {}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module._parameters, key))
    return places


def _meta_buffers(model: Any) -> list[tuple[Tensor, str, list[Place]]]:
    """Each meta buffer once, with its first name and every place that holds it."""
    if not isinstance(model, nn.Module):
        return []
    found: dict[int, tuple[Tensor, str, list[Place]]] = {}
    for prefix, module in model.named_modules():
        for key, buffer in module._buffers.items():
            if buffer is None or not buffer.is_meta:
                continue
            name = f"{prefix}.{key}" if prefix else key
            entry = found.setdefault(id(buffer), (buffer, name, []))
            entry[2].append((module._buffers, key))
    return list(found.values())


def _buffer_samplers(
    meta_buffers: list[tuple[Tensor, str, list[Place]]], rules: Rules | None, owners: Owners
) -> list[Sampler]:
    names = [name for _, name, _ in meta_buffers]
    pairs = [] if rules is None else pairs_of(rules)
    picks = assign(pairs, Subject(ParamTable(names, [tensor for tensor, _, _ in meta_buffers]), owners))
    samplers: list[Sampler] = []
    lost = []
    for name, pick in zip(names, picks, strict=True):
        owner = owners.of(name)
        sampler = (
            pairs[pick][1]
            if pick >= 0
            else None
            if owner is None
            else default_buffer(owner, name.rpartition(".")[2])
        )
        if sampler is None:
            lost.append(name)
        else:
            samplers.append(sampler)
    if lost:
        listed = ", ".join(map(repr, lost[:20])) + (f" and {len(lost) - 20} more" if len(lost) > 20 else "")
        raise ValueError(
            f"initialize_: nothing says what the meta buffers {listed} hold; "
            "give buffers={pattern: sampler} for them"
        )
    return samplers
