"""Making ties, dropping them, and keeping them through what breaks them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._share.shared_memory import share_memory
from pyparam._share.slots import Slot, Slots
from pyparam._share.ties import ties
from pyparam._sources.tied import Tie


def tie_(
    model: nn.Module, source_name: str, *target_names: str, optimizer: torch.optim.Optimizer | None = None
) -> Tensor:
    """Makes ``target_names`` the same Parameter as ``source_name``.

    The targets' own values are given up. From then on there is one tensor under all the names: its gradient
    is the sum over all its uses, and an optimizer steps it once. Buffers are tied to buffers in the same
    way. A module that is registered under several names is one place: tying one of its names ties them all.

    Args:
        model: the module to change.
        source_name: the qualified name whose tensor stays.
        target_names: the qualified names that take it.
        optimizer: mended where given: a replaced Parameter that no other name of the model holds leaves
            its group and its state (moments and the like, which described its values) is dropped. The
            source takes its place if the optimizer does not hold it yet, else keeps its own group and
            state.

    Returns:
        The shared tensor.

    Raises:
        AttributeError: a name is not a parameter or buffer; for a parametrized weight the message says
            which name is.
        TypeError: a parameter meets a buffer; the model or the optimizer is none.
        ValueError: shape, dtype, device or layout differ, a name is its own target, or a lazy parameter
            has no shape yet.

    Nothing is changed where this raises.
    """
    slots = Slots(model, "tie_")
    if not target_names:
        raise ValueError("tie_: no target: give the names that shall share the source's tensor")
    source, *targets = (slots[name] for name in (source_name, *target_names))
    shared = source.get()
    for target in targets:
        _check_pair("tie_", source, target)
    _check_optimizer("tie_", optimizer)
    replaced = _assign(targets, shared)
    _mend(optimizer, replaced, model)
    return shared


def untie_(model: nn.Module, name: str, *, optimizer: torch.optim.Optimizer | None = None) -> Tensor:
    """Gives ``name`` its own copy of what it shares.

    Class, dtype, device and ``requires_grad`` stay, and strides where they are dense (a column of a buffer
    becomes contiguous). ``grad`` stays with the names that remain tied: it is the sum over all of them, and
    the copy starts with none. A Parameter object that ``name`` alone holds (a slice of a buffer) is kept
    and gets its own memory.

    Where ``name`` belongs to a module that is registered under several names, that path gets a shallow copy
    of the module, which shares everything but this parameter; other references to the old module stay with
    the old.

    Args:
        model: the module to change.
        name: the qualified name of a parameter or buffer. One that shares nothing is left as it is.
        optimizer: mended where given: the copy joins the group of the old Parameter, with a copy of its
            state.

    Returns:
        The tensor that ``name`` holds now.

    Raises:
        AttributeError: ``name`` is not a parameter or buffer of the model.
        TypeError: the model or the optimizer is none.
    """
    slot = Slots(model, "untie_")[name]
    _check_optimizer("untie_", optimizer)
    old = slot.get()
    found = next((tie for tie in ties(model, buffers=True) if name in tie.names), None)
    if found is None:
        return old
    objects = next(group for group in found.classes("parameter") if name in group)
    if len(objects) == 1:
        with torch.no_grad():
            old.data = old.detach().clone()
        return old
    new = _copy(old)
    slots = Slots(model, "untie_")
    if any(slots[other].key == slot.key for other in objects if other != name):
        slot = _split_module(model, slot)
    slot.set(new)
    _join_group(optimizer, old, new, name)
    return new


def retie_(
    model: nn.Module | MutableMapping[str, Tensor],
    ties: Iterable[Tie],
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Restores recorded ties, after whatever broke them.

    ``to("meta")``, ``to_empty``, ``load_state_dict(assign=True)``, copying a part of a model and
    materialisation all give each name its own tensor. Names that were one object become one object again,
    names that shared bytes become views of one buffer, at the offsets, shapes and strides they had. Ties
    that still hold are left alone.

    Values come from the first name of a tie that has some, the first that is not on the meta device: the
    others' are given up. Where layouts overlap, the bytes that the first name does not cover come from the
    next that does. Parameter objects are kept where only memory was shared; of one object under several
    names, the first is. If every member's dtype changed alike (``model.half()``), offsets follow.

    Args:
        model: the module to change, or a state dict.
        ties: what :func:`ties` found before.
        optimizer: mended as :func:`tie_` does.

    Raises:
        AttributeError: a name is no longer there.
        TypeError: something is not a Tie, or a parameter meets a buffer.
        ValueError: shapes, dtypes or devices no longer agree, or a layout cannot be made again (sparse
            tensors, wrappers such as DTensor).

    Nothing is changed where this raises.
    """
    slots = Slots(model, "retie_")
    _check_optimizer("retie_", optimizer)
    plan = []
    for tie in ties:
        if not isinstance(tie, Tie):
            raise TypeError(f"retie_: expected Tie, what ties() gives, got {type(tie).__name__}")
        at = {name: slots[name] for name in tie.names}
        layouts = dict(zip(tie.names, tie.layouts, strict=False))
        members = []
        for group in tie.classes("parameter"):
            first = next((at[n] for n in group if not at[n].get().is_meta), at[group[0]])
            for name in group:
                if at[name] is not first:
                    _check_pair("retie_", first, at[name])
            members.append((first, [at[name] for name in group], layouts.get(group[0])))
        share = share_memory([(first.name, first.get(), layout) for first, _, layout in members])
        plan.append((members, share))
    replaced: list[tuple[Tensor, Tensor]] = []
    for members, share in plan:
        for (_, places, _), tensor in zip(members, share(), strict=True):
            replaced += _assign(places, tensor)
    if isinstance(model, nn.Module):
        _mend(optimizer, replaced, model)


