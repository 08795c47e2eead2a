"""ParamTable, the seam between the walk and the bulk verbs."""

from __future__ import annotations

import fnmatch
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, TypeAlias, overload

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.closest import missing
from pyparam._base.native import _C
from pyparam._base.words import a_kind, dtype_name, plain
from pyparam._base.wrappers import Names, other_names

Owner: TypeAlias = "weakref.ref[nn.Module] | None"
# Owners as they are, or a function that finds them when someone asks.
Owners: TypeAlias = "Sequence[Owner] | Callable[[], Sequence[Owner]]"
Predicate: TypeAlias = Callable[[str, Tensor], bool]
Pattern: TypeAlias = "str | re.Pattern[str] | Predicate | Iterable[Pattern]"

_SHOWN = 6


class ParamTable:
    """What a walk saw: qualified names, tensors, owning modules and attribute names, as columns in order.

    A table keeps its tensors alive and nothing else: the owning modules are held weakly. It does not follow
    later changes of the model, but where PyTorch swaps tensors (``torch.utils.swap_tensors``), since there
    the objects stay and what they are changes. Two tables are equal when they are the same object.
    """

    __slots__ = ("__weakref__", "_index", "_names", "_native", "_owners")

    def __init__(self, names: Sequence[str], tensors: Sequence[Tensor], owners: Owners | None = None) -> None:
        # Holds Python's objects, and lends their tensors to native code for the length of a call: one that
        # native code held could not be swapped (torch.utils.swap_tensors), which is how PyTorch converts
        # models of tensor subclasses, and any in its swap mode.
        self._native = _C.ParamTable(names, tensors)
        self._owners = owners
        self._names: list[str] | None = None
        self._index: Names | None = None

    @classmethod
    def from_native(
        cls, native: _C.ParamTable, owners: Owners | None = None, names: list[str] | None = None
    ) -> ParamTable:
        """Wraps the native table that a walk made; ``owners`` has one entry a row, ``names`` are those of the
        table where somebody has them as strings already."""
        table = cls.__new__(cls)
        table._native = native
        table._owners = owners
        table._names = names
        table._index = None
        return table

    # What verbs ask of all rows, which a table may know without having the tensors.

    def _layout_kinds(self) -> _C.LayoutKinds:
        return _C.layout_kinds(self._native)

    def _name_tree(self) -> _C.NameTree:
        return _C.name_tree(self._native)

    def _python_tensors(self) -> list[int]:
        return _C.python_tensors(self._native)

    def _apart_sets(self) -> _C.TieSets | None:
        """``tie_sets`` where it is known that no entry shares memory; None where somebody has to look."""
        return None

    def _measured(self, histogram: bool, maps: list[tuple[int, int]]) -> _C.Measurement | None:
        """What measuring gives; None where it takes the tensors."""
        return None

    def _compared(self) -> _C.ParamTable | tuple[list[str], _C.MappedRows]:
        """The table as one side of a comparison."""
        return self._native

    def _under(self, names: list[str]) -> ParamTable:
        """The same entries under other names."""
        return ParamTable(names, self.tensors, self._owners)

    @property
    def names(self) -> list[str]:
        """The qualified names."""
        if self._names is None:
            self._names = self._native.names
        return self._names

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors: the very objects the source holds."""
        return self._native.tensors

    @property
    def attributes(self) -> list[str]:
        """The name each tensor has in its owner: "bias" for "0.block 1.0.bias"."""
        return self._native.attributes

    @property
    def owners(self) -> list[nn.Module | None]:
        """The module that holds each tensor; None where the source has no modules, or where it is gone."""
        if self._owners is None:
            return [None] * len(self)
        return [None if owner is None else owner() for owner in self._owner_references()]

    def _owner_references(self) -> Sequence[Owner]:
        owners = self._owners
        if callable(owners):
            owners = self._owners = owners()
        return owners or ()

    def __len__(self) -> int:
        return len(self._native)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return zip(self.names, self.tensors, strict=True)

    def __contains__(self, name: object) -> bool:
        return self._positions().find(name) is not None

    @overload
    def __getitem__(self, key: str | int) -> Tensor: ...
    @overload
    def __getitem__(self, key: slice) -> ParamTable: ...
    def __getitem__(self, key: str | int | slice) -> Tensor | ParamTable:
        """The tensor of a qualified name or at a position; a table for a slice.

        Raises KeyError for a name that is not there, IndexError for a position that is not.
        """
        if isinstance(key, str):
            position = self._positions().find(key)
            if position is None:
                raise missing(key, self.names, "a table")
            return self._tensor(position)
        if isinstance(key, slice):
            return self._take(range(len(self))[key])
        try:
            position = range(len(self))[key]
        except TypeError:
            raise TypeError(
                f"a table is indexed by a name, a position or a slice, not by {a_kind(key)}"
            ) from None
        except IndexError:
            raise IndexError(f"position {key} is outside a table of {len(self)} entries") from None
        return self._tensor(position)

    def _tensor(self, position: int) -> Tensor:
        return self._native.tensor(position)

    def _positions(self) -> Names:
        if self._index is None:
            # Backwards, so that the first of several entries with one name is the one found.
            names = self.names
            self._index = Names({names[i]: i for i in range(len(names) - 1, -1, -1)})
        return self._index

    def select(self, pattern: Pattern) -> ParamTable:
        """The entries that match, in table order, as a table with the same tensors and owners.

        Args:
            pattern: one of

                - a glob, which the whole name must match: ``*`` is any run of characters, dots among them,
                  ``?`` any character, ``[abc]`` and ``[!abc]`` one of a set; case counts. ``"*.bias"``,
                  ``"layers.*.weight"``.
                - a compiled regular expression, searched for anywhere in the name (anchor it with ``^`` and
                  ``$``).
                - a predicate ``(name, tensor) -> bool``.
                - an iterable of these: an entry is taken when any of them takes it.

        Raises:
            TypeError: for any other pattern.
        """
        wanted = matcher(pattern)
        if isinstance(wanted, ByName):
            rows = taken(self.names, wanted)
        else:
            rows = [i for i, (name, tensor) in enumerate(self) if wanted(name, tensor)]
        return self._take(rows)

    def _take(self, positions: Sequence[int]) -> ParamTable:
        owners: Owners | None = None
        if self._owners is not None:
            known = self._owner_references()
            owners = [known[i] for i in positions]
        return ParamTable.from_native(self._native.take(list(positions)), owners)

    def __repr__(self) -> str:
        count = len(self)
        lines = [f"ParamTable of {count} {'entry' if count == 1 else 'entries'}"]
        shown = range(count) if count <= _SHOWN + 1 else range(_SHOWN)
        names = [plain(self.names[i]) for i in shown]
        width = max(map(len, names), default=0)
        lines += [
            f"  {name:<{width}}  {_described(self._tensor(i))}" for i, name in zip(shown, names, strict=True)
        ]
        if len(shown) < count:
            lines.append(f"  ... {count - len(shown)} more")
        return "\n".join(lines)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a ParamTable refers to a live model and cannot be pickled or copied; "
            "dict(table) gives a plain state dict"
        )


class ByName:
    """A pattern that looks at the name alone."""

    __slots__ = ("matches",)

    def __init__(self, matches: Callable[[str], object]) -> None:
        self.matches = matches

    def __call__(self, name: str, tensor: Tensor) -> bool:
        return bool(self.matches(name))

    def takes(self, *names: str) -> bool:
        """Whether it takes what answers to these names."""
        return any(map(self.matches, names))


def taken(names: Sequence[str], wanted: ByName) -> list[int]:
    """The positions of the names that a pattern takes, also without the parts that wrappers put into them."""
    others, takes = other_names(names), wanted.takes
    return [i for i, name in enumerate(names) if (takes(name, others[i]) if i in others else takes(name))]


def matcher(pattern: Pattern) -> Predicate:
    if isinstance(pattern, str):
        return ByName(re.compile(fnmatch.translate(pattern)).match)
    if isinstance(pattern, re.Pattern):
        if not isinstance(pattern.pattern, str):
            raise TypeError("select: a regular expression over bytes matches no name; compile it from a str")
        return ByName(pattern.search)
    if callable(pattern):
        return pattern
    if not isinstance(pattern, Iterable) or isinstance(pattern, (bytes, Tensor)):
        raise TypeError(
            "select: expected a glob, a compiled regular expression, a predicate (name, tensor) or an "
            f"iterable of these, got {a_kind(pattern)}"
        )
    parts = [matcher(part) for part in pattern]
    by_name = [part.matches for part in parts if isinstance(part, ByName)]
    if len(by_name) == len(parts):
        return ByName(lambda name: any(matches(name) for matches in by_name))
    return lambda name, tensor: any(part(name, tensor) for part in parts)


def _described(tensor: Tensor) -> str:
    dtype = dtype_name(tensor.dtype)
    if is_lazy(tensor):
        return f"{dtype} uninitialized"
    if tensor.is_nested and tensor.layout == torch.strided:
        return f"{dtype} nested"
    return f"{dtype} {list(tensor.shape)}"
