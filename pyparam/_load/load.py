"""load_: any checkpoint into any model."""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.modes import lasting, require_memory
from pyparam._base.native import _C
from pyparam._base.rename import Rule
from pyparam._load.before import Before
from pyparam._load.checks import check_agreement, check_fits, check_memory, check_names
from pyparam._load.stream import stream
from pyparam._load.values import Given, given_by, state_of, without_repeats
from pyparam._share.keep import keep_ties
from pyparam._share.parts import as_parts
from pyparam._share.shared_memory import overlaps_itself, write_over
from pyparam._share.tie import retie_
from pyparam._share.ties import ties
from pyparam._sources.tied import Tie


class IncompatibleKeys(NamedTuple):
    """What ``load_(strict=False)`` could not pair up, as ``nn.Module.load_state_dict`` gives it."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_(
    model: nn.Module,
    source: Any,
    *,
    strict: bool = True,
    assign: bool = False,
    rename: Rule = None,
    cast: bool = False,
    device: str | torch.device | None = None,
) -> IncompatibleKeys:
    """Fills a model's parameters and buffers from any source of tensors.

    Names, shapes, dtypes and memory are checked before the first byte is written. The bytes of a file stream
    from its map into the parameters, converted on the way, and leave no copy in memory. Names that the file
    or the model ties to one that is given get that one's values, and stay or become tied. Hooks and a class's
    own ``_load_from_state_dict`` are asked as PyTorch asks them; the values that the model had are then held
    until they are done.

    Args:
        model: the module to fill.
        source: a path to a checkpoint, what ``open`` gives, a state dict, another model, or another source.
        strict: whether names that only one side has are an error.
        assign: makes the source's tensors the model's own, with their dtype and strides, where the default is
            to copy values into the model's tensors. Tensors of a file are read into memory.
        rename: a rule for the source's names, as ``compare`` takes it: a prefix to remove, a pair
            ``(pattern, replacement)``, a mapping of globs, a function, or a list of these.
        cast: whether values may be rounded to the model's dtype. Without it, a dtype that does not hold every
            value of the source's is an error.
        device: where tensors on the meta device get their memory, and where assigned tensors go.

    Returns:
        ``(missing_keys, unexpected_keys)``; both empty where ``strict``.

    Raises:
        TypeError: ``model`` is no module, or ``source`` no source.
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, names are missing or unexpected, shapes differ, values would be
            lost, the source gives other values to two names that the model ties, or lies in the model's
            memory under another layout or name.

    Of a DTensor each rank takes its own part, without communication, and it stays placed as it was.

    The model is as it was where this raises.
    """
    return _filled("load_", model, source, strict, assign, rename, cast, device)


def load_file_(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    assign: bool = False,
    rename: Rule = None,
    cast: bool = False,
    device: str | torch.device | None = None,
) -> IncompatibleKeys:
    """:func:`load_` from a file. Takes and raises the same."""
    return _filled("load_file_", model, path, strict, assign, rename, cast, device)


def _filled(
    verb: str,
    model: nn.Module,
    source: Any,
    strict: bool,
    assign: bool,
    rename: Rule,
    cast: bool,
    device: str | torch.device | None,
) -> IncompatibleKeys:
    require_memory(verb)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{verb}: expected an nn.Module, got {type(model).__name__}")
    where = "file" if verb == "load_file_" else "source"
    place = None if device is None else torch.device(device)
    given = given_by(verb, source, rename)
    values = given.values
    wanted = state_of(model, keep_vars=True)
    without_repeats(given, wanted)
    own = ties(model, buffers=True)
    check_agreement(verb, own, values, wanted, where)
    for tie in (*given.ties, *own):
        for group in tie.classes("storage"):
            value = next((values[name] for name in group if name in values), None)
            if value is not None:
                values.update({name: value for name in group if name not in values and name in wanted})
    asks = _asks(model)
    missing = [name for name in wanted if name not in values]
    unexpected = [name for name in values if name not in wanted]
    if strict and not asks:
        check_names(verb, missing, unexpected, where)
    for name, target in wanted.items():
        if name in values and not asks:
            check_fits(verb, name, values[name], target, assign=assign, cast=cast, device=place, where=where)
    if not given.from_file and not assign:
        check_memory(verb, values, wanted)
    present = [part for tie in given.ties if (part := _restrict(tie, wanted)) is not None]
    before = Before(model, values=asks)
    try:
        keys = _written(verb, model, given, wanted, present, assign, place)
        if strict:
            check_names(verb, *keys, where)
    except BaseException as error:
        before.restore()
        if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error):
            raise ValueError(f"{verb}: {error}") from None
        raise
    return keys


def _written(
    verb: str,
    model: nn.Module,
    given: Given,
    wanted: Any,
    present: list[Tie],
    assign: bool,
    device: torch.device | None,
) -> IncompatibleKeys:
    values = given.values
    if device is not None and not assign:
        on_meta = {id(wanted[n]) for n in values if isinstance(wanted.get(n), Tensor) and wanted[n].is_meta}
        if on_meta:
            with keep_ties(model), lasting():
                _give_memory(model, on_meta, device)
            wanted = state_of(model, keep_vars=True)
    if not any(is_lazy(wanted[name]) for tie in present for name in tie.names):
        retie_(model, present)  # before the values: it refuses before anything is written
    matched = None if assign else _C.match_state_dict(model, values)
    if matched is not None:
        missing, unexpected, targets, sources = matched
        stream(targets, sources, given.files)
        return IncompatibleKeys(missing, unexpected)
    if assign and (given.from_file or device is not None):
        for name in [name for name, value in values.items() if isinstance(value, Tensor)]:
            with lasting():
                values[name] = _own(values[name], given.strides.get(name), device)
    parts = as_parts(verb, {n: v for n, v in values.items() if isinstance(v, Tensor)}, wanted)
    values.update(parts)
    written: set[str] = set()
    if not assign:
        for name, value in list(values.items()):
            target = wanted.get(name)
            if isinstance(target, Tensor) and not is_lazy(target) and overlaps_itself(target):
                write_over(target.detach(), value)
                written.add(name)
                del values[name]
    with keep_ties(model) if assign else contextlib.nullcontext():
        keys = model.load_state_dict(values, strict=False, assign=assign)
    retie_(model, present)
    return IncompatibleKeys(
        [name for name in keys.missing_keys if name not in written], list(keys.unexpected_keys)
    )


def _asks(model: nn.Module) -> bool:
    """Whether loading runs code that may see other names than the model's."""
    plain = nn.Module._load_from_state_dict
    return any(
        module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        or type(module)._load_from_state_dict is not plain
        or "_load_from_state_dict" in module.__dict__
        for module in model.modules()
    )


def _own(value: Tensor, stride: list[int] | None, device: torch.device | None) -> Tensor:
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
