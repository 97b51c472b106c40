"""Files into and out of containers: streamed, with their checksums compared, and put in their place by a rename at either end."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from nexcage._core.command import Command, Result
from nexcage._core.inside import Copied
from nexcage._core.intents import Push
from nexcage._core.states import Op
from nexcage._engine.inside import Ending, Insider, Place, tracked
from nexcage._engine.node import Lost, answer
from nexcage.errors import CommandFailed, InvalidPath, NexcageError, NodeUnreachable, Uncertain
from nexcage.tools import copying
from nexcage.tools.attach import BEGUN, refused

__all__ = ["pull", "push"]

_CHUNK = 256 * 1024
_PLAIN = 0o777  # a file of a container makes nobody here another user
_TRIES = 3  # of a pull: the file may change while it is read


async def push(
    insider: Insider, id: str, source: str | os.PathLike[str] | bytes, path: str, *, mode: int | None, owner: str
) -> Copied:
    """See `nexcage.Container.push`."""
    place = await insider.place(id, Op.PUSH)
    attach = place.way("push", "attach")
    size, sha256, found = await _known(source)
    mode = found if mode is None else mode
    nonce = f"{insider.random.getrandbits(48):012x}"
    command: Command[None] = attach(place.mark, copying.push(path, mode=mode, owner=owner, sha256=sha256, nonce=nonce))
    async with insider.slot(place):
        began = await insider.begin(place, Push(id, path=path, sha256=sha256, size=size))
        async with insider.recorded(began, place) as ending:
            await _pushed(place, tracked(command, began), source, ending, path, sha256, nonce)
    return Copied(path=path, size=size, sha256=sha256, mode=mode)


async def _pushed(
    place: Place,
    command: Command[None],
    source: str | os.PathLike[str] | bytes,
    ending: Ending,
    path: str,
    sha256: str,
    nonce: str,
) -> None:
    async with place.node.stream(command) as stream:
        async for chunk in _chunks(source):
            await stream.send(chunk)
        await stream.send_eof()
        result = await stream.wait()
    if result.exit is None:
        await _looked(place, ending, path, sha256, nonce)
        return
    done = ending.executed(result)
    if done.exit != 0:
        ending.exit = None
        inner = msgspec.structs.replace(result, stderr=done.stderr)
        raise copying.refusal(place.mark, "push", path, inner, place.node.key)


async def _looked(place: Place, ending: Ending, path: str, sha256: str, nonce: str) -> None:
    """The answer was lost: the checksum of what is there now tells, and what was left beside it goes."""
    command: Command[None] = place.way("push", "attach")(
        place.mark, copying.digest(path, nonce), safe=True, timeout=30.0
    )
    try:
        result = await place.node.call(command)
        answer(command, result, place.node.key)
    except (NexcageError, Lost) as error:
        raise Uncertain(ending.began.op_id, f"the link was lost, and looking failed: {error}") from None
    if result.stdout.split()[:1] != [sha256.encode()]:
        raise NodeUnreachable(place.node.key, f"the link was lost; looking shows that {path} was not written")
    ending.exit, ending.resolved_by = 0, "probe"


async def _known(source: str | os.PathLike[str] | bytes) -> tuple[int, str, int]:
    """Size, checksum and mode of what is sent."""
    if isinstance(source, bytes):
        return len(source), hashlib.sha256(source).hexdigest(), 0o644
    local = _local(source)

    def read() -> tuple[int, str, int]:
        try:
            with local.open("rb") as file:
                about = os.fstat(file.fileno())
                return about.st_size, hashlib.file_digest(file, "sha256").hexdigest(), about.st_mode & 0o7777
        except OSError as error:
            raise InvalidPath("local", os.fspath(source), f"a file that can be read ({error.strerror})") from None

    return await anyio.to_thread.run_sync(read)


def _local(path: str | os.PathLike[str]) -> Path:
    """A path on this machine; raises InvalidPath."""
    try:
        found = Path(path)
        os.fsencode(found)
    except (TypeError, ValueError):
        found = Path("\0")
    if "\0" in str(found):
        raise InvalidPath("local", path, "the path of a file on this machine, without NUL")
    return found


@contextmanager
def _here(path: str | os.PathLike[str]) -> Generator[None]:
    """What goes wrong with a file on this machine raises InvalidPath."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NexcageError):
            raise
        reason = f"a file that can be read and written to its end ({error.strerror})"
        raise InvalidPath("local", os.fspath(path), reason) from None


