"""From an image on this machine to what nodes can be sent: verified first, then unpacked and packed as one archive of its root file
system, or put into one oci-archive as it is.

skopeo and umoci do what they are for, in a scratch directory that is gone afterwards, however it ended. Before they begin every blob was
read once: its size and checksum, that of the layer inside, and what its entries would do. So what is too large, damaged or hostile is
refused while nothing has been unpacked. What was made is remembered by the digest of the image's config, which says all of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from nexcage._core.bundle import User
from nexcage._core.bundle.image import ImageConfig
from nexcage._core.bundle.image_rules import decode_image_config
from nexcage._core.command import Command
from nexcage._core.image_config import user
from nexcage._core.layers import Bounds
from nexcage._core.layout import Chosen, Wanted, archive_config, choose, shown, suits
from nexcage._engine.contents import Contents, Packed, local_run
from nexcage._engine.shelves import Flights
from nexcage._engine.sources import Source, open_source
from nexcage._engine.verifying import Verifier
from nexcage.errors import InvalidImage, UnsupportedImage
from nexcage.tools import skopeo, umoci

__all__ = ["Made", "Unpacker"]

_CHUNK = 1 << 20
_PLAIN = "application/vnd.oci.image.manifest.v1+json"
_LINKS = 40
_UNPACKED, _ARCHIVED = ".image.json", ".oci.json"


class Made(msgspec.Struct, frozen=True):
    """What became of an image: ``rootfs`` is the digest of its root file system's archive or of the image's, ``size`` what it takes
    unpacked (about).

    ``digest`` is that of its manifest, or of its config where the form has no manifest; ``user`` what its program runs as, where that
    was looked up.
    """

    rootfs: str
    size: int
    digest: str
    config: str
    user: User = User()

    @property
    def image(self) -> ImageConfig:
        return decode_image_config(self.config).document


_Making: TypeAlias = Callable[[Source, Chosen, Path], Awaitable[tuple[Made, Packed]]]


class Unpacker:
    """Makes images of this machine into content."""

    def __init__(self, contents: Contents, bounds: Bounds | None = None) -> None:
        self._contents = contents
        self._bounds = bounds or Bounds()
        self._verifier = Verifier(contents.local, self._bounds)
        self._flights = Flights()

    async def made(self, path: Path, tag: str, wanted: Wanted) -> tuple[Made, Packed]:
        """The image of ``tag`` at ``path`` for a platform, and its root file system on this machine; made once for all who ask.

        Raises InvalidImage, UnsupportedImage, InvalidPath, and NodeNotUsable where a program is missing or there is no room.
        """
        return await self._once(path, tag, wanted, _UNPACKED, self._from_layout)

    async def archived(self, path: Path, tag: str, wanted: Wanted) -> tuple[Made, Packed]:
        """The same as an oci-archive that holds this image only. Its layers are verified and judged too, and stay as they are."""
        return await self._once(path, tag, wanted, _ARCHIVED, self._as_archive)

    async def said(self, path: Path, tag: str, wanted: Wanted) -> ImageConfig:
        """What the image says of itself; none of its layers is read."""
        source = await anyio.to_thread.run_sync(open_source, path)
        try:
            return (await anyio.to_thread.run_sync(_meant, source, tag, wanted)).config
        finally:
            source.close()

    async def _once(self, path: Path, tag: str, wanted: Wanted, form: str, make: _Making) -> tuple[Made, Packed]:
        source = await anyio.to_thread.run_sync(open_source, path)
        try:
            meant = await anyio.to_thread.run_sync(_meant, source, tag, wanted)
            key = meant.key if form == _UNPACKED else meant.whole
            found = await anyio.to_thread.run_sync(self._known, key, form)
            if found is None:
                found = await self._flights.join(
                    (key, form), lambda: self._make(key, form, source, tag, wanted, meant, make)
                )
            made, packed = found
            if meant.chosen is not None:  # the same content may be known from another manifest
                made = msgspec.structs.replace(made, digest=meant.chosen.digest)
            return made, packed
        finally:
            source.close()

    # ---- what was made -----------------------------------------------------------------------------------------------------

    def _known(self, key: str, form: str) -> tuple[Made, Packed] | None:
        store = self._contents.store
        note = store.place(key, form)
        try:
            made = msgspec.json.decode(note.read_bytes(), type=Made)
        except (OSError, msgspec.MsgspecError):
            return None
        sha256 = made.rootfs.partition(":")[2]
        path = store.place(sha256, ".tar")
        if not store.used(path):
            return None
        store.used(note)
        size = path.stat().st_size
        return made, Packed(made.rootfs, path, sha256, size, unpacked=size if form == _UNPACKED else made.size)

    async def _make(
        self, key: str, form: str, source: Source, tag: str, wanted: Wanted, meant: _Meant, make: _Making
    ) -> tuple[Made, Packed]:
        if (known := await anyio.to_thread.run_sync(self._known, key, form)) is not None:
            return known
        store = self._contents.store
        async with store.scratch() as scratch:
            if meant.chosen is None:
                made, packed = await self._from_saved(source, tag, wanted, scratch, make)
                made = msgspec.structs.replace(made, digest=f"sha256:{key}")
            else:
                made, packed = await make(source, meant.chosen, scratch)
        async with store.room() as part:
            await anyio.to_thread.run_sync(part.write_bytes, msgspec.json.encode(made))
            await store.keep(part, store.place(key, form))
        return made, packed

    # ---- making ------------------------------------------------------------------------------------------------------------

    async def _from_saved(
        self, source: Source, tag: str, wanted: Wanted, scratch: Path, make: _Making
    ) -> tuple[Made, Packed]:
        link = scratch / "saved.tar"
        link.symlink_to(source.path)
        if source.stored > self._bounds.size:
            raise InvalidImage("its layers", f"they take more than {self._bounds.size >> 30} GiB (contents.image_size)")
        layout = scratch / "converted"
        manifest = await anyio.to_thread.run_sync(source.file("manifest.json").whole, "manifest.json")
        _, place = archive_config(manifest, tag)
        await self._run(skopeo.copy(f"docker-archive:{link}:@{place}", str(layout), str(scratch)))
        converted = await anyio.to_thread.run_sync(open_source, layout)
        try:
            chosen = (await anyio.to_thread.run_sync(_meant, converted, "", wanted)).chosen
            assert chosen is not None
            return await make(converted, chosen, scratch)
        finally:
            converted.close()

    async def _from_layout(self, source: Source, chosen: Chosen, scratch: Path) -> tuple[Made, Packed]:
        layout, rootfs = scratch / "layout", scratch / "rootfs"
        tally, kinds = await self._verifier.verified(source, chosen, layout)
        if "zst" in kinds or not _readable(chosen):
            layout = await self._converted(layout, scratch)
        await self._run(umoci.unpack(str(layout), str(rootfs), most=self._bounds.size, rootless=os.geteuid() != 0))
        config = await anyio.to_thread.run_sync(source.document, chosen.manifest.config)
        said = chosen.config.config
        texts = [await anyio.to_thread.run_sync(_read_inside, rootfs, f"/etc/{name}") for name in ("passwd", "group")]
        who = user(said.user or "" if said else "", *texts)
        packed = await self._contents.pack(rootfs)
        return Made(packed.digest, tally.size, chosen.digest, config.decode(), who), packed

    async def _as_archive(self, source: Source, chosen: Chosen, scratch: Path) -> tuple[Made, Packed]:
        layout = scratch / "layout"
        tally, _ = await self._verifier.verified(
            source, chosen, layout, copy=True
        )  # what is packed is what was verified
        if not _readable(chosen):
            layout = await self._converted(layout, scratch)
        config = await anyio.to_thread.run_sync(source.document, chosen.manifest.config)
        packed = msgspec.structs.replace(await self._contents.archive(layout), unpacked=tally.size)
        return Made(packed.digest, tally.size, chosen.digest, config.decode()), packed

    async def _converted(self, layout: Path, scratch: Path) -> Path:
        """The same with media types of OCI and layers by gzip."""
        plain = scratch / "plain"
        await self._run(skopeo.copy(f"oci:{layout}:{umoci.TAG}", str(plain), str(scratch)))
        return plain

    async def _run(self, command: Command[None]) -> None:
        await local_run(self._contents.local, command)


class _Meant(NamedTuple):
    """Which image it is. ``key`` names it by its config, which says what is in it, ``whole`` by its blobs too. Without ``chosen`` it is a
    saved one: its layers have no digests before it is converted.
    """

    config: ImageConfig
    key: str
    whole: str
    chosen: Chosen | None


def _meant(source: Source, tag: str, wanted: Wanted) -> _Meant:
    if source.saved:
        name, _ = archive_config(source.file("manifest.json").whole("manifest.json"), tag)
        data = source.file(name).whole(name)
        config = decode_image_config(data).document
        if not suits(config, wanted):
            raise UnsupportedImage("image", str(wanted), f"a platform that the image is made for: {shown(config)}")
        key = hashlib.sha256(data).hexdigest()
        return _Meant(config, key, key, None)
    steps = choose(source.index(), tag, wanted)
    try:
        descriptor = next(steps)
        while True:
            descriptor = steps.send(source.document(descriptor))
    except StopIteration as done:
        chosen: Chosen = done.value
        key, whole = (
            hashlib.sha256(digest.encode()).hexdigest() for digest in (chosen.manifest.config.digest, chosen.digest)
        )
        return _Meant(chosen.config, key, whole, chosen)


def _readable(chosen: Chosen) -> bool:
    """Whether programs that only know OCI's kinds of blobs know these."""
    return chosen.descriptor.media_type == _PLAIN and all(
        one.media_type.startswith("application/vnd.oci.") for one in (chosen.manifest.config, *chosen.manifest.layers)
    )


def _read_inside(root: Path, path: str) -> bytes:
    """A file of the root file system, its links taken as the container would; nothing where there is none. At most a MiB."""
    todo, there = path.split("/"), root
    for _ in range(_LINKS + path.count("/")):
        while todo and todo[0] in ("", "."):
            todo.pop(0)
        if not todo:
            break
        name = todo.pop(0)
        if name == "..":
            there = there if there == root else there.parent
        elif (there / name).is_symlink():
            target = str((there / name).readlink())
            there = root if target.startswith("/") else there
            todo = [*target.split("/"), *todo]
        else:
            there = there / name
    if todo or not there.is_file():
        return b""
    with there.open("rb") as file:
        return file.read(1 << 20)
