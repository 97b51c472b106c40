"""Content on its way from this machine to the nodes: trees packed into archives, kept here by their checksums, sent by streams.

`pack` makes an archive of a tree once and keeps it (`Store`); `ship` sees to it that a node has a file, sending it at most once for all
who want it at the same time. Both may be repeated at will: what is there under its name is whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import TypeAlias

import anyio
import anyio.to_thread
import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage._core.hosts import LOCAL
from nexcage._engine.node import FleetNode, answer
from nexcage._engine.shelves import Flights, carried
from nexcage._engine.store import Store
from nexcage._engine.telling import Telling
from nexcage.abc import Transport
from nexcage.errors import CommandFailed, InvalidPath, NexcageError, NodeTimeout, NodeUnreachable
from nexcage.tools import shipping, tar

__all__ = ["Contents", "Packed", "Source", "local_run"]

_log = logging.getLogger("nexcage")
_CHUNK = 256 * 1024
_PATIENCE = 2.0  # seconds for the answer of a node that takes no more

Source: TypeAlias = Path | Callable[[], AsyncIterator[bytes]]
"""A file of this machine, or what makes the bytes anew each time."""


class Packed(msgspec.Struct, frozen=True):
    """An archive on this machine. ``digest`` (``sha256:HEX``) is that of the plain archive: the same tree has the same; ``sha256`` is that
    of the file ``path`` as it is, compressed or not, and ``unpacked`` the size of the plain archive.
    """

    digest: str
    path: Path
    sha256: str
    size: int
    ending: str = ".tar"
    unpacked: int = 0

    @property
    def template(self) -> str:
        """Its name among the templates of a storage."""
        return f"nexcage-{self.digest.partition(':')[2][:20]}{self.ending}"


class Contents:
    """Packs trees of this machine and sends content to nodes. ``local`` runs commands here."""

    def __init__(self, store: Store, local: Transport, random: Random) -> None:
        self.store: Store = store
        self.local: Transport = local
        self._random = random
        self._flights = Flights()

    # ---- here --------------------------------------------------------------------------------------------------------------

    async def pack(
        self, directory: str | os.PathLike[str], *, compress: str = "", targets: tuple[str, ...] = ()
    ) -> Packed:
        """The tree below ``directory`` as an archive, numeric owners and all. ``compress``: ``zst``, ``gz`` or nothing. ``targets``:
        directories that are added where the tree has nothing.

        Raises InvalidPath for what is no directory, CommandFailed when the tree cannot be read to its end or changes meanwhile,
        NodeNotUsable where ``tar`` or the program that compresses is missing.
        """
        root = await anyio.to_thread.run_sync(Path(directory).absolute)
        if not await anyio.to_thread.run_sync(root.is_dir):
            raise InvalidPath("directory", str(root), "an existing directory on this machine")
        async with self.store.room() as part, self.store.scratch() as besides:
            added = await anyio.to_thread.run_sync(_targets, root, besides, targets)
            telling = Telling(f"packing {root}")
            digest, size = await self._packed(tar.pack(str(root), str(besides), added), part, telling)
            plain = Packed(f"sha256:{digest}", self.store.place(digest, ".tar"), digest, size, unpacked=size)
            if not compress:
                await self.store.keep(part, plain.path)
                return plain
            return await self._compressed(part, plain, compress)

    async def archive(self, layout: Path) -> Packed:
        """A layout of ours as an oci-archive; the same one gives the same bytes. Raises as `pack` does."""
        async with self.store.room() as part:
            digest, size = await self._packed(tar.archive(str(layout)), part, Telling("packing the image"))
            packed = Packed(f"sha256:{digest}", self.store.place(digest, ".tar"), digest, size)
            await self.store.keep(part, packed.path)
            return packed

    async def _packed(self, command: Command[None], part: Path, telling: Telling) -> tuple[str, int]:
        digest, size, said = hashlib.sha256(), 0, bytearray()
        async with await anyio.open_file(part, "wb") as file, self.local.stream(command) as stream:
            await stream.send_eof()
            async for kind, data in stream:
                if kind == "stderr":
                    said += data[-4096:]
                    continue
                digest.update(data)
                size += len(data)
                await self.store.write(file, data)
                telling.more(len(data))
            result = await stream.wait()
        _ended(command, msgspec.structs.replace(result, stderr=bytes(said[-8192:]) + result.stderr))
        return digest.hexdigest(), size

    async def compressed(self, plain: Packed, kind: str) -> Packed:
        """What was packed, as a file that takes less (``zst`` or ``gz``)."""
        return await self._compressed(plain.path, plain, kind)

    async def _compressed(self, part: Path, plain: Packed, kind: str) -> Packed:
        ending = f".tar.{kind}"
        path = self.store.place(plain.sha256, ending)
        if not await anyio.to_thread.run_sync(path.is_file):
            async with self.store.room() as smaller:
                await local_run(self.local, tar.compress(str(part), str(smaller), kind))
                await self.store.keep(smaller, path)
        sha256, size = await self.store.summed(path)
        return Packed(plain.digest, path, sha256, size, ending, plain.size)

    # ---- there -------------------------------------------------------------------------------------------------------------

    async def ship(
        self, node: FleetNode, source: Source, sha256: str, size: int, dest: str, *, public: bool = False
    ) -> bool:
        """See to it that the node has ``source`` as the file ``dest``, whose name tells its content; False when it was there.

        Sends at the pace of the node, once for all who want it now. Raises NodeNotUsable where there is no room, NodeUnreachable when
        the link was lost (``dest`` is not there then, or whole), CommandFailed when other bytes arrived than were to be sent.
        """
        return await self._flights.join(
            (node.key, dest), lambda: self._shipped(node, source, sha256, size, dest, public=public)
        )

    async def put(self, node: FleetNode, data: bytes, dest: str) -> None:
        """A small file, in one command: whether it is there already costs as much as sending it."""
        nonce = f"{self._random.getrandbits(48):012x}"
        command = shipping.receive(dest, hashlib.sha256(data).hexdigest(), len(data), nonce)
        await carried(node, msgspec.structs.replace(command, stdin=data, timeout=60.0))

    async def _shipped(
        self, node: FleetNode, source: Source, sha256: str, size: int, dest: str, *, public: bool
    ) -> bool:
        if (await carried(node, shipping.held((dest,)))).sizes.get(dest) == size:
            return False
        _log.info("%s: sending %s, %d bytes", node.key, dest.rpartition("/")[2], size)
        nonce = f"{self._random.getrandbits(48):012x}"
        command = shipping.receive(dest, sha256, size, nonce, public=public)
        telling = Telling(f"sending {dest.rpartition('/')[2]} to {node.key}", size)
        result = await self._sent(node, command, source, telling)
        if result.exit is None:
            if result.lost == "deadline":
                raise NodeTimeout(node.key, f"{dest} did not arrive in time")
            raise NodeUnreachable(node.key, f"the link was lost while {dest} was sent")
        answer(command, result, node.key)
        return True

    async def _sent(self, node: FleetNode, command: Command[None], source: Source, telling: Telling) -> Result:
        """How the node took it. Who does not read any more (no room) ends the sending."""
        result: Result | None = None
        failure: Exception | None = None
        async with node.stream(command) as stream:

            async def feed() -> None:
                nonlocal failure
                try:
                    async with aclosing(_chunks(source)) as chunks:
                        async for chunk in chunks:
                            await stream.send(chunk)
                            telling.more(len(chunk))
                    await stream.send_eof()
                except NexcageError as error:
                    failure = error
                    # Why the node takes no more is told by its answer, if there is one; what is wrong here nobody there will say.
                    patience = 0.0 if isinstance(error, InvalidPath) else _PATIENCE
                    tasks.cancel_scope.deadline = anyio.current_time() + patience

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed)
                try:
                    result = await stream.wait()
                except NexcageError as error:
                    failure = error  # raised out of the task group, so that it stays bare
                tasks.cancel_scope.cancel()
        if result is None:
            raise failure or NodeUnreachable(node.key, "the link was lost while content was sent")
        return result


def _targets(root: Path, besides: Path, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Make the directories of ``targets`` that ``root`` does not have; those to be added. Links in the tree are left alone."""
    added: list[str] = []
    for target in targets:
        at, parts = root, [part for part in target.split("/") if part not in ("", ".", "..")]
        for depth, part in enumerate(parts):
            at /= part
            if at.is_symlink() or at.is_file():
                break
            if not at.exists():
                (besides / Path(*parts)).mkdir(parents=True, exist_ok=True)
                added.append("/".join(parts[: depth + 1]))
                break
    for made, _, _ in os.walk(besides, topdown=False):
        os.chmod(made, 0o755)  # noqa: PTH101, S103 (as every directory of a system; whatever the umask is)
        os.utime(made, (0, 0))  # the same tree gives the same bytes
    return tuple(dict.fromkeys(added))


async def local_run(local: Transport, command: Command[None]) -> None:
    """Run a command on this machine; cancelling ends it, its children too."""
    _ended(command, await local.run(command))


def _ended(command: Command[None], result: Result) -> None:
    if result.exit is None:
        raise CommandFailed(LOCAL, command.argv, -1, shown(result.stderr) or "it was ended")
    answer(command, result, LOCAL)


async def _chunks(source: Source) -> AsyncGenerator[bytes]:
    if not isinstance(source, Path):
        async for chunk in source():
            yield chunk
        return
    try:
        async with await anyio.open_file(source, "rb") as file:
            while chunk := await file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InvalidPath("source", str(source), f"a file that can be read ({error.strerror})") from None
