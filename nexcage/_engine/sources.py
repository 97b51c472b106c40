"""Images on this machine as files: a layout's directory, or an archive by what is in it, whatever its name.

Everything here is read with bounds, through descriptors of regular files that were opened without following a last link, and only
under names that a layout has. Blobs are compared with their digests before anybody believes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nexcage._core.archive import BadArchive, Entry, entries
from nexcage._core.bundle.image import Descriptor
from nexcage._core.bundle.image_rules import decode_layout
from nexcage._core.layout import DOCUMENT_MOST, blob_of
from nexcage.errors import InvalidImage, InvalidPath, UnsupportedImage

__all__ = ["Source", "Window", "compressed", "located", "open_source"]

_MEMBERS = 100_000
_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ": "xz", b"BZh": "bz2"}


class Window(NamedTuple):
    """A part of an open file."""

    fd: int
    at: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self.fd, max(0, min(count, self.size - offset)), self.at + offset)

    def whole(self, where: str) -> bytes:
        """All of it, for documents; raises InvalidImage."""
        if self.size > DOCUMENT_MOST:
            raise InvalidImage(where, f"it has {self.size} bytes, more than {DOCUMENT_MOST}")
        data = self.read(0, self.size)
        if len(data) != self.size:
            raise InvalidImage(where, "it is cut off")
        return data


class Source:
    """An image's files. ``members`` of an archive by name; a directory is asked when something is wanted. Close it."""

    def __init__(self, path: Path, fd: int, members: Mapping[str, Window] | None) -> None:
        self.path: Path = path
        self.directory: bool = members is None
        self._fd = fd
        self._members = members
        self._opened: list[int] = []

    def close(self) -> None:
        for fd in (self._fd, *self._opened):
            os.close(fd)
        self._opened.clear()

    @property
    def saved(self) -> bool:
        """Whether only ``docker save``'s older form is in it."""
        members = self._members
        return members is not None and "manifest.json" in members and not {"index.json", "oci-layout"} <= members.keys()

    @property
    def stored(self) -> int:
        """Bytes of an archive's files."""
        return sum(member.size for member in (self._members or {}).values())

    def file(self, name: str) -> Window:
        """Raises InvalidImage for what is not there, or no regular file."""
        if self._members is not None:
            if (found := self._members.get(name)) is None:
                raise InvalidImage(name, "it is not there")
            return found
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError as error:
            raise InvalidImage(
                name, "it is not there" if error.errno == 2 else f"it cannot be read ({error.strerror})"
            ) from None
        self._opened.append(fd)
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise InvalidImage(name, "it is no regular file")
        return Window(fd, 0, about.st_size)

    def blob(self, descriptor: Descriptor) -> Window:
        """A blob of the right size; its digest is not compared yet. Raises InvalidImage."""
        window = self.file(blob_of(descriptor))
        if window.size != descriptor.size:
            raise InvalidImage(
                descriptor.digest, f"its blob has {window.size} bytes, and should have {descriptor.size}"
            )
        return window

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, compared; raises InvalidImage. An image may have very many: none stays open."""
        already = len(self._opened)
        try:
            data = self.blob(descriptor).whole(descriptor.digest)
        finally:
            while len(self._opened) > already:
                os.close(self._opened.pop())
        algorithm, _, wanted = descriptor.digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != wanted:
            raise InvalidImage(descriptor.digest, "its blob has another checksum")
        return data

    def index(self) -> bytes:
        decode_layout(self.file("oci-layout").whole("oci-layout"))
        return self.file("index.json").whole("index.json")


def located(text: str) -> tuple[Path, str]:
    """A path of this machine and the tag behind it: ``/srv/nginx:1.29``. What exists as a whole has none. Raises InvalidPath."""
    for prefix in ("oci-archive:", "docker-archive:", "oci:"):
        text = text.removeprefix(prefix)
    if (path := Path(text).absolute()).exists():
        return path, ""
    for at in (match.start() for match in re.finditer(":", text)):  # a reference behind it has colons of its own
        if at and (path := Path(text[:at]).absolute()).exists():
            return path, text[at + 1 :]
    raise InvalidPath("image", text, "a layout's directory or an archive that exists on this machine")


def open_source(path: Path) -> Source:
    """Raises InvalidPath for what cannot be opened, UnsupportedImage for what is no image, InvalidImage for a damaged one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidPath("image", str(path), f"a layout or an archive that can be read ({error.strerror})") from None
    try:
        about = os.fstat(fd)
        if stat.S_ISDIR(about.st_mode):
            return _directory(path, fd)
        if not stat.S_ISREG(about.st_mode):
            raise UnsupportedImage("image", str(path), "a layout's directory, or an archive in a regular file")
        return Source(path, fd, _members(path, Window(fd, 0, about.st_size)))
    except BaseException:
        os.close(fd)
        raise


def _directory(path: Path, fd: int) -> Source:
    names = set(os.listdir(fd))
    if not {"oci-layout", "index.json"} <= names:
        lacks = " and ".join(sorted({"oci-layout", "index.json"} - names))
        raise UnsupportedImage("image", str(path), f"a layout: it has no {lacks}")
    return Source(path, fd, None)


def compressed(window: Window) -> str:
    """``gz``, ``zst``, ``xz``, ``bz2``, or nothing for what is not compressed."""
    head = window.read(0, 8)
    return next((kind for magic, kind in _COMPRESSED.items() if head.startswith(magic)), "")


def _members(path: Path, window: Window) -> dict[str, Window]:
    """The regular files of an archive, by names that layouts and saved images have; raises InvalidImage."""
    if kind := compressed(window):
        raise UnsupportedImage("image", str(path), f"a plain archive: it is compressed ({kind})")
    found: dict[str, Window] = {}
    try:
        for entry in _listed(window):
            name = entry.name.removeprefix(b"./").decode("utf-8", "replace")
            if entry.kind == "file":
                if entry.at + entry.stored > window.size:
                    raise InvalidImage(name, "it is cut off")
                found[name] = Window(window.fd, entry.at, entry.stored)
    except BadArchive as error:
        raise UnsupportedImage("image", str(path), f"an image archive: {error.reason}") from None
    if "manifest.json" not in found and not {"index.json", "oci-layout"} <= found.keys():
        raise UnsupportedImage("image", str(path), "an oci-archive or docker-archive: it holds neither kind of image")
    return found


def _listed(window: Window) -> list[Entry]:
    """All members, read from header to header."""
    found: list[Entry] = []
    steps, at = entries(), 0
    given = next(steps)
    while True:
        if isinstance(given, Entry):
            found.append(given)
            if len(found) > _MEMBERS:
                raise BadArchive(f"it has more than {_MEMBERS} members")
            data = b""
        elif given < 0:
            at -= given
            data = b""
        else:
            data = window.read(at, given)
            at += given
        try:
            given = steps.send(data)
        except StopIteration:
            return found
