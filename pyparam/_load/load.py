"""load_: any checkpoint into any model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.modes import lasting, require_memory
from pyparam._base.native import _C
from pyparam._base.rename import Rule
from pyparam._load.before import Before
from pyparam._load.boxes import boxes_paired
from pyparam._load.checks import (
    PLAIN,
    check_agreement,
    check_conversions,
    check_extents,
    check_fits,
    check_has_values,
    check_left_out,
    check_memory,
    check_names,
    check_readable,
    keeps_values,
)
from pyparam._load.code import OwnCode, own_code
from pyparam._load.rounding import Rounding
from pyparam._load.stream import stream, stream_pairs
from pyparam._load.values import (
    Given,
    add_beside,
    given_by,
    opened,
    read_wholes,
    state_of,
    table_alone,
    without_repeats,
)
from pyparam._parts.parts import has_parts
from pyparam._parts.place import dtensor_type
from pyparam._share.keep import keep_ties
from pyparam._share.parts import as_parts
from pyparam._share.shared_memory import overlaps_itself, write_over
from pyparam._share.tie import retie_
from pyparam._share.ties import ties
from pyparam._sources import table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.loading import loaded
from pyparam._sources.overrides import is_own, takes
from pyparam._sources.tied import Tie


class IncompatibleKeys(NamedTuple):
    """What ``load_(strict=False)`` could not pair up, as ``nn.Module.load_state_dict`` gives it."""

    missing_keys: list[str]
    """Names of the model that the source does not have."""
    unexpected_keys: list[str]
    """Names of the source that the model does not have."""


class _Options(NamedTuple):
    verb: str
    strict: bool
    assign: bool
    cast: bool
    device: str | torch.device | None

    @property
    def where(self) -> str:
        return "file" if self.verb == "load_file_" else "source"


def load_(
    model: nn.Module,
    source: Any,
    *,
    strict: bool = True,
    assign: bool = False,
    rename: Rule = None,
    part: str | None = None,
    cast: bool = False,
    device: str | torch.device | None = None,
) -> IncompatibleKeys:
    """Fills a model's parameters and buffers from any source of tensors.

    Names, shapes, dtypes and memory are checked before the first byte is written. The bytes of a file stream
    from its map into the parameters, converted on the way, and leave no copy in memory. Names that the file
    or the model ties to one that is given get that one's values, and stay or become tied. Hooks, a class's
    own ``_load_from_state_dict`` and the model's own ``load_state_dict`` are asked as PyTorch asks them, and
    what they hand on is checked where it is copied. Values that the model had are held until such code is
    done: PyTorch's own keeps to its module, and that one's alone are held; of anybody else's code nothing is
    known, and all are.

    Args:
        model: the module to fill.
        source: a path to a checkpoint, what ``open`` gives, a state dict, another model, or another source.
        strict: whether names that only one side has are an error.
        assign: makes the source's tensors the model's own, with their dtype and strides, where the default is
            to copy values into the model's tensors. Tensors of a file are read into memory.
        rename: a rule for the source's names, as ``compare`` takes it: a prefix to remove, a pair
            ``(pattern, replacement)``, a mapping of globs, a function, or a list of these.
        part: of a training checkpoint the part to load: a prefix of nested keys (``"model"``,
            ``"state.encoder"``), which its names then lack, or ``"model"`` or ``"average"`` whatever its
            keys are.
        cast: whether values may be rounded to the model's dtype. Without it, a dtype that does not hold every
            value of the source's is an error.
        device: where tensors on the meta device get their memory, and where assigned tensors go.

    Returns:
        ``(missing_keys, unexpected_keys)``; both empty where ``strict``.

    Raises:
        TypeError: ``model`` is no module, or ``source`` no source.
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read or has no such part, names are missing or unexpected (what would
            make more of them match is said), shapes differ, values would be lost, the source gives other
            values to two names that the model ties, or lies in the model's memory under another layout or
            name.

    Of a DTensor each rank takes its own part, without communication, and it stays placed as it was.

    The model is as it was where this raises.
    """
    return _filled(_Options("load_", strict, assign, cast, device), model, source, rename, part)


def load_file_(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    assign: bool = False,
    rename: Rule = None,
    part: str | None = None,
    cast: bool = False,
    device: str | torch.device | None = None,
) -> IncompatibleKeys:
    """:func:`load_` from a file: ties that :func:`save_file` wrote are tied again.

    Args:
        model: as of :func:`load_`.
        path: a file or a directory that :func:`open` reads.
        strict, assign, rename, part, cast, device: as of :func:`load_`.

    Returns:
        What :func:`load_` gives.

    Raises:
        FileNotFoundError: for a path that is not there.
        TypeError, ValueError: as :func:`load_`. Nothing is written.
    """
    return _filled(_Options("load_file_", strict, assign, cast, device), model, path, rename, part)


def _filled(
    options: _Options, model: nn.Module, source: Any, rename: Rule, part: str | None
) -> IncompatibleKeys:
    verb, strict, assign, cast, device = options
    require_memory(verb)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{verb}: expected an nn.Module, got {type(model).__name__}")
    try:
        options = options._replace(device=None if device is None else torch.device(device))
    except RuntimeError as error:
        raise ValueError(f"{verb}: no device {device!r}: {str(error).splitlines()[0]}") from None
    asked = is_own(model, "load_state_dict")
    source = opened(verb, source, part)
    if isinstance(source, Checkpoint):
        check_readable(verb, source)
    if not assign and rename is None and not asked:
        paired = boxes_paired if isinstance(source, DistributedCheckpoint) else _table_paired
        if paired(model, source, cast):
            return IncompatibleKeys([], [])
    in_pieces = source if isinstance(source, DistributedCheckpoint) else None
    sharded = in_pieces is not None and has_parts(table_of(model, buffers=True))
    given = given_by(verb, source, rename, sharded=sharded)
    if not assign and not given.ties and not asked and _paired(model, given, cast):
        return IncompatibleKeys([], [])
    values = given.values
    wanted = state_of(model, keep_vars=True)
    without_repeats(given, wanted)
    add_beside(given, wanted)
    check_left_out(verb, given.others, wanted, options.where)
    own = ties(model, buffers=True)
    if in_pieces is not None:
        tied = {name for tie in (*given.ties, *own) for name in tie.names}
        given = read_wholes(given, in_pieces, wanted, tied)
    check_agreement(verb, own, values, wanted, options.where)
    for tie in (*given.ties, *own):
        for group in tie.classes("storage"):
            value = next((values[name] for name in group if name in values), None)
            if value is not None:
                values.update({name: value for name in group if name not in values and name in wanted})
    matched = None if assign or asked else _C.match_state_dict(model, values)
    code = OwnCode() if matched is not None else own_code(model)
    if matched is None:
        _check(options, values, wanted, code)
    else:
        if strict:
            check_names(verb, *matched[:2], options.where, wanted, values)
        if not cast:
            check_conversions(verb, matched[4], options.where)
    if not given.from_file and not assign:
        check_memory(verb, values, wanted)
    present = [some for tie in given.ties if (some := _restrict(tie, wanted)) is not None]
    if matched is not None and not present:
        stream(matched[2], matched[3], given.files)
        return IncompatibleKeys(*matched[:2])
    before = Before(model)
    try:
        return _written(options, model, given, in_pieces, own, present, code, before)
    except BaseException as error:
        before.restore()
        if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error):
            raise ValueError(f"{verb}: {error}") from None
        if isinstance(error, (TypeError, ValueError)) and str(error).startswith("retie_: "):
            raise type(error)(f"{verb}: {str(error).removeprefix('retie_: ')}") from None
        raise


def _check(options: _Options, values: Mapping[str, Any], wanted: Mapping[str, Any], code: OwnCode) -> None:
    """All that must hold whatever the modules' code does: of names it reaches, that the memory is there."""
    verb, strict, assign, cast, device = options
    if strict:
        missing = [name for name in wanted if name not in values and not code.reaches(name)]
        unexpected = [name for name in values if name not in wanted and not code.reaches(name)]
        check_names(verb, missing, unexpected, options.where, wanted, values)
    place = None if device is None else torch.device(device)
    for name, target in wanted.items():
        if name not in values:
            continue
        if code.reaches(name):
            check_extents(verb, name, values[name], target)
        else:
            check_fits(
                verb, name, values[name], target, assign=assign, cast=cast, device=place, where=options.where
            )


