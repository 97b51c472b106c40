"""Images of the nodes: which are there, fetching what is missing, removing.

A create asks whether its template exists before it begins. One look at the files of a node answers for all creates there, and what
was seen is believed for a while: a template that has vanished since is refused by ``pct`` itself. Creates that miss the same image
wait for one download of it. Nothing here is an operation of a container: each may be repeated, and is done when a look shows it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import anyio
import anyio.to_thread

from nexcage import names
from nexcage._core.config import Config
from nexcage._core.images import Image, Shelf, Template, closest, volume_of
from nexcage._core.route import Plan, alias_of
from nexcage._engine.node import FleetNode
from nexcage._engine.provisions import Provisions
from nexcage._engine.shelves import Flights, Shelves, carried
from nexcage.errors import CommandFailed, InvalidSpec, NexcageError, NodeError, NotFound, UnsupportedImage
from nexcage.tools import pveam, pvesh, pvesm, shipping

__all__ = ["Images"]

T = TypeVar("T")
_log = logging.getLogger("nexcage")


class Images:
    """What the fleet's nodes have. ``nodes`` by key."""

    def __init__(self, nodes: Mapping[str, FleetNode], config: Config, provisions: Provisions | None = None) -> None:
        self._nodes = nodes
        self._config = config
        self._provisions = provisions
        self._shelves = Shelves()
        self._flights = Flights()
        self._locks: dict[str, anyio.Lock] = {}

    # ---- before a create ---------------------------------------------------------------------------------------------------

    async def ready(self, node: FleetNode, plan: Plan) -> None:
        """Make sure that the template of ``plan`` is on the node: seen there, or fetched when the plan says so.

        Raises NotFound with the closest names that are there. Where nobody can tell, and nothing is to be fetched, the create goes
        on: its own command will say what is wrong.
        """
        image = names.image(plan.spec.image)
        if image.kind != "template" or (image.storage and self._shelves.known(node.key, image.storage, str(image))):
            return
        try:
            if image.path:
                if await self._shelves.has_file(node, image.path) is False:
                    raise NotFound("template", image.path, f"does not exist on {node.key}")
                return
            seen = await self._shelves.look(node, image.storage or "")
        except NotFound:
            raise
        except NexcageError as error:
            if plan.spec.pull:
                raise
            _log.debug("%s: whether it has %s cannot be seen: %s", node.key, image, error)
            return
        if not seen.stores or seen.image(str(image)):
            return
        if not plan.spec.pull:
            raise self._missing(node, str(image), seen)
        try:
            await self._fetched(node, str(image), plan.source)
        except NodeError as error:
            error.uncertain = False  # of the container nothing has begun, and fetching may be repeated
            raise

    def _missing(self, node: FleetNode, volume: str, seen: Shelf) -> NexcageError:
        storage, _, name = volume.partition(":vztmpl/")
        if fault := _refusal(node, volume, seen):
            return fault
        near = closest(name, (image.name for image in seen.images if image.kind == "vztmpl"))
        like = f"; like it are there: {', '.join(near)}" if near else ""
        error = NotFound("template", volume, f"does not exist on {node.key}{like}")
        others = [key for key in self._nodes if key != node.key and self._shelves.known(key, storage, volume)]
        there = f"it is on {', '.join(others[:5])}" if others else ""
        return error.noted(
            there,
            "with --pull it is downloaded if Proxmox VE offers it; 'nexcage images --available' lists what it does",
        )

    # ---- for people --------------------------------------------------------------------------------------------------------

    async def images(self, keys: Iterable[str]) -> dict[str, tuple[Image, ...] | NexcageError]:
        """See `Fleet.images`."""

        async def one(node: FleetNode) -> tuple[Image, ...]:
            return (await self._shelves.look(node)).images

        return await self._each(keys, one)

    async def available(self, keys: Iterable[str]) -> dict[str, tuple[Template, ...] | NexcageError]:
        """See `Fleet.available`."""

        async def one(node: FleetNode) -> tuple[Template, ...]:
            return await carried(node, pveam.available())

        return await self._each(keys, one)

    async def pull(self, image: str, keys: Iterable[str], storage: str) -> dict[str, Image | NexcageError]:
        """See `Fleet.pull`."""
        volume, source = self._volume(image, storage)

        async def one(node: FleetNode) -> Image:
            found = (await self._shelves.look(node, volume.partition(":")[0])).image(volume)
            return found or await self._fetched(node, volume, source)

        return await self._each(keys, one)

    async def push(self, image: str, keys: Iterable[str], storage: str) -> dict[str, Image | NexcageError]:
        """See `Fleet.push_image`."""
        place = names.storage(storage) if storage else self._config.defaults.image_storage
        ref = names.image(image)
        if ref.kind == "reference" and (alias := alias_of(ref, self._config.images, "lxc")):
            ref = names.image(alias)
        path = ref.path if ref.kind in ("path", "template") else None
        if path is None or self._provisions is None:
            ways = "a layout, an archive or a bundle of this machine (/DIR, ./DIR, oci-archive:/FILE), or an alias of one in [images]"
            raise UnsupportedImage("image", image, ways)
        supplies, meant = self._provisions.supplies, path

        async def one(node: FleetNode) -> Image:
            packed = await supplies.template(meant, node, archive=await supplies.reads_images(node))
            volume = f"{place}:vztmpl/{packed.template}"
            dest = (await carried(node, pvesm.path(volume))).strip()
            async with self._alone(node, volume):
                await supplies.contents.ship(node, packed.path, packed.sha256, packed.size, dest, public=True)
            self._shelves.forget(node.key, place)
            found = (await self._shelves.look(node, place)).image(volume)
            if found is None:
                raise CommandFailed(
                    node.key, ("push", volume), 0, f"it arrived as {dest}, but storage {place} does not show it"
                )
            return found

        return await self._each(keys, one)

    async def remove(self, image: str, keys: Iterable[str], storage: str) -> dict[str, bool | NexcageError]:
        """See `Fleet.rmi`."""
        if re.fullmatch(r"sha256:[0-9a-f]{64}", image):
            return await self._discard(image, keys)
        volume = image if _is_volume(image) else self._volume(image, storage)[0]

        async def one(node: FleetNode) -> bool:
            async with self._alone(node, volume):
                return await self._removed(node, volume)

        return await self._each(keys, one)

    async def _discard(self, digest: str, keys: Iterable[str]) -> dict[str, bool | NexcageError]:
        """Content goes from the nodes, and from this machine too."""
        paths = [shipping.cached(digest, ending) for ending in (".tar", ".json")]

        async def one(node: FleetNode) -> bool:
            if self._provisions is not None:
                self._provisions.supplies.forget(node, digest)
            if not (await carried(node, shipping.held(paths))).sizes:
                return False
            await carried(node, shipping.discard(*paths))
            self._shelves.forget(node.key, "")
            return True

        if self._provisions is not None:
            await anyio.to_thread.run_sync(self._provisions.contents.store.remove, digest.partition(":")[2])
        return await self._each(keys, one)

    async def _removed(self, node: FleetNode, volume: str) -> bool:
        place = volume.partition(":")[0]
        self._shelves.forget(node.key, place)
        found = (await self._shelves.look(node, place)).image(volume)
        if found is None:
            return False
        command = pveam.remove(volume) if found.kind == "vztmpl" else pvesm.free(volume)
        lost = None
        try:
            await carried(node, command)
        except NodeError as error:
            if not error.uncertain:
                raise
            lost = error
        finally:
            self._shelves.forget(node.key, place)
        if (await self._shelves.look(node, place)).image(volume) is not None:
            raise lost or CommandFailed(node.key, command.argv, 0, "it is still there")
        return True

    def _volume(self, image: str, storage: str) -> tuple[str, str]:
        """The volume that a text means for containers, and the reference that it comes from, if any."""
        ref = names.image(image)
        place = names.storage(storage) if storage else self._config.defaults.image_storage
        if ref.kind == "reference" and (alias := alias_of(ref, self._config.images, "lxc")):
            ref = names.image(alias)
        if ref.kind == "reference":
            return volume_of(ref, place), str(ref)
        if ref.kind != "template" or ref.path:
            ways = "a template (STORAGE:vztmpl/NAME), an alias of one, or NAME:TAG of a registry; nexcage images has the names"
            raise UnsupportedImage("image", image, ways)
        if storage and ref.storage not in (None, storage):
            raise InvalidSpec("storage", storage, f"{ref.storage}, which the image names")
        return f"{ref.storage or place}:vztmpl/{ref.name}", ""

    # ---- fetching ----------------------------------------------------------------------------------------------------------

    async def _fetched(self, node: FleetNode, volume: str, source: str) -> Image:
        async def fetch() -> Image:
            async with self._alone(node, volume):
                return await self._fetch(node, volume, source)

        return await self._flights.join((node.key, volume), fetch)

    def _alone(self, node: FleetNode, volume: str) -> anyio.Lock:
        """One at a time for an image on a storage that nodes share, else for an image on a node."""
        shared = self._shelves.shared(node.key, volume.partition(":")[0])
        return self._locks.setdefault(volume if shared else f"{node.key} {volume}", anyio.Lock())

    async def _fetch(self, node: FleetNode, volume: str, source: str) -> Image:
        place, _, name = volume.partition(":vztmpl/")
        self._shelves.forget(node.key, place)
        seen = await self._shelves.look(node, place)
        if (found := seen.image(volume)) is not None:
            return found
        if fault := _refusal(node, volume, seen):
            raise fault
        _log.info("%s: fetching %s", node.key, source or volume)
        said, lost = "", None
        try:
            fetch = _from_registry(node, seen.pve, place, source, name) if source else _from_index(node, place, name)
            said = await fetch
        except NodeError as error:
            if not error.uncertain:
                raise
            lost = error
        self._shelves.forget(node.key, place)
        found = (await self._shelves.look(node, place)).image(volume)
        if found is None:
            argv = ("pvesh", "create", source) if source else ("pveam", "download", place, name)
            what = said or "it said it was done, but the image is not there"
            raise lost or CommandFailed(node.key, argv, 0, what)
        return found

    async def _each(self, keys: Iterable[str], one: Callable[[FleetNode], Awaitable[T]]) -> dict[str, T | NexcageError]:
        """``one`` on each of these nodes (all without ``keys``) at the same time; an error in the place of what failed."""
        wanted = list(dict.fromkeys(keys)) or list(self._nodes)
        for key in wanted:
            if key not in self._nodes:
                raise NotFound("node", key, "is not in this fleet")
        answers: dict[str, T | NexcageError] = {}

        async def ask(key: str) -> None:
            try:
                answers[key] = await one(self._nodes[key])
            except NexcageError as error:
                answers[key] = error

        async with anyio.create_task_group() as tasks:
            for key in wanted:
                tasks.start_soon(ask, key)
        return {key: answers[key] for key in wanted}