@contextlib.contextmanager
def keep_ties(model: nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> Iterator[list[Tie]]:
    """Records a model's ties, buffers too, and restores them after the block.

    Gives the recorded ties. Where the block raises, the ties are restored as far as the model allows and the
    block's error is what is seen.

    Example:
        >>> with pyparam.keep_ties(model):
        ...     model.to_empty(device="cuda")
    """
    recorded = ties(model, buffers=True)
    slots = Slots(model, "keep_ties")
    for tie in recorded:
        for name in tie.names:
            slots[name]  # a class may list other names than it has: better to hear of it before the block
    try:
        yield recorded
    except BaseException:
        with contextlib.suppress(Exception):
            retie_(model, recorded, optimizer=optimizer)
        raise
    retie_(model, recorded, optimizer=optimizer)


def _check_pair(operation: str, source: Slot, target: Slot) -> None:
    if source.name == target.name:
        raise ValueError(f"{operation}: {source.name!r} cannot be tied to itself")
    if source.is_buffer != target.is_buffer:
        kinds = ("a buffer", "a parameter") if source.is_buffer else ("a parameter", "a buffer")
        raise TypeError(
            f"{operation}: {source.name!r} is {kinds[0]} and {target.name!r} is {kinds[1]}; "
            "they cannot be one tensor"
        )
    a, b = source.get(), target.get()
    if a is b:
        return
    for slot, tensor in ((source, a), (target, b)):
        if is_lazy(tensor):
            raise ValueError(
                f"{operation}: {slot.name!r} is not initialised yet and has no shape; "
                "run a forward pass first"
            )
    for what, ours, theirs in (
        ("shape", list(a.shape), list(b.shape)),
        ("dtype", a.dtype, b.dtype),
        ("layout", a.layout, b.layout),
        ("device", a.device, b.device),
    ):
        # Without memory, a device is no more than where the tensor is still to come from.
        if ours != theirs and not (what == "device" and b.is_meta):
            raise ValueError(
                f"{operation}: {target.name!r} has {what} {theirs}, expected {ours}, "
                f"the {what} of {source.name!r}"
            )


def _assign(slots: Sequence[Slot], tensor: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Sets each slot; returns (old, new) of those that held another object."""
    replaced = []
    for slot in slots:
        old = slot.get()
        if old is not tensor:
            slot.set(tensor)
            replaced.append((old, tensor))
    return replaced


def _copy(tensor: Tensor) -> Tensor:
    """A copy that is the same in all but memory and gradient."""
    new: Tensor
    if isinstance(tensor, nn.Parameter):
        new = copy.deepcopy(tensor)
        new.grad = None
    else:
        new = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    for attribute, value in vars(tensor).items():
        new.__dict__.setdefault(attribute, value)
    return new


def _split_module(model: nn.Module, slot: Slot) -> Slot:
    """Replaces, along the path of a slot, each module from the first that has several names by a shallow
    copy."""
    path = slot.name.split(".")[:-1]
    seen: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        seen[id(module)] = seen.get(id(module), 0) + 1
    owner = model
    copying = False
    for part in path:
        child = owner._modules[part]
        assert child is not None  # the slot was found along this path
        if isinstance(child, torch.jit.ScriptModule):
            raise TypeError(
                f"untie_: {slot.name!r} belongs to a TorchScript module that has several names; it cannot be "
                "copied in part"
            )
        copying = copying or seen.get(id(child), 1) > 1
        if copying:
            child = _shallow(child)
            setattr(owner, part, child)
        owner = child
    return slot._replace(owner=owner)


def _shallow(module: nn.Module) -> nn.Module:
    new = module.__new__(type(module))
    for attribute, value in vars(module).items():
        # The registries and lists must be its own: what is registered on one is not on the other.
        own = isinstance(value, dict | list | set)
        new.__dict__[attribute] = copy.copy(value) if own else value
    return new


def _check_optimizer(operation: str, optimizer: Any) -> None:
    if optimizer is not None and not (hasattr(optimizer, "param_groups") and hasattr(optimizer, "state")):
        raise TypeError(
            f"{operation}: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )


def _mend(optimizer: Any, replaced: Sequence[tuple[Tensor, Tensor]], model: nn.Module) -> None:
    """Takes replaced parameters out of an optimizer, puts in what replaced them where it is missing."""
    if optimizer is None or not replaced:
        return
    alive = {id(p) for p in model.parameters()}
    successor = {id(old): new for old, new in replaced if id(old) not in alive}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for group in optimizer.param_groups:
        kept: list[Tensor] = []
        names: list[str] = []
        for i, parameter in enumerate(group["params"]):
            new = successor.get(id(parameter), parameter)
            if new is not parameter:
                optimizer.state.pop(parameter, None)
                if id(new) in held or not isinstance(new, nn.Parameter):
                    continue
                held.add(id(new))
            kept.append(new)
            names += group.get("param_names", ())[i : i + 1]
        group["params"] = kept
        if "param_names" in group:
            group["param_names"] = names


def _join_group(optimizer: Any, old: Tensor, new: Tensor, name: str) -> None:
    """Puts a copy of a parameter beside it, with a copy of its state."""
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        for parameter in list(group["params"]):
            if parameter is old:
                group["params"].append(new)
                if "param_names" in group:
                    group["param_names"].append(name)
                if old in optimizer.state:
                    optimizer.state[new] = copy.deepcopy(optimizer.state[old])
                return