def _table_paired(model: nn.Module, source: Any, cast: bool) -> bool:
    """Does for a checkpoint what ``_paired`` does, without a Python object for any of its tensors."""
    checkpoint = table_alone(source)
    if checkpoint is None:
        return False
    pairs = _C.match_table(model, checkpoint.table()._native)
    if pairs is None or not set(checkpoint.aliases()).issuperset(pairs.unexpected):
        return False
    if not cast and not all(keeps_values(of, to) for _, of, to in pairs.conversions):
        return False
    if pairs.share_memory():
        return False
    stream_pairs(pairs, checkpoint.mapped_files())
    return True


def _paired(model: nn.Module, given: Given, cast: bool) -> bool:
    """Fills a model whose names all pair up with values that copy plainly, natively from end to end.

    False, with nothing written, for any other, and where memory is shared or a value would be lost.
    """
    matched = _C.match_state_dict(model, given.values)
    if matched is None:
        return False
    missing, unexpected, targets, sources, conversions = matched
    if missing or not given.repeats.issuperset(unexpected):
        return False
    if not cast and not all(keeps_values(of, to) for _, of, to in conversions):
        return False
    if _C.share_memory(targets, [] if given.from_file else sources):
        return False
    stream(targets, sources, given.files)
    return True


def _written(
    options: _Options,
    model: nn.Module,
    given: Given,
    in_pieces: DistributedCheckpoint | None,
    own: list[Tie],
    present: list[Tie],
    code: OwnCode,
    before: Before,
) -> IncompatibleKeys:
    """Ties, makes memory and copies. Whatever it raises, ``before`` knows what to put back."""
    verb, strict, assign, _, device = options
    values = given.values
    wanted = state_of(model, keep_vars=True)
    if device is not None and not assign:
        on_meta = {id(wanted[n]) for n in values if isinstance(wanted.get(n), Tensor) and wanted[n].is_meta}
        if on_meta:
            with keep_ties(model), lasting():
                _give_memory(model, on_meta, torch.device(device))
            wanted = state_of(model, keep_vars=True)
    before.hold((wanted[name] for tie in present for name in tie.names), values=False)
    if not any(is_lazy(wanted[name]) for tie in present for name in tie.names):
        retie_(model, present)  # before the values: it refuses before anything is written
        wanted = state_of(model, keep_vars=True)
    asked = is_own(model, "load_state_dict")
    matched = None if assign or asked else _C.match_state_dict(model, values)
    if matched is not None:
        stream(matched[2], matched[3], given.files)
        return IncompatibleKeys(*matched[:2])
    if assign and (given.from_file or device is not None):
        parts = dtensor_type() or ()
        for name in [name for name, value in values.items() if isinstance(value, Tensor)]:
            if isinstance(wanted.get(name), parts):
                continue  # as_parts gives them memory
            if device is not None:
                check_has_values(verb, name, values[name], options.where)
            with lasting():
                values[name] = _own(values[name], given.strides.get(name), device)
    tensors = {n: v for n, v in values.items() if isinstance(v, Tensor)}
    values.update(as_parts(verb, tensors, wanted, in_pieces, given.pieces))
    later = [] if assign else _later(values, wanted, code, [*own, *present])
    targets, sources = [wanted[name] for name in later], [values[name] for name in later]
    values.update(zip(later, targets, strict=True))  # PyTorch copies them onto themselves, which is nothing
    if not assign or code.below or code.everywhere:
        _hold(before, wanted, set(later), code, assign)
    if assign and own:
        before.hold(before.tensors(), values=False)  # keep_ties moves what is tied, saved or not
    keys = _by_pytorch(options, model, values, wanted, bool(own or present))
    retie_(model, present)
    if strict:
        check_names(verb, *keys, options.where, wanted, values)
    stream(targets, sources, given.files)
    return keys


