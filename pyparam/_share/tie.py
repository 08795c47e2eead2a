"""Making ties, dropping them, and making recorded ones again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, MutableMapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.extent import require_extent, require_shape
from pyparam._base.modes import lasting, require_fake, require_untransformed
from pyparam._base.wrappers import bare
from pyparam._share.optimizers import check_optimizer, join_group, mend
from pyparam._share.shared_memory import Worth, same_values, share_memory
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
    check_optimizer("tie_", optimizer)
    replaced = _assign(targets, shared)
    mend(optimizer, replaced, model)
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
    slots = Slots(model, "untie_")
    slot = slots[name]
    check_optimizer("untie_", optimizer)
    old = slot.get()
    # A class may list its parameters under other names than the path to them.
    shared = (
        (tie, listed)
        for tie in ties(model, buffers=True)
        for listed in tie.names
        if listed == slot.name or (bare(listed) == bare(slot.name) and slots[listed].name == slot.name)
    )
    found, name = next(shared, (None, name))
    if found is None:
        return old
    require_extent(f"untie_: {name!r}", old)
    require_untransformed("untie_")
    require_fake("untie_", [(name, old)])
    objects = next(group for group in found.classes("parameter") if name in group)
    if len(objects) == 1:
        with lasting():
            old.data = old.detach().clone()
        return old
    with lasting():
        new = _copy(old)
    if any(slots[other].key == slot.key for other in objects if other != name):
        slot = _split_module(model, slot)
    slot.set(new)
    with lasting():
        join_group(optimizer, old, new, name)
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
    others' are given up. (:func:`keep_ties` also knows which names were written.) Where layouts overlap, the
    bytes that the first name does not cover come from the next that does. Parameter objects are kept where
    only memory was shared; of one object under several names, the first is. If every member's dtype changed
    alike (``model.half()``), offsets follow.

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
    restore(model, ties, optimizer, lambda name, tensor: Worth.NONE if tensor.is_meta else Worth.HELD)


def restore(
    model: nn.Module | MutableMapping[str, Tensor],
    ties: Iterable[Tie],
    optimizer: torch.optim.Optimizer | None,
    worth: Callable[[str, Tensor], Worth],
) -> None:
    """``retie_`` with values from the names that are worth most; the first of those that are worth the same.

    Names that were written must agree where they share bytes.
    """
    slots = Slots(model, "retie_")
    check_optimizer("retie_", optimizer)
    plan = []
    for tie in ties:
        if not isinstance(tie, Tie):
            raise TypeError(f"retie_: expected Tie, what ties() gives, got {type(tie).__name__}")
        at = {name: slots[name] for name in tie.names}
        worths = {name: worth(name, slot.get()) for name, slot in at.items()}
        # A class may list its parameters under other names than the paths to them.
        worths |= {slot.name: worths[name] for name, slot in at.items()}
        layouts = dict(zip(tie.names, tie.layouts, strict=False))
        members = []
        for group in tie.classes("parameter"):
            first = at[max(group, key=worths.__getitem__)]
            for name in group:
                if at[name] is not first:
                    _check_class(first, at[name], worths[name], worths[first.name])
            members.append((first, [at[name] for name in group], layouts.get(group[0])))
        share = share_memory(
            [(first.name, first.get(), layout) for first, _, layout in members],
            [worths[first.name] for first, _, _ in members],
        )
        plan.append((members, share))
    replaced: list[tuple[Tensor, Tensor]] = []
    for members, share in plan:
        for (_, places, _), tensor in zip(members, share(), strict=True):
            replaced += _assign(places, tensor)
    if isinstance(model, nn.Module):
        mend(optimizer, replaced, model)


def _check_class(first: Slot, other: Slot, worth: Worth, most: Worth) -> None:
    """Of names that become one object, that ``other`` can take the object of ``first``, and loses nothing."""
    if most is Worth.WRITTEN and worth is not Worth.WRITTEN and first.get().shape == other.get().shape:
        # What was written may have another dtype or device: it is what stays.
        _check_kind("retie_", first, other)
        return
    _check_pair("retie_", first, other)
    if worth is Worth.WRITTEN and not same_values(first.get(), other.get()):
        raise ValueError(
            f"retie_: {first.name!r} and {other.name!r} are one tensor, and both were given values, which "
            "differ; give one of them, or the same to both"
        )


def _check_kind(operation: str, source: Slot, target: Slot) -> None:
    if source.name == target.name:
        raise ValueError(f"{operation}: {source.name!r} cannot be tied to itself")
    if source.is_buffer != target.is_buffer:
        kinds = ("a buffer", "a parameter") if source.is_buffer else ("a parameter", "a buffer")
        raise TypeError(
            f"{operation}: {source.name!r} is {kinds[0]} and {target.name!r} is {kinds[1]}; "
            "they cannot be one tensor"
        )


def _check_pair(operation: str, source: Slot, target: Slot) -> None:
    _check_kind(operation, source, target)
    a, b = source.get(), target.get()
    if a is b:
        return
    for slot, tensor in ((source, a), (target, b)):
        if is_lazy(tensor):
            raise ValueError(
                f"{operation}: {slot.name!r} is not initialised yet and has no shape; "
                "run a forward pass first"
            )
        require_shape(f"{operation}: {slot.name!r}", tensor)
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
