"""A bundle on its way to a node that has to be told what is in it: read and planned once, its root file system sent, then the create.

Nothing of this is an operation: what is wrong with a bundle, or cannot be had on the node, ends it before anything begins, and what
was sent lies there under a name that tells its content. config.json is read once; what somebody changes in it later changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import anyio.to_thread
import msgspec

from nexcage import names
from nexcage._bundles import BundleFiles, read_bundle
from nexcage._core.bundle import decode_config
from nexcage._core.bundle_plan.decide import demand
from nexcage._core.bundle_plan.model import BundlePlan, Root
from nexcage._core.config import Config
from nexcage._core.contents import Content, gibibytes
from nexcage._core.handing import wish, wrong_for_pve
from nexcage._core.oci import OCI_VERSION, theirs
from nexcage._core.spec import Spec
from nexcage._engine.contents import Contents, Packed
from nexcage._engine.node import FleetNode
from nexcage._engine.sent import Handed, Sent
from nexcage._engine.shelves import Flights, carried
from nexcage._engine.supplies import Supplies, is_bundle
from nexcage._planning import planned
from nexcage.abc import Backend
from nexcage.errors import BundleRefused
from nexcage.tools import bundling, pvesm, shipping

__all__ = ["Bundles", "Ready"]

_log = logging.getLogger("nexcage")
_PENDING = "nexcage-ROOTFS.tar.zst"
_DEFAULT_MAP = ("u 0 100000 65536", "g 0 100000 65536")


class Ready(Sent):
    """A bundle for one create. Until it was made ready on a node it can only be shown."""

    def __init__(self, files: BundleFiles, plan: BundlePlan, op_id: str, state: bytes, storage: str) -> None:
        super().__init__(op_id, storage, _PENDING)
        self.plan: BundlePlan = plan
        self.bundle: str = files.path
        self.config: bytes = files.config
        self.state: bytes = state


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
            return spec, None  # an image: see below
        roots = () if spec.bundle else self._config.bundle_roots
        files = await anyio.to_thread.run_sync(partial(read_bundle, path, roots))
        plan = planned(files, backend=backend.name, allow=spec.allow)
        _accepted(files.path, plan, backend.name)
        made = _described(spec, files.path, plan)
        state = _state(id, made, files.path)
        return made, Ready(files, plan, op_id, state, self._config.defaults.image_storage)

    async def image(
        self, id: str, spec: Spec, backend: Backend, op_id: str, node: FleetNode
    ) -> tuple[Spec, Ready | Handed | None]:
        """The same for an image of this machine, where ``node`` is to have the container: handed over as it is where Proxmox VE makes
        the same of it, else by a bundle that is made here. Raises the errors of `Supplies` too.
        """
        supplies = self._supplies
        if supplies is None or spec.source is not None or spec.bundle or not getattr(backend, "plans", False):
            return spec, None
        if names.image(spec.image).kind != "path":
            return spec, None
        storage = self._config.defaults.image_storage
        why = wish(spec, strict_oci=self._config.strict_oci)
        why = why or ("" if await supplies.reads_images(node) else "its pve-container is older than 6.0.15")
        why = why or wrong_for_pve(await supplies.said(spec, node))
        if not why:
            handed = await supplies.archived(spec, node)
            size = handed.spec.size or gibibytes(handed.made.size)
            content = Content(handed.packed.digest, size=handed.packed.size)
            made = msgspec.structs.replace(handed.spec, size=size, content=content)
            return made, Handed(op_id, storage, handed.packed.template, handed.packed)
        _log.debug("%s: %s is made as a bundle: %s", node.key, spec.image, why)
        image = await supplies.image(id, spec, node, user_namespace=spec.unprivileged)
        files = BundleFiles(image.path, image.config, decode_config(image.config), root=Root())
        plan = planned(files, backend=backend.name, allow=spec.allow)
        _accepted(files.path, plan, backend.name)
        made = _described(image.spec, files.path, plan)
        ready = Ready(files, plan, op_id, _state(id, made, files.path), storage)
        ready.given = await self._contents.compressed(image.packed, "zst")
        return made, ready

    async def ready(self, ready: Ready | Handed, spec: Spec, node: FleetNode) -> None:
        """See that the node has all that it needs. Raises BundleRefused for what is not there, and the errors of the node."""
        packed = ready.given
        if isinstance(ready, Ready):
            await _had(ready, spec, node)
            if packed is None:
                targets = _targets(ready.plan)
                packed = await self._flights.join(
                    ("pack", ready.plan.rootfs, *targets), lambda: self._packed(ready.plan.rootfs, targets)
                )
        assert packed is not None
        await self._sent(ready, packed, spec, node)

    async def _sent(self, ready: Sent, packed: Packed, spec: Spec, node: FleetNode) -> None:
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


async def _had(ready: Ready, spec: Spec, node: FleetNode) -> None:
    """Raises BundleRefused for what of the node it needs and cannot have."""
    if not ready.plan.needs:
        return
    lacking = await carried(node, bundling.lacking(ready.plan.needs))
    lacking = tuple((need, why) for need, why in lacking if need.pointer not in spec.allow)
    if lacking:
        pointers, whys = tuple(need.pointer for need, _ in lacking), tuple(why for _, why in lacking)
        raise BundleRefused(ready.bundle, node.key, pointers, whys)


def _accepted(path: str, plan: BundlePlan, backend: str) -> None:
    demand(path, plan)
    if plan.idmap and sorted(map(str, plan.idmap)) != sorted(_DEFAULT_MAP):
        why = "pct unpacks root file systems for the id map 0 100000 65536 only"
        raise BundleRefused(path, backend, ("/linux/uidMappings",), (why,))


def _described(spec: Spec, path: str, plan: BundlePlan) -> Spec:
    """With what state.json says of a bundle; annotations of the spec itself win."""
    said: Mapping[str, str] = {**theirs(dict(plan.annotations)), **spec.annotations}
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
