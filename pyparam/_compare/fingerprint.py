"""``fingerprint``: 128 bits a parameter and for the whole, to find where two copies of a model diverge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyparam._base.closest import missing
from pyparam._base.errors import named_errors
from pyparam._base.modes import require_memory
from pyparam._base.native import _C
from pyparam._base.pending import Pending, settled
from pyparam._base.wrappers import Names
from pyparam._compare.whole_fingerprint import digests_of
from pyparam._parts.parts import has_parts, refuse_flat
from pyparam._sources import path
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.saved import is_on_disk, saved
from pyparam._sources.table import ParamTable

__all__ = ["Fingerprint", "fingerprint"]

_KIND = "pyparam.fingerprint"
_BYTES = 16
_BATCH = 128 << 20


class Fingerprint:
    """128 bits for each parameter, and 128 for all of them with their names. Made by :func:`fingerprint`.

    ``fp.total`` and ``fp["0.weight"]`` are 32 hexadecimal digits; ``fp.names`` are the names in table order,
    ``len(fp)`` is their number and ``name in fp`` asks for one. Two fingerprints are equal when their totals
    and ``values`` are and nothing is ``unseen``; equal ones hash alike. ``a.diff(b)`` names what differs.
    Iterating gives (name, digits) pairs.
    """

    __slots__ = ("_found", "_listed", "_positions", "diverged", "unseen", "values")

    values: dict[str, str]
    """Plain values that the state holds beside tensors, as text; equal fingerprints have equal ones."""

    unseen: dict[str, str]
    """What the state holds that was not looked at; with any of it a fingerprint equals no other."""

    diverged: list[tuple[str, tuple[int, ...]]]
    """Parameters that are not the same bits on all ranks that should repeat them, each with the ranks that
    hold something else than most of the others (of two that differ, the later one)."""

    format: int = _C.FINGERPRINT_FORMAT
    """The number of the formula. Fingerprints of different formats do not compare."""

    def __init__(
        self,
        names: Sequence[str] | _C.NameColumn,
        found: tuple[bytes, bytes] | Pending[tuple[bytes, bytes]],
    ) -> None:
        # A column becomes strings, and names are put into a dict, when someone asks for a name.
        self._listed = names if isinstance(names, _C.NameColumn) else tuple(names)
        self._positions: Names | None = None
        self._found = found  # the digests, and the total
        self.diverged = []
        self.values, self.unseen = {}, {}

    @property
    def _by_name(self) -> Names:
        if self._positions is None:
            self._positions = Names({name: i for i, name in enumerate(self.names)})
        return self._positions

    @property
    def _index(self) -> Mapping[str, int]:
        return self._by_name.exact

    def __getstate__(self) -> tuple[Any, ...]:
        return self.names, self._bytes, self.diverged, self.values, self.unseen

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._listed, self._found, self.diverged, self.values, self.unseen = state
        self._positions = None

    @property
    def _bytes(self) -> tuple[bytes, bytes]:
        """Brought from the device when someone first asks."""
        return settled(self)

    @property
    def _digests(self) -> bytes:
        return self._bytes[0]

    @property
    def _total(self) -> bytes:
        return self._bytes[1]

    @property
    def total(self) -> str:
        """Over all names and their digests, in whatever order: 32 hexadecimal digits."""
        return self._total.hex()

    @property
    def names(self) -> tuple[str, ...]:
        if not isinstance(self._listed, tuple):
            self._listed = tuple(self._listed.strings())
        return self._listed

    def _digest(self, index: int) -> bytes:
        return self._digests[index * _BYTES : (index + 1) * _BYTES]

    def __getitem__(self, name: str) -> str:
        """The digits of one parameter, over its element type, shape and values, not its name."""
        row = self._by_name.find(name)
        if row is None:
            raise missing(name, self.names, "a fingerprint")
        return self._digest(row).hex()

    def __contains__(self, name: object) -> bool:
        return self._by_name.find(name) is not None

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name, self._digest(i).hex()) for i, name in enumerate(self.names))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        if self is other:
            return True
        return (
            self._total == other._total and self.values == other.values and not (self.unseen or other.unseen)
        )

    def __hash__(self) -> int:
        return hash(self._total)

    def diff(self, other: Fingerprint) -> list[str]:
        """Names whose digests differ, and those that one side lacks: this one's order, then the other's.

        Raises TypeError for what is no Fingerprint.
        """
        if not isinstance(other, Fingerprint):
            raise TypeError(f"Fingerprint.diff: expected a Fingerprint, got {type(other).__name__}")
        theirs = other._index
        changed = [
            name
            for i, name in enumerate(self.names)
            if (j := theirs.get(name)) is None or self._digest(i) != other._digest(j)
        ]
        return changed + [name for name in other.names if name not in self._index]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, to lie beside a checkpoint; :meth:`from_dict` reads it back."""
        made = {"kind": _KIND, "format": self.format, "total": self.total, "parameters": dict(self)}
        if self.values:
            made["values"] = dict(self.values)
        if self.unseen:
            made["unseen"] = dict(self.unseen)
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fingerprint:
        """The Fingerprint that :meth:`to_dict` wrote.

        Raises ValueError for data of another kind or format, and where the total does not belong to the
        parameters (a damaged or edited file); TypeError for what is no mapping.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"Fingerprint.from_dict: expected a mapping, got {type(data).__name__}")
        if data.get("kind") != _KIND:
            raise ValueError(f"Fingerprint.from_dict: expected kind {_KIND!r}, got {data.get('kind')!r}")
        if data.get("format") != cls.format:
            raise ValueError(
                f"Fingerprint.from_dict: format {data.get('format')!r} is not the format {cls.format} of "
                "this release; take the fingerprint anew"
            )
        parameters = data.get("parameters")
        if not isinstance(parameters, Mapping):
            raise ValueError("Fingerprint.from_dict: 'parameters' must map names to digits")
        names = [str(name) for name in parameters]
        digests = b"".join(_parse(name, digits) for name, digits in parameters.items())
        total = _C.fingerprint_total(_C.NameColumn(names), digests)
        if _parse("total", data.get("total")) != total:
            raise ValueError(
                "Fingerprint.from_dict: the total does not belong to these parameters; the data is damaged"
            )
        made = cls(names, (digests, total))
        made.values = dict(data.get("values") or {})
        made.unseen = dict(data.get("unseen") or {})
        return made

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return f"Fingerprint({self.total}, {len(self):,} parameter{plural})"


def _parse(name: str, digits: object) -> bytes:
    try:
        if not isinstance(digits, str) or len(digits) != 2 * _BYTES:
            raise ValueError
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(
            f"Fingerprint.from_dict: {name!r} must be {2 * _BYTES} hexadecimal digits, got {digits!r}"
        ) from None


def fingerprint(source: Any, *, group: Any = None) -> Fingerprint:
    """128 bits for each parameter of a source and for the whole, by one pass over the bytes.

    Use it to find divergence: whether ranks, a checkpoint and its reload, or two runs hold the same values,
    and which parameters do not. It is no defence against someone who chooses the values: **not for
    security**.

    A parameter's 128 bits are over its element type, shape and the bytes of its elements in row-major order,
    little-endian. Every bit counts: 0.0 and -0.0 differ, as do NaNs of different payload. What does not
    count: strides and storage (a channels-last, transposed or expanded tensor gives what its contiguous copy
    gives), the device, the number of threads, ``requires_grad``. Conjugated and negated views count as their
    values. ``total`` is over all pairs of name and parameter, in any order: two state dicts that list the
    same entries differently agree.

    Two different contents agree by chance once in 2^128; contents that differ in two words of eight bytes,
    once in 2^97 or less often. Fingerprints of equal :attr:`Fingerprint.format` compare across machines,
    devices and releases. On a CUDA device nothing waits until someone reads from the Fingerprint.

    Args:
        source: anything with parameters. A module counts with what its ``state_dict()`` holds: parameters
            and persistent buffers, tied ones under each name. So a model and its checkpoint agree.
        group: a process group whose ranks should hold the same ordinary tensors, as with
            ``DistributedDataParallel``; ``diverged`` tells which are not. Each of its ranks must call.

    DTensors count as wholes: a sharded model has the fingerprint of the unsharded one and of its checkpoint,
    on every rank. All ranks that hold parts must call, as for ``measure``; they exchange 16 bytes a parameter
    for what is split (8 more for each word of eight bytes that a cut goes through), and 16 to find out
    whether what is replicated is the same.

    Raises:
        TypeError: a parameter is sparse, quantized, nested, another ``__torch_dispatch__`` subclass than
            DTensor, a DTensor placed ``Partial`` or without one block here, or a piece of a parameter that
            FullyShardedDataParallel flattened.
        ValueError: a parameter is on the meta device or has no data yet; two have the same name; ranks call
            with different parameters.
        RuntimeError: for ranks that did not call within the group's timeout.
    """
    require_memory("fingerprint")
    if path.accepts(source):
        source = path.open(source)
    batches = source.batches(_BATCH) if isinstance(source, Checkpoint) and group is None else None
    state = saved(source, values=batches is None)
    refuse_flat("fingerprint", state.table)
    if batches is not None:
        result = _of_batches(source, batches)
    else:
        result = _taken(state.table, group, is_on_disk(source))
    # As text, so that what is read back from JSON compares with what is taken anew.
    result.values = {name: repr(value) for name, value in state.values.items()}
    result.unseen = state.unseen
    return result


def _of_batches(source: Checkpoint, batches: Iterator[list[str]]) -> Fingerprint:
    """Of a checkpoint whose tensors take memory of their own, some of them at a time."""
    names: list[str] = []
    digests = []
    for some in batches:
        names += some
        digests.append(_taken(ParamTable(some, [source[name] for name in some]), None, False)._digests)
    joined = b"".join(digests)
    return Fingerprint(names, (joined, _C.fingerprint_total(_C.NameColumn(names), joined)))


def _taken(table: ParamTable, group: Any, on_disk: bool) -> Fingerprint:
    if group is not None or has_parts(table):
        return _of_parts(table, group)
    with named_errors(table):
        names, found = _C.fingerprint(table._native, on_disk)
    if not names.unique:
        _check_unique(table)
    if isinstance(found, tuple):
        return Fingerprint(names, found)
    return Fingerprint(names, Pending([found], lambda digests: _C.fingerprint_of(names, digests)))


def _of_parts(table: ParamTable, group: Any) -> Fingerprint:
    _check_unique(table)
    digests, diverged = digests_of(table, group)
    result = Fingerprint(table.names, _C.fingerprint_of(_C.NameColumn(table.names), digests))
    result.diverged = diverged
    return result


def _check_unique(table: ParamTable) -> None:
    if len(set(table.names)) != len(table):
        raise ValueError(
            f"fingerprint: two parameters are named {_first_repeated(table.names)!r}; names must be unique"
        )


def _first_repeated(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name is repeated")
