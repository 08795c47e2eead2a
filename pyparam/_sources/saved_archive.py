"""What ``torch.save`` writes into an archive, read as plain data."""

from __future__ import annotations

from typing import Any

from pyparam._sources.archive import Archive
from pyparam._sources.inert import InertWorld
from pyparam._sources.unpickle import unpickled

_LONGEST = 6 << 20
"""A pickle may unpack to this, plus four times the archive's size."""


def saved_in(archive: Archive) -> tuple[str, Any]:
    """What ``torch.save`` wrote into an archive, and the folder all its members are in."""
    pickles = [name for name in archive.members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{archive.path.name} has an archive that torch.save did not write")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive and archive.read(order, 16).strip() not in (b"little", b""):
        raise ValueError(f"{archive.path.name} was written on a machine of another byte order")
    return root, unpickled(archive.read(pickles[0], _LONGEST + 4 * archive.length), InertWorld())


class Unread:
    """Stands for an entry that could not be read, and says why."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"<not read: {self.why}>"
