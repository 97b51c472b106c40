"""A bundle on its way to a node that has to be told what is in it: read and planned once, its root file system sent, then the create.

Nothing of this is an operation: what is wrong with a bundle, or cannot be had on the node, ends it before anything begins, and what
was sent lies there under a name that tells its content. config.json is read once; what somebody changes in it later changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import anyio.to_thread
import msgspec

from nexcage import names
from nexcage._bundles import BundleFiles, read_bundle
from nexcage._core.bundle import decode_config
from nexcage._core.bundle_plan.decide import demand
from nexcage._core.bundle_plan.model import BundlePlan, Root
from nexcage._core.config import Config
from nexcage._core.oci import OCI_VERSION
from nexcage._core.spec import Spec
from nexcage._engine.contents import Contents, Packed
from nexcage._engine.node import FleetNode
from nexcage._engine.shelves import Flights, carried
from nexcage._engine.supplies import Supplies, is_bundle
from nexcage._planning import planned
from nexcage.abc import Backend
from nexcage.errors import BundleRefused
from nexcage.tools import bundling, pvesm, shipping

__all__ = ["Bundles", "Ready"]

_PENDING = "nexcage-ROOTFS.tar.zst"
_DEFAULT_MAP = ("u 0 100000 65536", "g 0 100000 65536")


class Ready:
    """A bundle for one create. Until it was made ready on a node it can only be shown."""

    def __init__(self, files: BundleFiles, plan: BundlePlan, op_id: str, state: bytes, storage: str) -> None:
        self.plan: BundlePlan = plan
        self.bundle: str = files.path
        self.config: bytes = files.config
        self.state: bytes = state
        self.storage: str = storage
        self.size: int = 0
        self.sources: tuple[str, ...] = ()
        self._op_id = op_id
        self._name = _PENDING
        self._directory = "/var/lib/vz/template/cache"
        self._sender: Sender | None = None
        self.given: Packed | None = None
        """Its root file system, where that is no directory of this machine."""

    @property
    def template(self) -> str:
        return f"{self.storage}:vztmpl/{self._own}"

    @property
    def path(self) -> str:
        return f"{self._directory}/{self._own}"

    @property
    def _own(self) -> str:
        stem, ending = self._name.split(".", 1)
        return f"{stem}-{self._op_id}.{ending}"

    def packed(self, packed: Packed, directory: str, sender: Sender) -> None:
        """Its root file system lies in ``directory`` of the node: kept under its name, or where nobody sees it."""
        self.size, self._name, self._directory = packed.unpacked, packed.template, directory
        self._sender = sender
        self.sources = (f"{directory}/{packed.template}", f"{directory}/.{packed.template}")

    async def send(self) -> None:
        """Have the root file system there (again)."""
        if self._sender is not None:
            await self._sender()


class Sender(Protocol):
    async def __call__(self) -> None: ...


class Bundles:
    """What creates of bundles need; ``contents`` packs and sends."""

    def __init__(self, config: Config, contents: Contents, supplies: Supplies | None = None) -> None:
        self._config = config
        self._contents = contents
        self._supplies = supplies
        self._places: dict[tuple[str, str], str] = {}
        self._flights = Flights()

    async def read(self, id: str, spec: Spec, backend: Backend, op_id: str) -> tuple[Spec, Ready | None]:
        """The spec as it is to be begun, and its bundle; that is None where the backend reads bundles itself, or there is none.

        Raises InvalidBundle, InvalidPath, and BundleRefused for what the backend cannot have.
        """
        if spec.source is not None or not getattr(backend, "plans", False):
            return spec, None
        path = spec.bundle or (names.image(spec.image).path if names.image(spec.image).kind == "path" else None)
        if path is None:
            return spec, None
        if (
            self._supplies is not None
            and not spec.bundle
            and not await anyio.to_thread.run_sync(partial(is_bundle, path))
        ):
            return await self._image(id, spec, backend, op_id, self._supplies)
        roots = () if spec.bundle else self._config.bundle_roots
        files = await anyio.to_thread.run_sync(partial(read_bundle, path, roots))
        plan = planned(files, backend=backend.name, allow=spec.allow)
        _accepted(files.path, plan, backend.name)
        made = _described(spec, files.path, plan)
        state = _state(id, made, files.path)
        return made, Ready(files, plan, op_id, state, self._config.defaults.image_storage)

    async def _image(self, id: str, spec: Spec, backend: Backend, op_id: str, supplies: Supplies) -> tuple[Spec, Ready]:
        """The same for an image of this machine, whose bundle is made here."""
        image = await supplies.image(id, spec, user_namespace=spec.unprivileged)
        files = BundleFiles(image.path, image.config, decode_config(image.config), root=Root())
        plan = planned(files, backend=backend.name, allow=spec.allow)
        _accepted(files.path, plan, backend.name)
        made = _described(image.spec, files.path, plan)
        ready = Ready(files, plan, op_id, _state(id, made, files.path), self._config.defaults.image_storage)
        ready.given = await self._contents.compressed(image.packed, "zst")
        return made, ready

    async def ready(self, ready: Ready, spec: Spec, node: FleetNode) -> None:
        """See that the node has all that it needs. Raises BundleRefused for what is not there, and the errors of the node."""
        plan = ready.plan
        if plan.needs:
            lacking = await carried(node, bundling.lacking(plan.needs))
            lacking = tuple((need, why) for need, why in lacking if need.pointer not in spec.allow)
            if lacking:
                pointers, whys = tuple(need.pointer for need, _ in lacking), tuple(why for _, why in lacking)
                raise BundleRefused(ready.bundle, node.key, pointers, whys)
        packed = ready.given
        if packed is None:
            targets = _targets(plan)
            packed = await self._flights.join(
                ("pack", plan.rootfs, *targets), lambda: self._packed(plan.rootfs, targets)
            )
        directory = await self._place(node, ready.storage, packed.template)
        kept, unseen = f"{directory}/{packed.template}", f"{directory}/.{packed.template}"

        async def send() -> None:
            there = await carried(node, shipping.held((kept,)))
            if there.sizes.get(kept) != packed.size:
                dest = kept if spec.keep_template else unseen
                await self._contents.ship(node, packed.path, packed.sha256, packed.size, dest, public=True)

        ready.packed(packed, directory, send)
        await send()

    async def _packed(self, rootfs: str, targets: tuple[str, ...]) -> Packed:
        return await self._contents.pack(rootfs, compress="zst", targets=targets)

    async def _place(self, node: FleetNode, storage: str, name: str) -> str:
        """The directory of a storage's templates."""
        if (node.key, storage) not in self._places:
            path = await carried(node, pvesm.path(f"{storage}:vztmpl/{name}"))
            self._places[node.key, storage] = path.rpartition("/")[0]
        return self._places[node.key, storage]


