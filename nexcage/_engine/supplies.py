"""What a create needs of this machine, sent to its node before it begins: a bundle's or an image's root file system and config.json.

Both lie in the node's cache under the checksums of their bytes, so the create itself is one command that only reads there. Nothing here
is an operation: it may be repeated, and a create that ends before it began leaves nothing but content that others can use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
import msgspec

from nexcage import names
from nexcage._bundles import read_bundle
from nexcage._core import image_config
from nexcage._core.bundle.image import ImageConfig
from nexcage._core.command import Command, text
from nexcage._core.config import Config
from nexcage._core.contents import Content
from nexcage._core.handing import reads_images
from nexcage._core.layout import Wanted
from nexcage._core.oci import theirs
from nexcage._core.spec import Spec
from nexcage._engine.contents import Contents, Packed
from nexcage._engine.honoured import demanded
from nexcage._engine.node import FleetNode
from nexcage._engine.shelves import carried
from nexcage._engine.sources import located
from nexcage._engine.unpacking import Made, Unpacker
from nexcage.abc import Backend
from nexcage.errors import InvalidPath, NexcageError
from nexcage.tools import parts, shipping

__all__ = ["Image", "Supplies", "is_bundle"]

_MACHINES: Mapping[str, str] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "armhf": "arm",
    "riscv64": "riscv64",
}
_TRUSTED = 10.0  # seconds that content which was sent is taken to be there still
_SOURCE = "org.nexcage.image.source"
_DIGEST = "org.nexcage.image.digest"


class Image(NamedTuple):
    """An image of this machine as content: the spec with what state.json says of it, config.json, and the root file system."""

    spec: Spec
    path: str
    config: bytes
    packed: Packed
    made: Made


class Supplies:
    """Sees to it that nodes have what creates are made from."""

    def __init__(self, contents: Contents, unpacker: Unpacker, config: Config) -> None:
        self.contents: Contents = contents
        self._unpacker = unpacker
        self._config = config
        self._machines: dict[str, str] = {}
        self._reads: dict[str, bool] = {}
        self._sent: dict[tuple[str, str], float] = {}

    async def ready(
        self, id: str, spec: Spec, node: FleetNode, *, backend: Backend | None = None, send: bool = True
    ) -> Spec:
        """The spec with its content, which is on the node by then; as it is where the node has the bundle itself.

        Raises BundleRefused for what ``backend`` would drop of a bundle without a word, InvalidBundle, InvalidImage, InvalidPath,
        UnsupportedImage, NodeNotUsable for a program that is missing or no room, and the errors of the node. ``send``: False only finds
        out what would be sent.
        """
        if spec.content is not None:
            return spec
        path = spec.bundle or names.image(spec.image).path
        if path is None:
            return spec
        in_place = spec.bundle is not None or await anyio.to_thread.run_sync(partial(is_bundle, path))
        if in_place:
            return await self._of_bundle(spec, path, node, backend, send=send)
        image = await self.image(id, spec, node)
        await self._send(node, image.packed, image.config, send=send)
        return msgspec.structs.replace(image.spec, content=_content(image.packed, image.config, image.made.size))

    def forget(self, node: FleetNode, digest: str) -> None:
        """The content is no longer there."""
        self._sent.pop((node.key, shipping.cached(digest)), None)

    async def template(self, path: str, node: FleetNode, *, archive: bool = False) -> Packed:
        """The root file system of a bundle or an image of this machine, compressed as templates are; an image as an oci-archive where
        ``archive`` says so. Nothing is sent.
        """
        if await anyio.to_thread.run_sync(partial(is_bundle, path)):
            files = await anyio.to_thread.run_sync(partial(read_bundle, path, ()))
            if files.decoded is None:
                raise files.error or InvalidPath("bundle", path, "a directory with config.json")
            root = files.decoded.document.root
            return await self.contents.pack(Path(files.path) / (root.path if root else "rootfs"), compress="zst")
        where, tag = await anyio.to_thread.run_sync(located, path)
        wanted = Wanted(await self._arch(node))
        if archive:
            return (await self._unpacker.archived(where, tag, wanted))[1]
        _, packed = await self._unpacker.made(where, tag, wanted)
        return await self.contents.compressed(packed, "zst")

    async def reads_images(self, node: FleetNode) -> bool:
        """Whether Proxmox VE on this node makes containers from images itself; asked once."""
        if node.key not in self._reads:
            try:
                found = await carried(node, parts.part("pve-container"))
            except NexcageError as error:
                if error.retryable:
                    raise
                found = ""
            self._reads[node.key] = reads_images(found)
        return self._reads[node.key]

    async def image(self, id: str, spec: Spec, node: FleetNode, *, user_namespace: bool = False) -> Image:
        """The image that ``spec.image`` names on this machine, for machines like ``node``. Nothing is sent."""
        path, tag, wanted = await self._meant(spec, node)
        made, packed = await self._unpacker.made(path, tag, wanted)
        spec = _noted(spec, path, tag, made)
        document = image_config.document(id, made.image, spec, made.user)
        if user_namespace:
            document = image_config.mapped(document)
        return Image(spec, str(path), image_config.encoded(document), packed, made)

    async def archived(self, spec: Spec, node: FleetNode) -> Image:
        """The same as an oci-archive, for who reads images himself."""
        path, tag, wanted = await self._meant(spec, node)
        made, packed = await self._unpacker.archived(path, tag, wanted)
        return Image(_noted(spec, path, tag, made), str(path), b"", packed, made)

    async def said(self, spec: Spec, node: FleetNode) -> ImageConfig:
        """What that image says of itself; none of its layers is read."""
        return await self._unpacker.said(*await self._meant(spec, node))

    async def _meant(self, spec: Spec, node: FleetNode) -> tuple[Path, str, Wanted]:
        ref = names.image(spec.image)
        path, tag = await anyio.to_thread.run_sync(located, ref.path or ref.text)
        return path, tag, Wanted(_arch(spec.arch or await self._arch(node)))

    async def _of_bundle(self, spec: Spec, path: str, node: FleetNode, backend: Backend | None, *, send: bool) -> Spec:
        roots = () if spec.bundle else self._config.bundle_roots
        files = await anyio.to_thread.run_sync(partial(read_bundle, path, roots))
        if files.decoded is None:
            raise files.error or InvalidPath("bundle", path, "a directory with config.json")
        if backend is not None:
            await demanded(files, spec.allow, backend, node)
        document, where = files.decoded.document, files.path
        said = {**theirs(document.annotations), **spec.annotations}
        spec = msgspec.structs.replace(spec, bundle=where, annotations=said)
        if node.host.local:
            return spec
        rootfs = Path(where) / (document.root.path if document.root else "rootfs")
        packed = await self.contents.pack(rootfs)
        config = _moved(files.config)
        await self._send(node, packed, config, send=send)
        return msgspec.structs.replace(spec, content=_content(packed, config, packed.unpacked))

    async def _send(self, node: FleetNode, packed: Packed, config: bytes, *, send: bool) -> None:
        if not send:
            return
        rootfs = shipping.cached(packed.digest)
        if anyio.current_time() - self._sent.get((node.key, rootfs), -1e9) > _TRUSTED:
            await self.contents.ship(node, packed.path, packed.sha256, packed.size, rootfs)
            self._sent[node.key, rootfs] = anyio.current_time()
        sha256 = hashlib.sha256(config).hexdigest()
        await self.contents.put(node, config, shipping.cached(f"sha256:{sha256}", ".json"))

    async def _arch(self, node: FleetNode) -> str:
        """What the node's machine is called in images; where it does not say, it is taken to be one like this."""
        if node.key not in self._machines:
            machine = os.uname().machine
            if not node.host.local:
                command: Command[str] = Command(("uname", "-m"), text, safe=True, weight="read", timeout=30.0)
                try:
                    machine = (await carried(node, command)).strip()
                except NexcageError as error:
                    if error.retryable:
                        raise
            self._machines[node.key] = _arch(machine)
        return self._machines[node.key]


def _arch(machine: str) -> str:
    return _MACHINES.get(machine, machine)


def is_bundle(path: str) -> bool:
    """Whether a path of this machine is a bundle, not an image."""
    return (Path(path) / "config.json").is_file() and not (Path(path) / "oci-layout").exists()


def _noted(spec: Spec, path: Path, tag: str, made: Made) -> Spec:
    """With what state.json says of its image; annotations of the spec itself win."""
    noted = {_SOURCE: f"{path}{':' if tag else ''}{tag}", _DIGEST: made.digest}
    return msgspec.structs.replace(
        spec, annotations={**theirs(image_config.told(made.image)), **noted, **spec.annotations}
    )


def _moved(config: bytes) -> bytes:
    """config.json whose root file system lies beside it; everything else stays, also what nobody here knows."""
    whole = msgspec.json.decode(config)
    whole["root"] = {**(whole.get("root") or {}), "path": "rootfs"}
    return msgspec.json.encode(whole)


def _content(packed: Packed, config: bytes, size: int) -> Content:
    return Content(packed.digest, f"sha256:{hashlib.sha256(config).hexdigest()}", size)
