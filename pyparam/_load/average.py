"""copy_ and EMA: values from one model into another of the same structure, whole or as a running average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from pyparam._base.extent import require_extent, require_shape
from pyparam._base.modes import lasting, require_memory
from pyparam._base.native import _C
from pyparam._load.values import state_of
from pyparam._parts.parts import parts_of
from pyparam._parts.place import dtensor_type
from pyparam._share.ties import ties_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable


def copy_(target: Any, source: Any, *, lerp: float | None = None) -> None:
    """Copies all values of one model into another of the same structure, in place.

    Of a DTensor each rank takes its own part, without communication.

    Args:
        target: a model, table or state dict, whose tensors are written: parameters and buffers.
        source: another with the same names and shapes.
        lerp: moves floating-point and complex values only this part of the way,
            ``target + lerp * (source - target)``, as for an exponential average; others are copied.

    Raises:
        TypeError: no source, a tensor that cannot be written or read (meta, sparse, wrapper), or a DTensor
            whose source is placed otherwise.
        ValueError: other names or shapes, a ``lerp`` outside [0, 1], with ``lerp`` targets that share memory,
            and floating-point tensors of two dtypes. Nothing is written.
    """
    require_memory("copy_")
    if lerp is not None and not 0 <= _number("copy_", "lerp", lerp) <= 1:
        raise ValueError(f"copy_: lerp must be in [0, 1], got {lerp}")
    to, of = (table_of(s, buffers=True, remove_duplicate=False) for s in (target, source))
    names = to.names
    if names == of.names:
        pairs = list(zip(to.tensors, of.tensors, strict=True))
    else:
        by_name = dict(of)
        if by_name.keys() != set(names):
            only = sorted(by_name.keys() ^ set(names))[:5]
            raise ValueError(f"copy_: only one side has {', '.join(map(repr, only))}")
        pairs = [(tensor, by_name[name]) for name, tensor in to]
    targets, sources = [t for t, _ in pairs], [s for _, s in pairs]
    for name, t, s in zip(names, targets, sources, strict=True):
        require_shape(f"copy_: {name!r}", t)
        require_shape(f"copy_: the source of {name!r}", s)
        if t.shape != s.shape:
            raise ValueError(f"copy_: {name!r} has shape {list(t.shape)}, and its source {list(s.shape)}")
    if lerp is None:
        _copied("copy_", names, targets, sources)
        return
    once = {id(t): (name, t, s) for name, t, s in zip(names, targets, sources, strict=True)}
    rows = list(once.values())
    shared = ties_of(ParamTable([row[0] for row in rows], [row[1] for row in rows]))
    if shared:
        a, b = shared[0].names[:2]
        raise ValueError(f"copy_: {a!r} and {b!r} share memory, which lerp= would move twice")
    _averaged("copy_", rows, lerp)


class EMA:
    """The exponential moving average of a model's values.

    ``average = decay * average + (1 - decay) * value`` at each :meth:`update`, for parameters and persistent
    buffers; what is not floating-point or complex is copied. It begins with the model's values. The model is
    held.

    Args:
        model: the module to average.
        decay: in [0, 1], without a unit; 0.999 averages over about 1000 updates.

    Raises:
        TypeError: no module. ValueError: a ``decay`` outside [0, 1].
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        require_memory("EMA")
        if not isinstance(model, nn.Module):
            raise TypeError(f"EMA: expected an nn.Module, got {type(model).__name__}")
        if not 0 <= _number("EMA", "decay", decay) <= 1:
            raise ValueError(f"EMA: decay must be in [0, 1], got {decay}")
        self._model = model
        self._decay = decay
        for name, tensor in self._tensors().items():
            _require_whole(f"EMA: {name!r}", tensor)
        with lasting():
            self._averages = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        self._table = ParamTable(list(self._averages), list(self._averages.values()))

    @property
    def decay(self) -> float:
        """The part of the average that an update keeps."""
        return self._decay

    def _tensors(self) -> dict[str, Tensor]:
        state = state_of(self._model, keep_vars=True)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}

    def _rows(self, verb: str) -> list[tuple[str, Tensor, Tensor]]:
        require_memory(verb)
        now = self._tensors()
        if now.keys() != self._averages.keys():
            only = sorted(now.keys() ^ self._averages.keys())[:5]
            raise ValueError(f"{verb}: the model's names changed: {', '.join(map(repr, only))}")
        rows = [(name, average, now[name]) for name, average in self._averages.items()]
        for name, average, tensor in rows:
            _require_whole(f"{verb}: {name!r}", tensor)
            if average.shape != tensor.shape:
                raise ValueError(
                    f"{verb}: {name!r} has shape {list(tensor.shape)}, expected {list(average.shape)}"
                )
        return rows

    def update(self) -> None:
        """Moves the averages towards the model's values.

        Raises ValueError, with nothing written, where names or shapes of the model have changed.
        """
        require_memory("EMA.update")
        pairs = _C.match_table(self._model, self._table._native)
        if pairs is not None and not pairs.unexpected and not pairs.conversions:
            try:
                pairs.lerp_sources(1 - self._decay)
                return
            except (TypeError, ValueError):
                pass  # nothing is written, and below it is said of a name
        _averaged("EMA.update", self._rows("EMA.update"), 1 - self._decay)

    def swap(self) -> None:
        """Exchanges the model's values and the averages, in place; once more puts them back.

        Raises what ``update`` raises.
        """
        rows = self._rows("EMA.swap")
        names, averages, tensors = _columns(rows)
        held = [tensor.detach().clone() for tensor in tensors]
        _copied("EMA.swap", names, tensors, averages)
        _copied("EMA.swap", names, averages, held)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under the names of the model's state dict; they are not copied."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes averages that :meth:`state_dict` gave. Raises ValueError for other names or shapes."""
        copy_(self._averages, dict(state))

    def __repr__(self) -> str:
        return f"EMA of {type(self._model).__name__}, {len(self._averages)} tensors, decay {self._decay}"


