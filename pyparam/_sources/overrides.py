"""Which traversal methods are nn.Module's own, and calling those that are not, as PyTorch would."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm as _batchnorm
from torch.nn.modules import instancenorm as _instancenorm
from torch.nn.modules import module as _torch_module

from pyparam._base.native import _C


def is_torchs(method: object) -> bool:
    """Whether a method of nn.Module is the one that PyTorch defines, and not put there by something else."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_filename == _torch_module.__file__


# The methods of nn.Module that native code stands in for, and those it has to know to leave alone.
TRAVERSAL = (
    "named_modules",
    "named_parameters",
    "named_buffers",
    "_named_members",
    "state_dict",
    "_save_to_state_dict",
    "get_extra_state",
    "_load_from_state_dict",
    "set_extra_state",
    "__setattr__",
    "register_parameter",
    "register_buffer",
)

# Those that are made of them, which install() replaces and nobody has to leave alone.
_MADE_OF_THEM = ("parameters", "buffers", "modules", "load_state_dict", "zero_grad")

# PyTorch's own, by name: what stands in nn.Module when this module is imported, and is from its file.
TORCHS_OWN: dict[str, Callable[..., Any]] = {
    name: method
    for name in (*TRAVERSAL, *_MADE_OF_THEM)
    if (method := nn.Module.__dict__.get(name)) is not None and is_torchs(method)
}


_installed: dict[str, Callable[..., Any]] = {}


def tell_known_methods(installed: dict[str, Callable[..., Any]]) -> None:
    """Tells native code which functions are PyTorch's own, or ours in their place.

    A method that something else has put into nn.Module is none of them: it is asked like a class's own.
    """
    known: dict[str, list[Callable[..., Any]]] = {
        name: [known[name] for known in (TORCHS_OWN, installed) if name in known] for name in TRAVERSAL
    }
    # Of a state dict of version 2 or later these load what nn.Module's own loads.
    known["versioned_load"] = [
        norm.__dict__["_load_from_state_dict"]
        for norm in (_batchnorm._NormBase, _instancenorm._InstanceNorm)
        if "_load_from_state_dict" in norm.__dict__ and norm._version == 2
    ]
    _C.set_known_methods(nn.Module, known)
    _installed.clear()
    _installed.update(installed)


def is_own(module: nn.Module, name: str) -> bool:
    """Whether a method of nn.Module is neither PyTorch's own for this instance, nor ours in its place."""
    method = getattr(type(module), name, None)
    known = (TORCHS_OWN.get(name), _installed.get(name))
    return name in module.__dict__ or method is None or method not in known


def call_named_modules(
    method: Callable[..., Iterable[tuple[str, nn.Module]]],
    memo: set[nn.Module] | None,
    path: str,
    remove_duplicate: bool,
) -> Iterable[tuple[str, nn.Module]]:
    """Calls a class's own ``named_modules`` as ``nn.Module`` would: by position below the root, by keyword at
    it.

    ``remove_duplicate`` is left out where it is the default and the method does not take it.
    """
    if remove_duplicate and not takes(method, "remove_duplicate", position=2):
        return method(prefix=path) if memo is None else method(memo, path)
    if memo is None:
        return method(prefix=path, remove_duplicate=remove_duplicate)
    return method(memo, path, remove_duplicate)


def call_named_members(
    module: nn.Module, buffers: bool, prefix: str, recurse: bool, remove_duplicate: bool
) -> Iterable[tuple[str, Tensor]]:
    """Calls a class's own ``_named_members`` as ``nn.Module.named_parameters`` or ``named_buffers`` would."""
    members: Callable[[nn.Module], Any] = (
        (lambda module: module._buffers.items()) if buffers else (lambda module: module._parameters.items())
    )
    given: dict[str, Any] = {"prefix": prefix, "recurse": recurse}
    if not remove_duplicate or takes(module._named_members, "remove_duplicate"):
        given["remove_duplicate"] = remove_duplicate
    pairs: Iterable[tuple[str, Tensor]] = module._named_members(members, **given)
    return pairs


def call(method: Callable[..., Any], **arguments: tuple[Any, Any]) -> Any:
    """Calls ``method`` with those arguments, given as (value, default), that differ from their default, so
    that a method without ``remove_duplicate`` works while nobody asks for it."""
    return method(**{k: value for k, (value, default) in arguments.items() if value is not default})


def takes(method: Callable[..., Any], name: str, position: int | None = None) -> bool:
    """Whether ``method`` can be given the argument ``name``, or an argument at ``position``."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return True
    if position is None:
        return any(
            p.kind is p.VAR_KEYWORD or (p.name == name and p.kind is not p.POSITIONAL_ONLY)
            for p in parameters
        )
    positional = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return positional > position or any(p.kind is p.VAR_POSITIONAL for p in parameters)
