"""Inspector, the mirror of a model that works for every source, and ``inspect``, which makes one."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pyparam._base.closest import closest, hint
from pyparam._base.native import _C
from pyparam._base.notebook import html
from pyparam._base.words import ranges
from pyparam._inspect.members import named_tensors, state_dict_of
from pyparam._inspect.nodes import ModuleNode, Node, answering, node_of
from pyparam._inspect.printed import printed
from pyparam._inspect.tree import Summary
from pyparam._sources.table import ParamTable

_MISSING = object()


def inspect(source: Any) -> Inspector:
    """Mirrors a source as it is indexed: ``inspect(net)[0][1][0].bias.data``.

    Args:
        source: an ``nn.Module``, a TorchScript module, an ``ExportedProgram``, a state dict or other mapping,
            an iterable of tensors or of (name, tensor) pairs, a ``ParamTable``, an ``Inspector``, or a path
            to a checkpoint.

    Returns:
        An Inspector. Of a module it is a live view: every access reads the model as it is now, and gives the
        very objects the model holds. Of a source without modules it is a tree that the dotted names describe,
        as they were when ``inspect`` was called.

    Raises:
        TypeError: for what is no source. FileNotFoundError, ValueError: for a path that cannot be read.
    """
    if isinstance(source, Inspector):
        return source
    return Inspector(node_of(source))


class Inspector:
    """A read-only mirror of a model or of a part of it.

    - ``[0]``, ``[-1]``, ``[1:3]``, ``["key"]`` do what they do to the module. TorchScript modules and sources
      without modules are indexed by the numbers in their entries' names; where the names are not numbers,
      by position.
    - ``["0.block 1.0.bias"]`` reaches a parameter, buffer or module by qualified name. An entry of that very
      name comes before a path; a tensor comes before a module.
    - Attributes are those of the module. A module comes back as an Inspector, all else as it is. The four
      names ``name``, ``parent``, ``module`` and ``select`` yield to an entry of the model that has that
      name.
    - Nothing can be set through it: change the tensors (``inspect(net)[0].bias.data.fill_(1)``), or the
      model.
    """

    __slots__ = ("__key", "__node", "__parent", "__weakref__")

    __key: str
    __node: Node
    __parent: Inspector | None

    def __init__(self, node: Node, parent: Inspector | None = None, key: str = "") -> None:
        object.__setattr__(self, "_Inspector__node", node)
        object.__setattr__(self, "_Inspector__parent", parent)
        object.__setattr__(self, "_Inspector__key", key)

    # --- where it is ---------------------------------------------------------------------------------------

    @property
    def name(self) -> Any:
        """The qualified name below the source; "" for the source itself."""
        entry = self.__entry("name")
        return self.__path() if entry is _MISSING else entry

    @property
    def parent(self) -> Any:
        """The Inspector of the module above, or None."""
        entry = self.__entry("parent")
        if entry is not _MISSING:
            return entry
        above, dot, _ = self.__key.rpartition(".")
        if dot and self.__parent is not None and self.__parent.__entry(self.__key) is _MISSING:
            return self.__parent[above]
        return self.__parent

    @property
    def module(self) -> Any:
        """The module itself, or None where the source has none (a checkpoint, a slice)."""
        entry = self.__entry("module")
        return self.__node.real if entry is _MISSING else entry

    @property
    def select(self) -> Any:
        """``select(pattern)``: the parameters below that match, as ``ParamTable.select`` gives them."""
        entry = self.__entry("select")
        return self.__pyparam_table__().select if entry is _MISSING else entry

    def __path(self) -> str:
        keys = []
        inspector: Inspector | None = self
        while inspector is not None and inspector.__parent is not None:
            if inspector.__key:
                keys.append(inspector.__key)
            inspector = inspector.__parent
        return ".".join(reversed(keys))

    def __where(self) -> str:
        path = self.__path()
        label = self.__node.label
        if not path:
            return label or "the source"
        return f"{path!r} ({label})" if label else repr(path)

    # --- entries -------------------------------------------------------------------------------------------

    def __wrap(self, key: str, node: Node) -> Inspector:
        return Inspector(node, self, key)

    def __entry(self, key: str) -> Any:
        tensor = self.__node.tensor(key)
        if tensor is not None:
            return tensor
        child = self.__node.child(key)
        return _MISSING if child is None else self.__wrap(key, child)

    def __keys(self) -> list[str]:
        """The names of its own entries, in order."""
        tensors = [k for b in (False, True) for k, _ in self.__node.own_tensors(buffers=b)]
        return tensors + [key for key, _ in self.__node.children()]

    def __entries(self) -> list[tuple[str, Tensor | Node]]:
        tensors = [pair for b in (False, True) for pair in self.__node.own_tensors(buffers=b)]
        return [*tensors, *self.__node.children()]

    def __numbered(self) -> tuple[dict[int, tuple[str, Tensor | Node]], bool] | None:
        """Entries by number, and whether they are counted from 0 without gaps; None where it is no list.

        Numbers are the entries' names, or else places in their order.
        """
        entries = self.__entries()
        if self.__node.slice_label is None:
            if entries and all(key.isdecimal() for key, _ in entries):
                return {int(key): (key, entry) for key, entry in entries}, False
            entries = [(key, entry) for key, entry in entries if not isinstance(entry, Tensor)]
            if not entries:
                return None
        return dict(enumerate(entries)), True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self.__node.real is None:
            entry = self.__entry(name)
            if entry is not _MISSING:
                return entry
        try:
            value = self.__node.attribute(name)
        except AttributeError as error:
            names = {*self.__keys(), *self.__node.attribute_names()}
            if name in names:  # it is there, and its own code failed
                raise
            cause = error if self.__node.real is not None else None
            close = _close(name, names)
            raise AttributeError(
                f"{self.__where()} has no parameter, buffer, module or attribute {name!r}{close}"
            ) from cause
        return self.__wrap(name, ModuleNode(value)) if isinstance(value, nn.Module) else value

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.__by_name(key)
        if isinstance(key, slice):
            return self.__slice(key)
        try:
            number = operator.index(key)
        except TypeError:
            if not self.__node.is_container:
                raise TypeError(
                    f"{self.__where()} is indexed by numbers, slices and names, not by {key!r}"
                ) from None
            return self.__ask_container(key)
        if self.__node.is_container:
            return self.__ask_container(number)
        return self.__by_number(number)

    def __by_name(self, name: str) -> Any:
        found, deepest, left = self.__find(name)
        return self.__unknown_name(name, deepest, left) if found is _MISSING else found

    def __find(self, name: str) -> tuple[Any, Inspector, list[str]]:
        """What has this name, or ``_MISSING``; with it the last module on the way, and what is left there."""
        entry = self.__entry(name)
        if entry is not _MISSING:
            return entry, self, []
        if name == "":
            return self, self, []
        parts = name.split(".")
        at, i = self, 0
        while i < len(parts):
            node = at.__node
            # Names with dots in them are rare (a mapping's keys); the shortest that is there is taken.
            for end in range(i + 1, len(parts) + 1):
                key = parts[i] if end == i + 1 else ".".join(parts[i:end])
                if end == len(parts):
                    tensor = node.tensor(key)
                    if tensor is not None:
                        return tensor, at, []
                child = node.child(key)
                if child is not None:
                    at, i = at.__wrap(key, child), end
                    break
            else:
                return _MISSING, at, parts[i:]
        return at, at, []

    def __unknown_name(self, name: str, deepest: Inspector, left: list[str]) -> Any:
        if (
            deepest is self
            and self.__node.is_container
            and not isinstance(self.__node.real, (nn.Sequential, nn.ModuleList))
        ):
            try:
                return self.__ask_container(name)  # a class with names of its own
            except (KeyError, IndexError, TypeError, ValueError):
                pass
        # A name without the parts that wrappers put into it.
        others = answering(self.__node, name)
        if len(others) == 1:
            return self.__find(others[0])[0]
        start = ".".join(name.split(".")[: -len(left)])
        wrong = f"{name!r} is no parameter, buffer or module of {self.__where()}"
        if deepest.__node.tensor(left[0]) is not None:
            tensor = ".".join(filter(None, (start, left[0])))
            below = ".".join(left[1:])
            raise KeyError(
                f"{wrong}: {tensor!r} is a tensor, and names end there; its {below!r} is an attribute"
            )
        if others:
            raise KeyError(wrong + hint(others[:3]))
        close = closest(left[0], deepest.__keys())
        whole = [".".join([key, *left[1:]]) for key in close]
        hints = [
            ".".join(filter(None, (start, k if deepest.__find(w)[0] is _MISSING else w)))
            for w, k in zip(whole, close, strict=True)
        ]
        there = f": there is {start!r}, and no {left[0]!r} in it" if start else ""
        raise KeyError(wrong + there + hint(hints))

    def __ask_container(self, key: Any) -> Any:
        module: Any = self.__node.real
        try:
            value = module[key]
        except (IndexError, KeyError) as error:
            try:
                size = f" of length {len(module)}"
            except TypeError:
                size = ""
            kind: type[LookupError] = IndexError if isinstance(error, IndexError) else KeyError
            close = _close(key, self.__keys()) if isinstance(key, str) else ""
            raise kind(f"{self.__where()}{size} has no {key!r}{close}") from None
        if not isinstance(value, nn.Module):
            return value
        if isinstance(key, int) and isinstance(module, (nn.Sequential, nn.ModuleList)):
            names = list(module._modules)
            if -len(names) <= key < len(names) and module._modules[names[key]] is value:
                return self.__wrap(names[key], ModuleNode(value))
        name = next((k for k, m in module._modules.items() if m is value), str(key))
        return self.__wrap(name, ModuleNode(value))

    def __by_number(self, number: int) -> Any:
        found = self.__numbered()
        if found is None:
            raise TypeError(f"{self.__where()} has no numbered entries, so [{number}] means nothing here")
        entries, _ = found
        wanted = number if number >= 0 else max(entries, default=-1) + 1 + number
        if wanted not in entries:
            there = f"its entries are numbered {ranges(entries)}" if entries else "it is empty"
            raise IndexError(f"{self.__where()} has no [{number}]: {there}")
        key, entry = entries[wanted]
        return entry if isinstance(entry, Tensor) else self.__wrap(key, entry)

    def __slice(self, key: slice) -> Inspector:
        module = self.__node.real if self.__node.is_container else None
        entries: dict[int, tuple[str, Tensor | Node]]
        if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ParameterList)):
            entries = dict(enumerate(self.__entries()))
        elif module is not None:
            value = self.__ask_container(key)
            return value if isinstance(value, Inspector) else inspect(value)
        else:
            found = self.__numbered()
            if found is None:
                raise TypeError(f"{self.__where()} has no numbered entries to slice")
            entries, _ = found
        numbers = range(*key.indices(max(entries, default=-1) + 1))
        chosen = [entries[i] for i in numbers if i in entries]
        parts = ("" if part is None else str(part) for part in (key.start, key.stop, key.step))
        text = ":".join(parts).removesuffix(":") if key.step is None else ":".join(parts)
        text = text if ":" in text else text + ":"
        return Inspector(self.__node.sliced(chosen, f"{self.__node.label}[{text}]"), self)

    def __iter__(self) -> Iterator[Any]:
        """As the module iterates. Without modules: over the entries of a list, over the names of all else."""
        real = self.__node.real
        if real is not None and not isinstance(real, torch.jit.ScriptModule):
            if not self.__node.is_container and not hasattr(type(real), "__iter__"):
                raise TypeError(f"{self.__where()} is not iterable")
            return self.__iterate_container()
        keys = self.__keys()
        if self.__node.slice_label is not None or (keys and all(key.isdecimal() for key in keys)):
            return (
                entry if isinstance(entry, Tensor) else self.__wrap(key, entry)
                for key, entry in self.__entries()
            )
        return iter(keys)

    def __iterate_container(self) -> Iterator[Any]:
        module: Any = self.__node.real
        names = {id(child): key for key, child in reversed(module._modules.items())}
        for item in module:
            if isinstance(item, nn.Module):
                yield self.__wrap(names.get(id(item), ""), ModuleNode(item))
            else:
                yield item

    def __len__(self) -> int:
        real: Any = self.__node.real
        if real is not None and not isinstance(real, torch.jit.ScriptModule):
            try:
                return len(real)
            except TypeError:
                raise TypeError(f"{self.__where()} has no length") from None
        return len(self.__keys())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, item: object) -> bool:
        """Whether a name is that of a parameter, buffer or module below, or an object is an own entry."""
        if isinstance(item, str):
            try:
                self[item]
            except KeyError:
                return False
            return True
        wanted = item.__node.identity if isinstance(item, Inspector) else item
        return any(
            wanted is (entry if isinstance(entry, Tensor) else entry.identity)
            for _, entry in self.__entries()
        )

    def __eq__(self, other: object) -> bool:
        """Two Inspectors of one module are equal, and equal to the module."""
        if isinstance(other, Inspector):
            return bool(self.__node.identity == other.__node.identity)
        if isinstance(other, nn.Module):
            return other is self.__node.real
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.__node.identity)

    # --- what nn.Module has --------------------------------------------------------------------------------

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """As ``nn.Module.named_parameters``: ``prefix`` and a dot before every name, ``recurse=False`` for
        its own alone, ``remove_duplicate=False`` for an object under each of its names. Sources without
        modules list all tensors that are no buffers."""
        return named_tensors(self.__node, False, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """As ``nn.Module.parameters``: those of :meth:`named_parameters`, without names."""
        return (tensor for _, tensor in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """As ``nn.Module.named_buffers``, with the arguments of :meth:`named_parameters`. Sources that do not
        tell buffers from parameters have none."""
        return named_tensors(self.__node, True, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """As ``nn.Module.buffers``: those of :meth:`named_buffers`, without names."""
        return (tensor for _, tensor in self.named_buffers(recurse=recurse))

    def named_modules(
        self, memo: None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Inspector]]:
        """As ``nn.Module.named_modules``, each module as an Inspector, with ``prefix`` before every name and,
        with ``remove_duplicate=False``, one under each of its names. ``memo`` must stay None: TypeError."""
        if memo is not None:
            raise TypeError("named_modules of an Inspector takes no memo")
        for name, node in self.__node.named_nodes(remove_duplicate=remove_duplicate):
            inspector = self.__wrap(name, node) if name else self
            yield (f"{prefix}.{name}" if prefix and name else prefix or name), inspector

    def modules(self) -> Iterator[Inspector]:
        """As ``nn.Module.modules``, each as an Inspector: those of :meth:`named_modules`, without names."""
        return (inspector for _, inspector in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Inspector]]:
        """As ``nn.Module.named_children``, each child once, as an Inspector."""
        seen: set[object] = set()
        for key, node in self.__node.children():
            if node.identity not in seen:
                seen.add(node.identity)
                yield key, self.__wrap(key, node)

    def children(self) -> Iterator[Inspector]:
        """As ``nn.Module.children``, each as an Inspector."""
        return (inspector for _, inspector in self.named_children())

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As ``nn.Module.state_dict``. Sources without modules give their tensors by name, detached."""
        return state_dict_of(self.__node, *args, **kwargs)

    def get_parameter(self, target: str) -> Any:
        """As ``nn.Module.get_parameter``. Raises AttributeError where there is none of that name."""
        return self.__get(target, "parameter")

    def get_buffer(self, target: str) -> Any:
        """As ``nn.Module.get_buffer``. Raises AttributeError where there is none of that name."""
        return self.__get(target, "buffer")

    def get_submodule(self, target: str) -> Inspector:
        """As ``nn.Module.get_submodule``, as an Inspector. Raises AttributeError where there is none."""
        found = self.__get(target, "module")
        assert isinstance(found, Inspector)
        return found

    def __get(self, target: str, kind: str) -> Any:
        """Raises AttributeError, as the methods of nn.Module do."""
        try:
            found = self[target]
            if self.__find(target)[0] is _MISSING:  # it has another name than it was asked for by
                (target,) = answering(self.__node, target)
            path, _, key = target.rpartition(".")
            owner = self[path] if kind != "module" else self
        except KeyError as error:
            raise AttributeError(error.args[0]) from None
        if kind == "module":
            if isinstance(found, Inspector):
                return found
        elif isinstance(owner, Inspector) and key in dict(owner.__own_tensors(kind == "buffer")):
            return found
        raise AttributeError(f"{target!r} of {self.__where()} is no {kind}")

    def __own_tensors(self, buffers: bool) -> list[tuple[str, Tensor]]:
        return self.__node.own_tensors(buffers=buffers)

    # --- protocols -----------------------------------------------------------------------------------------

    def __pyparam_table__(self, *, buffers: bool = False, remove_duplicate: bool = True) -> ParamTable:
        return self.__node.table(buffers=buffers, remove_duplicate=remove_duplicate)

    def __pyparam_module__(self) -> Any:
        return self.__node.real

    def __pyparam_outline__(self) -> tuple[_C.Outline, Node]:
        return self.__node.outline(), self.__node

    def __repr__(self) -> str:
        outline, node = self.__pyparam_outline__()
        return printed(outline, node)

    def _repr_html_(self) -> str:
        outline, node = self.__pyparam_outline__()
        return html(Summary(outline, node.label))

    def __dir__(self) -> list[str]:
        own = [name for name in object.__dir__(self) if not name.startswith("_Inspector__")]
        return sorted({*own, *self.__keys(), *self.__node.attribute_names()})

    def _ipython_key_completions_(self) -> list[str]:
        keys = self.__keys()
        names = self.__node.listing(buffers=False, remove_duplicate=True).names
        return [*keys, *names[:10_000]]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"an Inspector is a view: cannot set {name!r} through it. "
            "Set it on the model, or change the tensor in place"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Inspector is a view: cannot delete {name!r} through it")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Inspector is a view, which is neither copied nor pickled: copy the model")


def _close(name: str, names: Iterable[str]) -> str:
    """A hint at public names like this one; "" where there is none."""
    return hint(closest(name, [other for other in names if not other.startswith("_")]))