def _refusal(node: FleetNode, volume: str, seen: Shelf) -> NexcageError | None:
    """Why templates cannot lie on the storage at all."""
    storage = volume.partition(":")[0]
    if (store := seen.stores.get(storage)) is None:
        return NotFound("storage", storage, f"does not exist on {node.key}; these do: {', '.join(seen.stores)}")
    why = store.refusal(seen.pve)
    return UnsupportedImage("image", volume, f"storage {storage} of {node.key} {why}") if why else None


async def _from_index(node: FleetNode, place: str, name: str) -> str:
    """Download a template of PVE's index, which is fetched anew when it does not have the name; what was said last."""
    try:
        return _last(await carried(node, pveam.download(place, name)))
    except NotFound as error:
        if error.what != "template":
            raise
    await carried(node, pveam.update())
    try:
        return _last(await carried(node, pveam.download(place, name)))
    except NotFound as error:
        near = closest(name, (one.name for one in await carried(node, pveam.available())))
        like = f"; like it are: {', '.join(near)}" if near else ""
        raise NotFound("template", name, f"is not among those that {node.key} can download{like}") from error


async def _from_registry(node: FleetNode, pve: str, place: str, source: str, name: str) -> str:
    """Pull from a registry; what its task said when it failed."""
    upid = await carried(node, pvesh.oci_pull(pve, place, source, name.removesuffix(".tar")))
    if not upid:
        return ""
    try:
        task = await carried(node, pvesh.task(pve, upid))
    except NexcageError:
        return ""
    return task.exitstatus if task.failed else ""


def _is_volume(text: str) -> bool:
    """Whether it is PVE's id of an image that is no template: ``local:iso/x.iso``."""
    place, colon, name = text.partition(":")
    return bool(colon) and name.startswith(("iso/", "import/")) and bool(names.storage(place))


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else ""
