"""Tar archives as a list of entries, read as their bytes come: enough to judge one before a real program unpacks it.

Nothing is unpacked here. What is read of a hostile archive is bounded, whatever its headers claim; names and sizes are those that Go's
``archive/tar`` would see, since that is what the programs use that unpack.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Literal, TypeAlias

import msgspec

from nexcage.errors import InvalidInput

__all__ = ["BLOCK", "BadArchive", "Entry", "Kind", "Reader", "Steps", "entries"]

BLOCK = 512
_HEADER_MOST = 1 << 20  # of one extended header
_HEADERS_MOST = 8  # extended headers in front of one entry

Kind: TypeAlias = Literal["file", "link", "symlink", "char", "block", "directory", "fifo", "other"]
_KINDS: Mapping[bytes, Kind] = {
    b"\0": "file",
    b"0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "link",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "directory",
    b"6": "fifo",
}


class BadArchive(InvalidInput):
    """The bytes are no tar archive, or one that claims what cannot be."""

    def __init__(self, reason: str) -> None:
        super().__init__("archive", "", reason)


class Entry(msgspec.Struct, frozen=True):
    """One member. ``size`` is what it takes when unpacked (holes count), ``stored`` its bytes in the archive, which stand at ``at``."""

    name: bytes
    kind: Kind
    size: int
    stored: int
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    mode: int = 0
    at: int = 0


Steps: TypeAlias = Generator["int | Entry", bytes, None]
"""Gives a number to be sent so many bytes, a negative one to have as many skipped, and entries."""


def entries() -> Steps:
    """The members of an archive whose bytes are sent; ends at its end marker. Raises BadArchive."""
    at = 0
    pax: dict[bytes, bytes] = {}
    name = target = b""
    headers = 0
    while True:
        block = yield BLOCK
        at += BLOCK
        if not block or not any(block):
            return
        if len(block) < BLOCK:
            raise BadArchive("it ends in the middle of a header")
        _check(block)
        flag, stored = block[156:157], _number(block[124:136], "size")
        if flag in b"xgLKX":
            headers += 1
            if stored > _HEADER_MOST or headers > _HEADERS_MOST:
                raise BadArchive("an extended header is larger than anything needs")
            data = yield stored
            if len(data) < stored:
                raise BadArchive("it ends in the middle of a header")
            yield -(-stored % BLOCK)
            at += stored + -stored % BLOCK
            if flag == b"L":
                name = data.rstrip(b"\0")
            elif flag == b"K":
                target = data.rstrip(b"\0")
            elif flag != b"g":
                pax = _records(data)
            continue
        entry, extended = _entry(block, flag, stored, pax, name, target)
        while extended:  # more of the map of an old sparse file
            more = yield BLOCK
            at += BLOCK
            if len(more) < BLOCK:
                raise BadArchive("it ends in the middle of a header")
            extended = more[504] != 0
        entry = msgspec.structs.replace(entry, at=at)
        yield entry
        yield -entry.stored
        yield -(-entry.stored % BLOCK)
        at += entry.stored + -entry.stored % BLOCK
        pax, name, target, headers = {}, b"", b"", 0


class Reader:
    """Feeds an archive that comes in pieces: `feed` gives the entries that have become known."""

    def __init__(self) -> None:
        self._steps = entries()
        self._buffer = bytearray()
        self._want = 0
        self._padding = False
        self._over = False
        self._advance(None)

    @property
    def over(self) -> bool:
        """Its end marker was seen."""
        return self._over

    def _advance(self, data: bytes | None) -> Entry | None:
        try:
            given = next(self._steps) if data is None else self._steps.send(data)
        except StopIteration:
            self._over = True
            return None
        if isinstance(given, Entry):
            return given
        self._want = given
        return None

    def feed(self, data: bytes) -> list[Entry]:
        found: list[Entry] = []
        view = memoryview(data)
        while not self._over:
            if self._want < 0:
                taken = min(len(view), -self._want)
                self._want += taken
                view = view[taken:]
                if self._want < 0:
                    break
                self._padding = not self._padding  # what is skipped behind the bytes of an entry
                given = self._advance(b"")
            else:
                needed = self._want - len(self._buffer)
                if len(view) < needed:
                    self._buffer += view
                    break
                self._buffer += view[:needed]
                view = view[needed:]
                block, self._buffer = bytes(self._buffer), bytearray()
                given = self._advance(block)
            if given is not None:
                found.append(given)
                self._padding = False
                self._advance(b"")
        return found

    def end(self) -> None:
        """There is no more. Raises BadArchive where an entry is cut off. Some programs leave out what stands behind the last one."""
        if not self._over and (self._buffer or (self._want < 0 and not self._padding)):
            raise BadArchive("it ends in the middle of an entry")


def _check(block: bytes) -> None:
    said = _number(block[148:156], "checksum")
    if sum(block[:148]) + sum(block[156:]) + 8 * 32 != said:
        raise BadArchive("it is no tar archive: a header's checksum is wrong")


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's binary form."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise BadArchive(f"a header's {what} is negative or too large")
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if not all(0x30 <= digit <= 0x37 for digit in digits):
            raise BadArchive(f"a header's {what} is no number")
        value = int(digits or b"0", 8)
    if value >= 1 << 62:
        raise BadArchive(f"a header's {what} is too large")
    return value


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records ``LENGTH KEY=VALUE`` of an extended header; raises BadArchive."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space > at else b""
        if not digits.isdigit():
            raise BadArchive("an extended header cannot be read")
        end = at + int(digits)
        record = data[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise BadArchive("an extended header cannot be read")
        found[key] = value[:-1]
        at = end
    return found


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise BadArchive("an extended header's size is no number")
    return int(value)


def _entry(
    block: bytes, flag: bytes, stored: int, pax: Mapping[bytes, bytes], name: bytes, target: bytes
) -> tuple[Entry, bool]:
    kind = _KINDS.get(flag, "other")
    if b"size" in pax:
        stored = _decimal(pax[b"size"])
    own = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        own = prefix + b"/" + own
    name = pax.get(b"path", b"") or name or own
    name = pax.get(b"GNU.sparse.name", b"") or name
    if kind == "file" and name.endswith(b"/"):
        kind = "directory"
    if kind not in ("file", "other"):
        stored = 0
    size = stored
    for key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
        if key in pax:
            size = max(size, _decimal(pax[key]))
    extended = False
    if flag == b"S":
        size = max(size, _number(block[483:495], "size"))
        extended = block[482] != 0
    device = (0, 0)
    if kind in ("char", "block"):
        device = (_number(block[329:337], "device"), _number(block[337:345], "device"))
    link = pax.get(b"linkpath", b"") or target or block[157:257].partition(b"\0")[0]
    entry = Entry(
        name, kind, size, stored, link if kind in ("link", "symlink") else b"", device, _number(block[100:108], "mode")
    )
    return entry, extended
