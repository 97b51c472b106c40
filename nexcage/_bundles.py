"""Opening a bundle of this machine: what is read is what was checked, whatever others do to the names meanwhile.

Everything goes by directory descriptors: the bundle is opened once, its ancestors are looked at through it, config.json and the root file
system are opened below it. config.json is never followed as a link, never waited for (a FIFO), and never read beyond what is allowed.
Nothing is written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from nexcage._core.bundle import Config, Decoded, decode_config
from nexcage._core.bundle.strict import MAX_BYTES
from nexcage._core.bundle_plan.model import GATE, Root
from nexcage.errors import InvalidBundle, InvalidPath

__all__ = ["EXCHANGEABLE", "BundleFiles", "read_bundle"]

EXCHANGEABLE = "is, or lies in, a directory that anybody can write to, and so anybody can exchange it"
"""What is wrong with such a bundle."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Place = tuple[int, int]  # device and inode


class BundleFiles(Struct, frozen=True):
    """A bundle as it was found at ``path`` (absolute, without links). Exactly one of ``decoded`` and ``error`` is there.

    ``root`` is what there is at the document's root path; None for a config.json alone, or one that is not valid.
    """

    path: str
    config: bytes
    decoded: Decoded[Config] | None = None
    error: InvalidBundle | None = None
    root: Root | None = None
    exchangeable: bool = False


def read_bundle(
    path: str | os.PathLike[str], roots: Iterable[str] = (), *, max_bytes: int = MAX_BYTES, judge: bool = True
) -> BundleFiles:
    """The bundle at ``path``, or the one whose config.json is at ``path``: then its root file system is not looked at.

    With ``roots`` the bundle and its root file system must lie below one of these directories; without, it is its own root.
    Raises InvalidPath for what is not there, not readable or not below a root, and for a bundle that anybody could exchange
    (without ``judge``, ``exchangeable`` says so, and ``error`` what is wrong with a config.json that cannot be read).
    """
    named = os.fspath(path)
    try:
        whole = stat.S_ISDIR(os.stat(named).st_mode)
        with _opened(named if whole else os.path.dirname(named) or ".") as directory:
            allowed = _places(roots)
            if allowed and not _below(directory, allowed):
                raise InvalidPath(
                    "bundle",
                    named,
                    "is not below one of bundle_roots; name it as the bundle (--bundle, Spec.bundle), or add its directory there",
                )
            exchangeable = whole and _exchangeable(directory)
            if exchangeable and judge:
                raise InvalidPath("bundle", named, EXCHANGEABLE)
            name = "config.json" if whole else os.path.basename(named)
            try:
                data = _read(name, directory, max_bytes)
            except (OSError, ValueError) as error:
                if judge:
                    raise
                return _without_document(_name(directory), _said(error), exchangeable=exchangeable)
            found = _files(data, directory, allowed, look=whole, max_bytes=max_bytes)
            return replace(found, exchangeable=exchangeable)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidPath):
            raise
        raise InvalidPath("bundle", named, _said(error)) from None


def _files(data: bytes, directory: int, allowed: set[Place], *, look: bool, max_bytes: int) -> BundleFiles:
    path = _name(directory)
    try:
        decoded = decode_config(data, max_bytes=max_bytes)
    except InvalidBundle as error:
        return BundleFiles(path, data, error=error)
    root = decoded.document.root
    seen = _root(root.path, directory, allowed, _inside(decoded.document)) if look and root else None
    return BundleFiles(path, data, decoded, root=seen)


def _without_document(path: str, reason: str, *, exchangeable: bool) -> BundleFiles:
    return BundleFiles(path, b"", error=InvalidBundle("config.json", "", reason), exchangeable=exchangeable)