def _accepted(path: str, plan: BundlePlan, backend: str) -> None:
    demand(path, plan)
    if plan.idmap and sorted(map(str, plan.idmap)) != sorted(_DEFAULT_MAP):
        why = "pct unpacks root file systems for the id map 0 100000 65536 only"
        raise BundleRefused(path, backend, ("/linux/uidMappings",), (why,))


def _described(spec: Spec, path: str, plan: BundlePlan) -> Spec:
    """With what state.json says of a bundle; annotations of the spec itself win."""
    said: Mapping[str, str] = {**dict(plan.annotations), **spec.annotations}
    return msgspec.structs.replace(spec, bundle=path, annotations=said, oci_version=plan.oci_version or None)


def _targets(plan: BundlePlan) -> tuple[str, ...]:
    """Where something is mounted in a root file system that LXC cannot make directories in."""
    if not plan.readonly:
        return ()
    entries = (value.split(" ") for key, value in plan.raw if key == "lxc.mount.entry")
    found = [words[1] for words in entries if len(words) > 3 and "create=dir" in words[3].split(",")]
    plain = [target.replace("\\040", " ") for target in found if "\\" not in target.replace("\\040", "")]
    return (".nexcage", *sorted(set(plain)))


def _state(id: str, spec: Spec, bundle: str) -> bytes:
    """What hooks inside get on standard input."""
    state: dict[str, object] = {
        "ociVersion": spec.oci_version or OCI_VERSION,
        "id": id,
        "status": "created",
        "pid": 1,
        "bundle": bundle,
        "annotations": dict(spec.annotations),
    }
    return msgspec.json.encode(state)