def _later(values: Mapping[str, Any], wanted: Mapping[str, Any], code: OwnCode, tied: list[Tie]) -> list[str]:
    """The names that are filled natively, when all that can fail is done: no code sees them before that."""
    beside = {
        name
        for tie in tied
        if any(code.reaches(name) or (name in wanted and is_lazy(wanted[name])) for name in tie.names)
        for name in tie.names
    }
    names = [
        name
        for name, value in values.items()
        if type(value) in PLAIN
        and type(wanted.get(name)) in PLAIN
        and name not in beside
        and not code.reaches(name)
    ]
    odd = set(_C.odd_copies([wanted[name] for name in names], [values[name] for name in names]))
    return [name for i, name in enumerate(names) if i not in odd]


def _hold(before: Before, wanted: Mapping[str, Any], later: set[str], code: OwnCode, assign: bool) -> None:
    """Holds what PyTorch, or a module's code, may write to."""
    before.hold(
        (
            tensor
            for name, tensor in wanted.items()
            if isinstance(tensor, Tensor) and name not in later and (code.reaches(name) or not assign)
        ),
        values=True,
    )


def _by_pytorch(
    options: _Options, model: nn.Module, values: dict[str, Any], wanted: Mapping[str, Any], tied: bool
) -> IncompatibleKeys:
    """``nn.Module.load_state_dict``, with what it refuses: a tensor whose elements share places."""
    verb, _, assign, cast, _ = options
    written: set[str] = set()
    for name, value in [] if assign else list(values.items()):
        target = wanted.get(name)
        if isinstance(target, Tensor) and not is_lazy(target) and overlaps_itself(target):
            write_over(target.detach(), value)
            written.add(name)
            del values[name]
    if assign and not tied and not is_own(model, "load_state_dict"):
        found = loaded(model, values, strict=False, assign=True)
        if found is not None:
            return IncompatibleKeys(*found)
    rounding = Rounding(verb, options.where, wanted)
    try:
        with (
            keep_ties(model) if assign else contextlib.nullcontext(),
            contextlib.nullcontext() if assign or cast else rounding,
        ):
            how = {"assign": assign} if assign or takes(model.load_state_dict, "assign") else {}
            keys = model.load_state_dict(values, strict=False, **how)
    except RuntimeError:
        if rounding.error is not None:
            raise rounding.error from None
        raise
    if keys is None:  # a method of the model's own need not say
        return IncompatibleKeys([], [])
    return IncompatibleKeys(
        [name for name in keys.missing_keys if name not in written], list(keys.unexpected_keys)
    )


