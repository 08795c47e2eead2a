"""Zip archives as torch writes and finds them, read strictly: one meaning for every reader, or a refusal.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. Two readers can see two files in one archive
where it is ambiguous; here whatever is ambiguous is a ValueError that names the file, and the member.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn

if TYPE_CHECKING:
    from typing_extensions import Buffer

_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_LOCAL = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # encrypted, strongly so, headers too
_LONGEST_COMMENT = 0xFFFF

MOST_MEMBERS = 4_000_000
"""An archive with more is refused."""
LARGEST_RATIO = 1032
"""How far deflate can compress; what claims more is no deflated data."""
MOST_UNPACKED = 64 << 20
"""Compressed members may unpack to this, plus twenty times the archive's size, together."""


class Member(NamedTuple):
    """What the central directory says of a member. Sizes and places are bytes."""

    name: str
    method: int
    header: int
    """Where its local header is."""
    packed: int
    size: int


class Archive:
    """The members of one archive, which may lie inside a larger file.

    Members whose names differ by case alone are one to torch, so reading either is refused.
    """

    def __init__(self, path: Path, file: BinaryIO, begin: int = 0, length: int | None = None) -> None:
        """Raises ValueError that names the file for what is no archive, or is one of several meanings."""
        self.path = path
        self._file = file
        self._begin = begin
        size = os.fstat(file.fileno()).st_size
        self.length = size - begin if length is None else length
        if begin < 0 or self.length < 0 or begin + self.length > size:
            self._broken("it is truncated")
        self._unpacked = 0
        self._places: dict[str, int] = {}
        self.members: dict[str, Member] = {}
        """By name, in the order of the directory."""
        self._folded: dict[str, int] = {}
        self._read_directory()

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str, most: int | None = None) -> bytes:
        """A member's bytes, unpacked. Raises ValueError for one that is not there, or larger than
        ``most``."""
        member = self._member(name)
        if most is not None and member.size > most:
            self._broken(f"its member {name!r} has {member.size} bytes, at most {most} were expected")
        if member.method == _STORED:
            return self._bytes(self.place(name) - self._begin, member.size)
        self.count_unpacked(name)
        return self.unpacked(name, self._bytes(self.place(name) - self._begin, member.packed))

    def start(self, name: str, most: int) -> bytes:
        """A member's first bytes, unpacked."""
        member = self._member(name)
        data = self._bytes(self.place(name) - self._begin, min(member.packed, most))
        return data if member.method == _STORED else self._inflated(name, data, min(member.size, most))[0]

    def count_unpacked(self, name: str) -> None:
        """Raises ValueError where the compressed members that were counted unpack to too much together."""
        self._unpacked += self._member(name).size
        allowed = MOST_UNPACKED + 20 * self.length
        if self._unpacked > allowed:
            self._broken(f"its compressed members unpack to more than {allowed} bytes")

    def unpacked(self, name: str, packed: Buffer) -> bytes:
        """A compressed member's bytes, from those that lie in the file; needs no open file."""
        size = self._member(name).size
        data, ended = self._inflated(name, packed, size + 1)
        if len(data) != size or not ended:
            self._broken(f"its member {name!r} does not unpack to the {size} bytes it says")
        return data

    def _inflated(self, name: str, packed: Buffer, most: int) -> tuple[bytes, bool]:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return inflate.decompress(packed, most), inflate.eof
        except zlib.error as error:
            self._broken(f"its member {name!r} cannot be unpacked: {error}")

    def place(self, name: str) -> int:
        """Where a member's bytes begin in the file."""
        if name in self._places:
            return self._places[name]
        member = self._member(name)
        fields = self._bytes(member.header, 30)
        signature, flags, method = fields[:4], *struct.unpack("<HH", fields[6:10])
        name_length, extra_length = struct.unpack("<HH", fields[26:30])
        if signature != _LOCAL:
            self._broken(f"its member {name!r} is not where the directory says")
        if flags & _ENCRYPTED:
            self._broken(f"its member {name!r} is encrypted")
        if method != member.method or self._bytes(member.header + 30, name_length) != name.encode():
            self._broken(f"its member {name!r} differs from what its own header says")
        begin: int = member.header + 30 + name_length + extra_length
        if begin + member.packed > self._directory:
            self._broken(f"its member {name!r} reaches beyond its end: it is truncated")
        self._places[name] = self._begin + begin
        return self._begin + begin

    def is_stored(self, name: str) -> bool:
        """Whether a member's bytes lie in the file as they are."""
        return self._member(name).method == _STORED

    def _member(self, name: str) -> Member:
        member = self.members.get(name)
        if member is None:
            self._broken(f"it has no member {name!r}")
        if self._folded[name.lower()] > 1:
            self._broken(f"it has several members named {name!r}, but for case")
        return member

    def _bytes(self, begin: int, count: int) -> bytes:
        if begin < 0 or count < 0 or begin + count > self.length:
            self._broken("it is truncated")
        parts = []
        place, left = self._begin + begin, count
        while left > 0:
            part = os.pread(self._file.fileno(), min(left, 1 << 30), place)
            if not part:
                self._broken("it is truncated")
            parts.append(part)
            place, left = place + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_directory(self) -> None:
        at = self._end()
        end = self._bytes(at, 22)
        disk, first_disk, here, count, size, offset, comment = struct.unpack("<4H2IH", end[4:])
        if at + 22 + comment != self.length:
            self._broken("it is truncated, or something follows its end")
        last = at
        if at >= 20 and self._bytes(at - 20, 4) == _LOCATOR64:
            # As miniz does: where there is a locator, its record counts.
            last, disk, first_disk, here, count, size, offset = self._end64(at - 20)
        if disk or first_disk or here != count:
            self._broken("it is one of several volumes")
        if count > MOST_MEMBERS:
            self._broken(f"it has {count} members; at most {MOST_MEMBERS} are read")
        if offset + size != last:
            self._broken("its directory is not where its end says: it is truncated, or two files in one")
        self._directory = offset
        self._read_entries(self._bytes(offset, size), count)

    def _end(self) -> int:
        """Where the last end-of-directory record is: torch takes the last."""
        tail = min(self.length, 22 + _LONGEST_COMMENT)
        data = self._bytes(self.length - tail, tail)
        found = data.rfind(_END, 0, len(data) - 18)
        if found < 0:
            self._broken("it has no directory: it is truncated")
        return self.length - tail + found

    def _end64(self, locator: int) -> tuple[int, int, int, int, int, int, int]:
        disk, at, disks = struct.unpack("<IQI", self._bytes(locator + 4, 16))
        if disk or disks > 1:
            self._broken("it is one of several volumes")
        record = self._bytes(at, 56)
        if record[:4] != _END64:
            self._broken("its directory is not where its end says")
        length, _, _, disk, first_disk, here, count, size, offset = struct.unpack("<QHHIIQQQQ", record[4:])
        if at + 12 + length != locator:
            self._broken("something lies between its directory and its end")
        return at, disk, first_disk, here, count, size, offset

    def _read_entries(self, data: bytes, count: int) -> None:
        position = 0
        spans: list[tuple[int, int, str]] = []
        for _ in range(count):
            fields = data[position : position + 46]
            if len(fields) < 46 or fields[:4] != _ENTRY:
                self._broken("its directory is damaged")
            flags, method = struct.unpack("<HH", fields[8:12])
            packed, size, name_length, extra_length, comment = struct.unpack("<2I3H", fields[20:34])
            disk, header = struct.unpack("<H6xI", fields[34:46])
            position += 46
            raw = data[position : position + name_length]
            extra = data[position + name_length : position + name_length + extra_length]
            position += name_length + extra_length + comment
            if position > len(data):
                self._broken("its directory is damaged")
            name = self._text(raw)
            size, packed, header = self._wide(name, extra, size, packed, header)
            self._check(name, flags, method, disk, packed, size)
            if name in self.members:
                self._broken(f"it has two members named {name!r}")
            self.members[name] = Member(name, method, header, packed, size)
            folded = name.lower()
            self._folded[folded] = self._folded.get(folded, 0) + 1
            spans.append((header, header + 30 + name_length + packed, name))
        if position != len(data):
            self._broken("its directory is damaged: it has more than its members")
        self._check_apart(spans)

    def _check(self, name: str, flags: int, method: int, disk: int, packed: int, size: int) -> None:
        if flags & _ENCRYPTED:
            self._broken(f"its member {name!r} is encrypted")
        if method not in (_STORED, _DEFLATED):
            self._broken(f"its member {name!r} is compressed in a way that is not read ({method})")
        if disk:
            self._broken("it is one of several volumes")
        if method == _STORED and packed != size:
            self._broken(f"its member {name!r} is stored, and has two sizes: {packed} and {size} bytes")
        if method == _DEFLATED and size > LARGEST_RATIO * packed + 64:
            self._broken(f"its member {name!r} claims to unpack from {packed} to {size} bytes")

    def _check_apart(self, spans: list[tuple[int, int, str]]) -> None:
        spans.sort()
        reached = 0
        for begin, end, name in spans:
            if begin < reached:
                self._broken(f"its member {name!r} overlaps another")
            reached = end
        if reached > self._directory:
            self._broken(f"its member {spans[-1][2]!r} reaches beyond its end: it is truncated")

    def _text(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self._broken(f"the name of its member {raw[:80]!r} is not UTF-8")
        if "\0" in name:
            self._broken(f"the name of its member {name[:80]!r} holds a zero")
        return name

    def _wide(self, name: str, extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
        """Sizes and place with what the zip64 field says where they are too large for their own."""
        wanted = [value == 0xFFFFFFFF for value in (size, packed, header)]
        if not any(wanted):
            return size, packed, header
        position, field = 0, b""
        while position + 4 <= len(extra) and not field:
            kind, length = struct.unpack("<HH", extra[position : position + 4])
            if kind == 1:
                field = extra[position + 4 : position + 4 + length]
            position += 4 + length
        if len(field) < 8 * sum(wanted):
            self._broken(f"its member {name!r} does not say how large it is")
        values = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        size, packed, header = (
            next(values) if wide else value
            for wide, value in zip(wanted, (size, packed, header), strict=True)
        )
        return size, packed, header

    def _broken(self, what: str) -> NoReturn:
        raise ValueError(f"{self.path} cannot be read as a zip archive: {what}") from None