def _number(verb: str, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{verb}: {what} must be a number, got {type(value).__name__}")
    return float(value)


def _averaged(verb: str, rows: list[tuple[str, Any, Any]], weight: float) -> None:
    names, targets, sources = _columns(rows)
    targets, sources = _locals(verb, names, targets, sources)
    with _named(verb, names):
        _C.lerp_tensors(targets, sources, weight)


def _require_whole(what: str, tensor: Tensor) -> None:
    require_shape(what, tensor)
    require_extent(what, tensor)


def _columns(rows: list[tuple[str, Any, Any]]) -> tuple[list[str], list[Tensor], list[Tensor]]:
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _copied(verb: str, names: list[str], targets: list[Tensor], sources: list[Tensor]) -> None:
    targets, sources = _locals(verb, names, targets, sources)
    with _named(verb, names):
        _C.copy_tensors(targets, sources)


def _locals(
    verb: str, names: list[str], targets: list[Tensor], sources: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """What this rank holds of DTensors, and the parts of plain sources that belong there.

    Raises TypeError for a DTensor without a block here, or that its source is not placed like.
    """
    kind = dtensor_type()
    if kind is None or not any(isinstance(tensor, kind) for tensor in (*targets, *sources)):
        return targets, sources
    ours = parts_of(verb, ParamTable(names, targets))
    theirs = parts_of(verb, ParamTable(names, sources), " of the source")
    of = theirs.locals.tensors
    for row, name in enumerate(names):
        if not isinstance(targets[row], kind):
            if isinstance(sources[row], kind):
                raise TypeError(
                    f"{verb}: {name!r} is a DTensor in the source and none in the target; full_tensor() "
                    "gathers it"
                )
        elif not isinstance(sources[row], kind):
            of[row] = ours.place(row).of(sources[row])
        elif ours.place(row).layout != theirs.place(row).layout:
            raise TypeError(
                f"{verb}: {name!r} is a DTensor placed {sources[row].placements} in the source and "  # type: ignore[attr-defined]
                f"{targets[row].placements} in the target; redistribute() it first"  # type: ignore[attr-defined]
            )
    return ours.locals.tensors, of


@contextlib.contextmanager
def _named(verb: str, names: list[str]) -> Iterator[None]:
    """What native code says of ``tensors[i]``, said of the name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error).partition(": ")[2]
        number = text.partition("tensors[")[2].partition("]")[0]
        name = repr(names[int(number)]) if number.isdigit() else "a tensor"
        raise type(error)(f"{verb}: {name}{text.partition(']')[2] if number else f': {error}'}") from None
