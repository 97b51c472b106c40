"""What a layer of an image may hold: judged entry by entry, before anything of it is unpacked.

Programs that unpack keep to the root file system by themselves (`umoci` resolves every name inside it). An image with names that could
only be meant to leave it, or with more than a machine has room for, is refused all the same: it is damaged or made to do harm.
"""

from __future__ import annotations

import msgspec

from nexcage._core.archive import Entry, Reader
from nexcage.errors import InvalidImage

__all__ = ["Bounds", "Layer", "Tally"]

_COMPONENT = 255
_PATH = 4095
_DEPTH = 512
_MARK = b".wh."
_HARMLESS = {
    b"dev/null": ("char", (1, 3)),
    b"dev/zero": ("char", (1, 5)),
    b"dev/full": ("char", (1, 7)),
    b"dev/random": ("char", (1, 8)),
    b"dev/urandom": ("char", (1, 9)),
    b"dev/tty": ("char", (5, 0)),
    b"dev/console": ("char", (5, 1)),
    b"dev/ptmx": ("char", (5, 2)),
}


class Bounds(msgspec.Struct, frozen=True):
    """How much an image may be: bytes unpacked (holes of sparse files count), entries and layers."""

    size: int = 64 << 30
    entries: int = 2_000_000
    layers: int = 500


class Tally:
    """What all layers of one image come to; raises InvalidImage when that is too much."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds: Bounds = bounds
        self.size: int = 0
        self.entries: int = 0
        self._streamed = 0

    def stream(self, size: int) -> None:
        """So many more bytes came out of a compressed layer."""
        self._streamed += size
        self._within(self._streamed)

    def add(self, entry: Entry) -> None:
        self.entries += 1
        self.size += entry.size if entry.kind != "other" else entry.stored
        self._within(self.size)
        if self.entries > self.bounds.entries:
            raise InvalidImage("layers", f"it has more than {self.bounds.entries} entries (contents.entries)")

    def _within(self, size: int) -> None:
        # Headers and padding are not what an image is about: the stream may be that much longer.
        if size > self.bounds.size + self.entries * 2048 + (1 << 20):
            limit = self.bounds.size / (1 << 30)
            raise InvalidImage("layers", f"it takes more than {limit:.3g} GiB when unpacked (contents.image_size)")


class Layer:
    """One layer as its uncompressed bytes come."""

    def __init__(self, tally: Tally, name: str) -> None:
        self._tally = tally
        self._name = name
        self._reader = Reader()
        self._links: set[bytes] = set()

    def feed(self, data: bytes) -> None:
        """Raises InvalidImage, or BadArchive for what is no archive."""
        self._tally.stream(len(data))
        for entry in self._reader.feed(data):
            self._tally.add(entry)
            self._judge(entry)

    def end(self) -> None:
        self._reader.end()

    def _judge(self, entry: Entry) -> None:
        parts = self._parts(entry.name, "the name")
        path = b"/".join(parts)
        if self._links and any(b"/".join(parts[:depth]) in self._links for depth in range(1, len(parts))):
            raise self._bad(entry, "it lies behind a symbolic link of the same layer")
        if parts and parts[-1].startswith(_MARK) and parts[-1] in (b".wh.", b".wh..", b".wh..."):
            raise self._bad(entry, "it is a whiteout of nothing that a directory can have")
        match entry.kind:
            case "link":
                self._parts(entry.target, "the target of a hard link")
            case "symlink":
                if len(entry.target) > _PATH or _climbs(parts[:-1], entry.target):
                    raise self._bad(entry, "it is a symbolic link that leads out of the root file system")
                self._links.add(path)
            case "char" | "block":
                if _HARMLESS.get(path) != (entry.kind, entry.device):
                    major, minor = entry.device
                    raise self._bad(entry, f"it is a {entry.kind} device {major}:{minor}")
            case "other":
                raise self._bad(entry, "its kind is not one that root file systems have")
            case _:
                pass

    def _parts(self, name: bytes, what: str) -> list[bytes]:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if name.startswith(b"/"):
            raise self._named(name, f"{what} is absolute")
        if b".." in parts:
            raise self._named(name, f"{what} has a .. component")
        if b"\0" in name:
            raise self._named(name, f"{what} has a NUL")
        if len(name) > _PATH or len(parts) > _DEPTH or any(len(part) > _COMPONENT for part in parts):
            raise self._named(name[:80] + b"...", f"{what} is longer or deeper than file systems allow")
        return parts

    def _bad(self, entry: Entry, reason: str) -> InvalidImage:
        return self._named(entry.name, reason)

    def _named(self, name: bytes, reason: str) -> InvalidImage:
        return InvalidImage(self._name, f"{name[:200].decode('utf-8', 'backslashreplace')!a}: {reason}")


def _climbs(parents: list[bytes], target: bytes) -> bool:
    """Whether a relative target goes above the root, taken word by word."""
    depth = 0 if target.startswith(b"/") else len(parents)
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False
