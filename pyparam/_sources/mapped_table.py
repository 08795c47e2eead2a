"""Tables over mapped files: a tensor is made when somebody asks for it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

from torch import Tensor

from pyparam._base.native import _C
from pyparam._sources.table import ParamTable


class MappedTable(ParamTable):
    """A table that knows of each row where it lies, and has no tensors until it is asked for them.

    One row's is made by itself, and is the same object while somebody holds it. What else takes tensors makes
    all of them, which then stay.
    """

    __slots__ = ("_all", "_live", "_rows")

    _rows: _C.MappedRows
    _live: weakref.WeakValueDictionary[int, Tensor]
    _all: _C.ParamTable | None

    @classmethod
    def over(cls, rows: _C.MappedRows, names: list[str], live: Mapping[int, Tensor]) -> MappedTable:
        """``live`` are tensors that somebody holds already, by row."""
        table = cls.__new__(cls)
        table._rows = rows
        table._names = names
        table._live = weakref.WeakValueDictionary(live)
        table._all = None
        table._owners = table._index = None
        return table

    @property
    def _native(self) -> _C.ParamTable:  # type: ignore[override]
        if self._all is None:
            self._all = self._rows.table(self.names, dict(self._live))
        return self._all

    def __len__(self) -> int:
        return len(self._rows)

    def _tensor(self, position: int) -> Tensor:
        if self._all is not None:
            return super()._tensor(position)
        found = self._live.get(position)
        if found is None:
            found = self._live[position] = self._rows.tensor(position)
        return found

    def _take(self, positions: Sequence[int]) -> ParamTable:
        if self._all is not None:
            return super()._take(positions)
        rows = list(positions)
        live = dict(self._live)
        kept = {i: live[row] for i, row in enumerate(rows) if row in live} if live else {}
        names = self.names
        return MappedTable.over(self._rows.take(rows), [names[row] for row in rows], kept)

    def _layout_kinds(self) -> _C.LayoutKinds:
        return self._rows.layout_kinds() if self._all is None else super()._layout_kinds()

    def _name_tree(self) -> _C.NameTree:
        return _C.name_tree(self.names)

    def _python_tensors(self) -> list[int]:
        return [] if self._all is None else super()._python_tensors()

    def _apart_sets(self) -> _C.TieSets | None:
        return self._rows.apart_sets() if self._all is None else None

    def _measured(self, histogram: bool, maps: list[tuple[int, int]]) -> _C.Measurement | None:
        return _C.measure_rows(self._rows, histogram, maps) if self._all is None else None

    def _compared(self) -> _C.ParamTable | tuple[list[str], _C.MappedRows]:
        if self._all is None and self._rows.in_place:
            return self.names, self._rows
        return super()._compared()

    def _under(self, names: list[str]) -> ParamTable:
        if self._all is None:
            return MappedTable.over(self._rows, names, dict(self._live))
        return super()._under(names)