def _own(value: Tensor, stride: list[int] | None, device: str | torch.device | None) -> Tensor:
    """The same values in memory of their own, with dimensions ordered as ``stride`` orders them."""
    if stride is not None:
        order = sorted(range(value.dim()), key=lambda d: -stride[d])
        value = value.permute(order).contiguous().permute([order.index(d) for d in range(value.dim())])
    to = value.device if device is None else device
    return value.detach().to(to, copy=True)


def _give_memory(model: nn.Module, on_meta: set[int], device: torch.device) -> None:
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for members in (module._parameters, module._buffers):
            for name, old in members.items():
                if old is None or id(old) not in on_meta:
                    continue
                fresh = made.get(id(old))
                if fresh is None:
                    data = torch.empty_like(old.detach(), device=device)
                    fresh = torch.Tensor._make_subclass(type(old), data, old.requires_grad)
                    fresh.__dict__.update(old.__dict__)
                    made[id(old)] = fresh
                members[name] = fresh  # type: ignore[assignment]


def _restrict(tie: Tie, names: Any) -> Tie | None:
    """The tie among the names that are there."""
    kept = [i for i, name in enumerate(tie.names) if name in names]
    if len(kept) < 2:
        return None
    subgroups = tuple(part for sub in tie.subgroups if (part := _restrict(sub, names)) is not None)
    layouts = tuple(tie.layouts[i] for i in kept) if tie.layouts else ()
    own = tuple(tie.names[i] for i in kept)
    if len(subgroups) == 1 and subgroups[0].names == own:
        return subgroups[0]
    return Tie(own, tie.kind, tie.exact, subgroups, layouts)
