"""The access API: nn.Module's own methods as functions over any source, and ``walk``.

``named_parameters``, ``parameters``, ``named_buffers``, ``buffers``, ``named_modules`` and ``modules`` are
native functions; what they cannot do without Python (a class with a method of its own, a source that is no
module) they hand to ``members_of`` and ``modules_of`` here.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from pyparam._base.closest import hint, missing
from pyparam._base.native import _C
from pyparam._base.words import a_kind
from pyparam._share.save import with_shared
from pyparam._sources import module as module_source
from pyparam._sources import overrides, table_of
from pyparam._sources.registered import Kind, registered
from pyparam._sources.table import ParamTable

__all__ = [
    "buffers",
    "get_buffer",
    "get_parameter",
    "get_submodule",
    "modules",
    "named_buffers",
    "named_modules",
    "named_parameters",
    "parameters",
    "state_dict",
    "walk",
]

T = TypeVar("T")

overrides.tell_known_methods({})

named_parameters = _C.named_parameters
parameters = _C.parameters
named_buffers = _C.named_buffers
buffers = _C.buffers
named_modules = _C.named_modules
modules = _C.modules


def walk(source: Any, *, buffers: bool = False, remove_duplicate: bool = True) -> ParamTable:
    """Walks a source once and gives what it saw as columns, in the order of ``nn.Module.named_parameters``.

    Args:
        source: an ``nn.Module``, a TorchScript module, an ``ExportedProgram``, a state dict or other mapping,
            an iterable of tensors or of (name, tensor) pairs, a ``ParamTable``, an ``Inspector``, or a path.
        buffers: lists buffers after the parameters.
        remove_duplicate: lists a parameter met again (the same object) once.

    Returns:
        A table of qualified names, tensors, owning modules and attribute names. It holds its tensors;
        modules it holds weakly.

    Raises:
        TypeError: for what is no source, or an entry that is not a tensor.
        ValueError: with ``remove_duplicate=False``, where a module contains itself; for a file that cannot
            be read.
    """
    if isinstance(source, nn.Module) and module_source.accepts(source):
        return module_source.table(source, buffers=buffers, remove_duplicate=remove_duplicate, owners=True)
    return table_of(source, buffers=buffers, remove_duplicate=remove_duplicate)


def state_dict(
    source: Any,
    *args: Any,
    destination: Any = None,
    prefix: str = "",
    keep_vars: bool = False,
    shared: Literal["keep", "once"] = "keep",
) -> Any:
    """Returns what ``nn.Module.state_dict`` does: references to parameters and persistent buffers, by name.

    Args:
        source: a module (hooks, extra state, ``_metadata`` and a class's own methods count), or any other
            source, whose tensors are listed as its table lists them.
        destination: a mapping to fill and return; a new ``OrderedDict`` by default.
        prefix: put before every name as it is.
        keep_vars: whether to give the tensors themselves, not detached ones that share their storage.
        shared: ``"keep"`` lists a tied tensor under each of its names; ``"once"`` under the first of those
            that have the same bytes and layout, and gives names that overlap otherwise memory of their own.

    Raises:
        ValueError: where a module contains itself; for another ``shared``.
    """
    state = None
    if isinstance(source, nn.Module) and not args:
        state = _C.state_dict(source, destination, prefix, keep_vars, True)
    if state is None:
        state = _asked_state_dict(source, args, destination, prefix, keep_vars)
    return state if shared == "keep" else with_shared(state, shared)


def _asked_state_dict(
    source: Any, args: tuple[Any, ...], destination: Any, prefix: str, keep_vars: bool
) -> Any:
    """Of a class with a ``state_dict`` of its own, or of a source that is no module."""
    if isinstance(source, nn.Module):
        return overrides.call(
            functools.partial(source.state_dict, *args),
            destination=(destination, None),
            prefix=(prefix, ""),
            keep_vars=(keep_vars, False),
        )
    if args:
        raise TypeError("state_dict: takes destination, prefix and keep_vars by keyword")
    if destination is None:
        destination = OrderedDict()
    for name, tensor in table_of(source, buffers=True, remove_duplicate=False):
        destination[prefix + name] = tensor if keep_vars else tensor.detach()
    return destination


def get_parameter(source: Any, target: str) -> Tensor:
    """The parameter of that qualified name, as ``nn.Module.get_parameter`` gives it.

    Args:
        source: a module or any other source.
        target: a qualified name ("0.weight"); the parts that wrappers put into it (``_orig_mod.``) may be
            left out, where one parameter alone answers to what is left.

    Returns:
        The object that the source holds; of a checkpoint its tensor.

    Raises:
        AttributeError: where there is none, or what stands there is no parameter.
    """
    if isinstance(source, nn.Module):
        return _asked(source, source.get_parameter, target, "parameter")
    return _member("get_parameter", _only(source, buffers=False), target)


def get_buffer(source: Any, target: str) -> Tensor:
    """The buffer of that qualified name, as ``nn.Module.get_buffer`` gives it.

    Args:
        source: a module or any other source that tells buffers from parameters.
        target: a qualified name, as :func:`get_parameter` takes it.

    Returns:
        The object that the source holds.

    Raises:
        AttributeError: where there is none, or what stands there is no buffer.
    """
    if isinstance(source, nn.Module):
        return _asked(source, source.get_buffer, target, "buffer")
    return _member("get_buffer", _only(source, buffers=True), target)


def get_submodule(source: Any, target: str) -> nn.Module:
    """The module of that qualified name, as ``nn.Module.get_submodule`` gives it.

    Args:
        source: a module, or an Inspector of one.
        target: a qualified name, as :func:`get_parameter` takes it; "" is the module itself.

    Returns:
        The module.

    Raises:
        AttributeError: where there is none.
        TypeError: for a source without modules.
    """
    module = _module_of(source, "get_submodule")
    return _asked(module, module.get_submodule, target, "module")


def _asked(module: nn.Module, method: Callable[[str], T], target: str, kind: Kind) -> T:
    """What a method of nn.Module gives, also for a name without the parts that wrappers put into it."""
    try:
        return method(target)
    except AttributeError as error:
        names = registered(module, target, kind) if isinstance(target, str) else []
        if not names:
            raise
        if len(names) > 1:
            raise AttributeError(f"{error}{hint(names[:3])}") from None
    return method(names[0])


def _member(operation: str, table: ParamTable, target: str) -> Tensor:
    if target in table:
        return table[target]
    raise AttributeError(f"{operation}: {missing(target, table.names, 'a source').args[0]}")


def _module_of(source: Any, operation: str) -> nn.Module:
    mirrored = getattr(type(source), "__pyparam_module__", None)  # as an Inspector has
    module = source if mirrored is None else mirrored(source)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{operation}: {a_kind(source)} has no modules; expected an nn.Module")
    return module


def _only(source: Any, *, buffers: bool, remove_duplicate: bool = True) -> ParamTable:
    """The table of a source that is no module: its parameters, or the buffers it tells from them."""
    listed = table_of(source, remove_duplicate=remove_duplicate)
    if not buffers:
        return listed
    # A table lists buffers after the parameters.
    return table_of(source, buffers=True, remove_duplicate=remove_duplicate)[len(listed) :]


def members_of(
    source: Any,
    buffers: bool,
    memo: None,
    prefix: str,
    recurse: bool,
    remove_duplicate: bool,
    named: bool,
    own: bool,
) -> Iterator[Any]:
    """Parameters or buffers where native code cannot list them alone; the native functions call this.

    With ``own``, as nn.Module's own method does, not asking the class for a method of that name.
    """
    pairs: Iterable[tuple[str, Tensor]]
    if isinstance(source, nn.Module):
        method = "named_buffers" if buffers else "named_parameters"
        if not (own and named) and _C.overrides(source, method):
            pairs = overrides.call(
                getattr(source, method),
                prefix=(prefix, ""),
                recurse=(recurse, True),
                remove_duplicate=(remove_duplicate, True),
            )
        else:
            pairs = overrides.call_named_members(source, buffers, prefix, recurse, remove_duplicate)
    else:
        pairs = _listed(source, buffers, prefix, recurse, remove_duplicate)
    return iter(pairs) if named else (value for _, value in pairs)


def _listed(
    source: Any, buffers: bool, prefix: str, recurse: bool, remove_duplicate: bool
) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    before = prefix + "." if prefix else ""
    for name, tensor in _only(source, buffers=buffers, remove_duplicate=remove_duplicate):
        if (not recurse and "." in name) or (remove_duplicate and id(tensor) in seen):
            continue
        seen.add(id(tensor))
        yield before + name, tensor


def modules_of(
    source: Any,
    buffers: bool,
    memo: set[nn.Module] | None,
    prefix: str,
    recurse: bool,
    remove_duplicate: bool,
    named: bool,
    own: bool,
) -> Iterator[Any]:
    """Modules where native code cannot list them alone; the native functions call this."""
    module = _module_of(source, "named_modules" if named else "modules")
    pairs: Iterable[tuple[str, nn.Module]]
    if module is source:
        pairs = overrides.call(
            module.named_modules,
            memo=(memo, None),
            prefix=(prefix, ""),
            remove_duplicate=(remove_duplicate, True),
        )
    else:
        pairs = _C.named_modules(module, memo, prefix, remove_duplicate)
    return iter(pairs) if named else (value for _, value in pairs)
