"""Each blob of an image is read once before a program gets it: its size and checksum, those of the layer inside, what entries would do."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
import msgspec

from nexcage._core.archive import BadArchive
from nexcage._core.bundle.image import Descriptor
from nexcage._core.layers import Bounds, Layer, Tally
from nexcage._core.layout import Chosen, blob_of
from nexcage._engine.sources import Source, Window, compressed
from nexcage._engine.telling import Telling
from nexcage.abc import Transport
from nexcage.errors import InvalidImage, NodeNotUsable
from nexcage.tools import tar, umoci

__all__ = ["Verifier"]

_CHUNK = 1 << 20


class Verifier:
    """Judges images within bounds. ``local`` runs commands here."""

    def __init__(self, local: Transport, bounds: Bounds) -> None:
        self._local = local
        self._bounds = bounds

    async def verified(
        self, source: Source, chosen: Chosen, layout: Path, *, copy: bool = False
    ) -> tuple[Tally, set[str]]:
        """The new ``layout`` of the image, all of whose layers were judged; how large it is, and how they are compressed."""
        if len(chosen.manifest.layers) > self._bounds.layers:
            raise InvalidImage(
                "its layers", f"there are {len(chosen.manifest.layers)}, more than {self._bounds.layers}"
            )
        await anyio.to_thread.run_sync(_begun, layout, source, chosen)
        tally, kinds = Tally(self._bounds), set[str]()
        copy = copy or not source.directory
        for number, (descriptor, diff_id) in enumerate(
            zip(chosen.manifest.layers, chosen.config.rootfs.diff_ids, strict=True), 1
        ):
            judge = Layer(tally, f"layer {number} of {len(chosen.manifest.layers)}")
            kinds.add(await self._staged(source, descriptor, diff_id, judge, layout, copy=copy))
        return tally, kinds

    async def _staged(
        self, source: Source, descriptor: Descriptor, diff_id: str, judge: Layer, layout: Path, *, copy: bool
    ) -> str:
        """Compare a layer and judge what is in it; it is then in the layout, where the programs find it. How it is compressed."""
        window = await anyio.to_thread.run_sync(source.blob, descriptor)
        place = layout / blob_of(descriptor)
        if not copy:
            if not place.is_symlink():
                place.symlink_to(source.path / blob_of(descriptor))
            await _compared(window, descriptor, None)
        else:
            with place.open("wb") as file:
                await _compared(window, descriptor, file)
        kind = compressed(window)
        _agree(descriptor, kind)
        algorithm, _, wanted = diff_id.partition(":")
        if algorithm not in ("sha256", "sha512"):
            raise InvalidImage("its config", f"diff_id {diff_id[:80]!a} is no digest")
        digest, telling = hashlib.new(algorithm), Telling(f"checking {descriptor.digest[:19]}")

        def take(piece: bytes) -> None:
            digest.update(piece)
            judge.feed(piece)

        try:
            async with aclosing(self._plain(window, kind, place)) as pieces:
                async for piece in pieces:
                    await anyio.to_thread.run_sync(take, piece)
                    telling.more(len(piece))
            judge.end()
        except BadArchive as error:
            raise InvalidImage(descriptor.digest, error.reason) from None
        if digest.hexdigest() != wanted:
            raise InvalidImage(descriptor.digest, "what is in it has another checksum than the config's diff_id")
        return kind

    async def _plain(self, window: Window, kind: str, path: Path) -> AsyncGenerator[bytes]:
        if kind == "zst":
            async with aclosing(self._expanded(path)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        step = _gunzipped(window) if kind == "gz" else _pieces(window)
        while piece := await anyio.to_thread.run_sync(step):
            yield piece

    async def _expanded(self, path: Path) -> AsyncGenerator[bytes]:
        command, said = (
            tar.expand(str(await anyio.to_thread.run_sync(path.resolve))),
            bytearray(),
        )  # zstd takes no links
        async with self._local.stream(command) as stream:
            await stream.send_eof()
            async for kind, data in stream:
                if kind == "stdout":
                    yield data
                else:
                    said += data[-4096:]
            result = await stream.wait()
        if result.exit == 127:
            raise NodeNotUsable("local", "there is no zstd (apt install zstd), which reads layers compressed by it")
        if result.exit != 0:
            reason = (said + result.stderr).decode("utf-8", "replace").strip().rpartition(": ")[2]
            raise InvalidImage(path.name, f"zstd cannot read it: {reason or 'it was ended'}")


def _begun(layout: Path, source: Source, chosen: Chosen) -> None:
    """A layout with one image, still without its layers."""
    for descriptor in (chosen.descriptor, chosen.manifest.config, *chosen.manifest.layers):
        (layout / blob_of(descriptor)).parent.mkdir(parents=True, exist_ok=True)
    for descriptor in (chosen.descriptor, chosen.manifest.config):
        (layout / blob_of(descriptor)).write_bytes(source.document(descriptor))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    named = {"org.opencontainers.image.ref.name": umoci.TAG}
    one = {"mediaType": chosen.descriptor.media_type, "digest": chosen.digest, "size": chosen.descriptor.size}
    index = {"schemaVersion": 2, "manifests": [{**one, "annotations": named}]}
    (layout / "index.json").write_bytes(msgspec.json.encode(index))


def _agree(descriptor: Descriptor, kind: str) -> None:
    suffix = descriptor.media_type.rpartition("tar")[2].lstrip("+.")
    said = {"": "", "gzip": "gz", "zstd": "zst"}.get(suffix, "?")
    if kind != said:
        raise InvalidImage(descriptor.digest, f"its media type is {descriptor.media_type}, and it is {kind or 'plain'}")


async def _compared(window: Window, descriptor: Descriptor, copy: BinaryIO | None) -> None:
    """Its checksum; raises InvalidImage when it is another."""
    algorithm, _, wanted = descriptor.digest.partition(":")
    digest = hashlib.new(algorithm)

    def step(at: int) -> int:
        data = window.read(at, 4 * _CHUNK)
        digest.update(data)
        if copy is not None:
            copy.write(data)
        return len(data)

    at = 0
    while count := await anyio.to_thread.run_sync(step, at):
        at += count
    if at != descriptor.size or digest.hexdigest() != wanted:
        raise InvalidImage(descriptor.digest, "its blob has another checksum")


def _pieces(window: Window) -> Callable[[], bytes]:
    at = 0

    def step() -> bytes:
        nonlocal at
        data = window.read(at, _CHUNK)
        at += len(data)
        return data

    return step


def _gunzipped(window: Window) -> Callable[[], bytes]:
    """Each call gives what comes next, never more than a piece at once however it is compressed; empty at the end."""
    at, member, rest = 0, zlib.decompressobj(wbits=31), b""

    def step() -> bytes:
        nonlocal at, member, rest
        while True:
            if not rest:
                rest = window.read(at, 256 * 1024)
                at += len(rest)
            if member.eof:
                if not rest:
                    return b""
                member = zlib.decompressobj(wbits=31)
            elif not rest and not member.unconsumed_tail:
                raise InvalidImage("a layer", "its gzip stream is cut off")
            try:
                piece = member.decompress(rest, _CHUNK)
            except zlib.error as error:
                raise InvalidImage("a layer", f"its gzip stream cannot be read: {error}") from None
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if piece:
                return piece

    return step