def _inside(document: Config) -> dict[str, str]:
    """The paths inside of which the node makes something, by their pointers."""
    found = {f"/mounts/{index}": mount.destination for index, mount in enumerate(document.mounts)}
    found |= {f"/linux/maskedPaths/{index}": path for index, path in enumerate(document.linux.masked_paths)}
    found |= {f"/linux/readonlyPaths/{index}": path for index, path in enumerate(document.linux.readonly_paths)}
    return {**found, GATE: "/.nexcage"}


def _linked(root: int, path: str) -> bool:
    """Whether a symbolic link is on the way from the root file system to ``path``. What is not there yet is none."""
    place = ""
    for part in path.split("/"):
        if part in ("", ".", ".."):
            continue
        place = f"{place}/{part}" if place else part
        try:
            mode = os.stat(place, dir_fd=root, follow_symlinks=False).st_mode
        except (OSError, ValueError):
            return False
        if stat.S_ISLNK(mode):
            return True
    return False


@contextmanager
def _opened(path: str, *, below: int | None = None) -> Iterator[int]:
    fd = os.open(path, _DIRECTORY, dir_fd=below)
    try:
        yield fd
    finally:
        os.close(fd)


def _name(fd: int) -> str:
    """The path of what is open, as the kernel sees it now."""
    return os.readlink(f"/proc/self/fd/{fd}")


def _place(status: os.stat_result) -> Place:
    return status.st_dev, status.st_ino


def _places(paths: Iterable[str]) -> set[Place]:
    """The directories that are there; none of ``paths`` existing is not the same as no path at all."""
    found: set[Place] = set()
    for path in paths:
        found.add((-1, -1))
        try:
            with _opened(path) as fd:
                found.add(_place(os.fstat(fd)))
        except OSError:
            continue
    return found


def _upwards(directory: int) -> Iterator[os.stat_result]:
    """The directory, its parent, and so on to ``/``."""
    fd = os.dup(directory)
    try:
        status = os.fstat(fd)
        while True:
            yield status
            parent = os.open("..", _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = parent
            above = os.fstat(fd)
            if _place(above) == _place(status):
                return
            status = above
    finally:
        os.close(fd)


def _below(directory: int, allowed: set[Place]) -> bool:
    return any(_place(status) in allowed for status in _upwards(directory))


def _exchangeable(directory: int) -> bool:
    """Whether somebody else can put another directory in its place, or other files into it."""
    owner = -1
    for status in _upwards(directory):
        # The sticky bit, as /tmp has it, leaves what is in a directory to its owners.
        kept = bool(status.st_mode & stat.S_ISVTX) and owner in (0, os.geteuid())
        if status.st_mode & stat.S_IWOTH and not kept:
            return True
        owner = status.st_uid
    return False


def _read(name: str, directory: int, max_bytes: int) -> bytes:
    """One byte more than is allowed of a file that is too large, so that the decoder says so."""
    fd = os.open(name, _FILE, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{name} is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(fd)


def _root(path: str, directory: int, allowed: set[Place], inside: Mapping[str, str]) -> Root:
    """What is at the document's root path. A relative one may not leave the bundle, an absolute one not the roots if there are any."""
    try:
        link = stat.S_ISLNK(os.stat(path, dir_fd=directory, follow_symlinks=False).st_mode)
    except (OSError, ValueError):
        return Root(exists=False, directory=False)
    try:
        with _opened(path, below=directory) as fd:
            absolute = os.path.isabs(path)
            bounds = allowed if absolute else {_place(os.fstat(directory))}
            links = frozenset(pointer for pointer, place in inside.items() if _linked(fd, place))
            return Root(link=link, outside=bool(bounds) and not _below(fd, bounds), links=links)
    except OSError:
        return Root(directory=False, link=link)


def _said(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        name = os.path.basename(error.filename)[:100] if isinstance(error.filename, str) else ""
        if error.errno == errno.ELOOP:
            return f"{name}: is a link, which is not followed"
        return f"{name}: {os.strerror(error.errno or 0)}"
    return str(error)