async def _chunks(source: str | os.PathLike[str] | bytes) -> AsyncIterator[bytes]:
    if isinstance(source, bytes):
        for at in range(0, len(source), _CHUNK):
            yield source[at : at + _CHUNK]
        return
    with _here(source):
        async with await anyio.open_file(source, "rb") as file:
            while chunk := await file.read(_CHUNK):
                yield chunk


# ---- pull ------------------------------------------------------------------------------------------------------------------


async def pull(insider: Insider, id: str, path: str, target: str | os.PathLike[str], *, mode: int | None) -> Copied:
    """See `nexcage.Container.pull`."""
    place = await insider.place(id, Op.PULL)
    words, local = copying.pull(path), _local(target)
    if mode is not None:
        copying.checked_mode(mode)
    async with insider.slot(place):
        for attempt in range(1, _TRIES + 1):
            async with _beside(local) as temporary:
                with _here(local):
                    result, size, sha256 = await _received(place, words, temporary)
                about = _checked(place, path, result)
                if about.sha256 != sha256:
                    if attempt < _TRIES:
                        continue
                    raise CommandFailed(place.node.key, ("pull", path), 0, "it changed while it was read")
                with _here(local):
                    await _placed(temporary, local, about.mode & _PLAIN if mode is None else mode)
            return Copied(path=path, size=size, sha256=sha256, mode=about.mode, uid=about.uid, gid=about.gid)
    raise AssertionError


async def _received(place: Place, words: tuple[str, ...], temporary: Path) -> tuple[Result, int, str]:
    command: Command[None] = place.way("pull", "attach")(place.mark, words, safe=True)
    digest, size, said = hashlib.sha256(), 0, bytearray()
    async with await anyio.open_file(temporary, "wb") as file, place.node.stream(command) as stream:
        await stream.send_eof()
        async for kind, data in stream:
            if kind == "stderr":
                said += data[-65536:]
                continue
            digest.update(data)
            size += len(data)
            await file.write(data)
        result = await stream.wait()
    return msgspec.structs.replace(result, stderr=bytes(said) + result.stderr), size, digest.hexdigest()


def _checked(place: Place, path: str, result: Result) -> copying.Pulled:
    if result.exit is None:
        raise NodeUnreachable(place.node.key, f"the link was lost while {path} was read")
    if not result.stderr.startswith(BEGUN):
        raise refused(place.mark, result, place.node.key)
    inner = msgspec.structs.replace(result, stderr=result.stderr[len(BEGUN) :])
    if result.exit != 0:
        raise copying.refusal(place.mark, "pull", path, inner, place.node.key)
    try:
        return copying.said(inner.stderr)
    except ValueError as error:
        raise CommandFailed(place.node.key, ("pull", path), 0, str(error)) from None


@asynccontextmanager
async def _beside(target: Path) -> AsyncGenerator[Path]:
    """A file beside ``target`` that is gone afterwards, unless it took its place."""

    def make() -> Path:
        try:
            if target.is_dir():
                raise InvalidPath("local", str(target), "a file, not a directory")
            descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        except OSError as error:
            raise InvalidPath("local", str(target), f"a place that can be written to ({error.strerror})") from None
        os.close(descriptor)
        return Path(name)

    temporary = await anyio.to_thread.run_sync(make)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


async def _placed(temporary: Path, target: Path, mode: int) -> None:
    def place() -> None:
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)

    await anyio.to_thread.run_sync(place)
