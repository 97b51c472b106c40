"""The lxc backend where containers have ZFS datasets of their own: what is done before ``pct create`` and after ``pct destroy``.

A dataset carries the mark of the create that made it, as the container does. Whatever changes one checks that in the same breath,
so that somebody else's is never touched; what a create that did not happen has left is found by it.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import anyio
import msgspec

from nexcage._backends import bundles
from nexcage._backends.lxc import Lxc
from nexcage._core.command import Command
from nexcage._core.config import ZfsConfig
from nexcage._core.datasets import Choice, Found, Survey, base_of, choose, name_of, retired_name
from nexcage._core.seen import Mark
from nexcage._core.spec import Spec
from nexcage.abc import Node, Ref
from nexcage.errors import AlreadyExists, Blocked, Busy, NodeNotUsable, NotFound, NotOurs
from nexcage.names import dataset
from nexcage.tools import datasets, pct, values, zfs

__all__ = ["PATIENCE", "LxcOnZfs"]

PATIENCE = 20.0  # seconds that a delete waits for whoever uses the dataset
SNAPSHOT = "nexcage-deleted"  # of a root disk that is kept: pct destroy empties it
SHIFTED = 100_000  # what root of an unprivileged container is on the host


class LxcOnZfs(Lxc):
    """`Lxc` with ``[zfs]``. ``tidy`` removes, keeps or renames what is left when there is no container any more."""

    def __init__(self, config: ZfsConfig) -> None:
        self._config = config
        self._base = base_of(config.pool)

    def check(self, id: str, spec: Spec) -> None:
        super().check(id, spec)
        dataset(name_of(self._base, id, 999_999_999))

    # ---- making ------------------------------------------------------------------------------------------------------------

    async def make(
        self, node: Node, mark: Mark, template: str, spec: Spec, hostname: str, bundle: bundles.Prepared | None
    ) -> None:
        found = await self._survey(node, mark)
        choice = choose(self._config, found, mark, spec, node.name)
        if not choice.dataset:
            command = pct.create(mark, template, _on(choice.storage, spec), hostname, held=bundle is not None)
            await node.run(_without(bundles.with_words(command, bundle), choice.note))
            return
        await self._prepare(node, choice, mark, spec)
        try:
            command = self._create(choice, mark, template, spec, hostname, held=bundle is not None)
            await node.run(bundles.with_words(command, bundle))
        except AlreadyExists:  # the VMID is somebody else's
            await self._destroy(node, choice.dataset, mark, choice.mountpoint)
            raise

    async def _prepare(self, node: Node, choice: Choice, mark: Mark, spec: Spec) -> None:
        if choice.parents:
            await node.run(zfs.create(choice.base, parents=True))
        if choice.place is not None:
            with suppress(AlreadyExists):  # another create was faster
                await node.run(datasets.add_place(choice.place))
        if not choice.there:
            owner = (SHIFTED if spec.unprivileged else 0) if self._config.mount else None
            await node.run(datasets.make(choice, mark, owner))

    def _create(
        self, choice: Choice, mark: Mark, template: str, spec: Spec, hostname: str, *, held: bool
    ) -> Command[None]:
        if self._config.mount:
            # With a mount point, pct wants the root disk said too: PVE's own default.
            sized = spec if spec.size else msgspec.structs.replace(spec, size=4)
            command = pct.create(mark, template, sized, hostname, held=held)
            words: tuple[str, ...] = (f"--mp{_free(command.argv)}", f"{choice.mountpoint},mp={self._config.mount}")
        else:
            root = pct.Settings(rootfs=values.Rootfs(volume=f"{choice.storage}:0"))
            command = pct.create(mark, template, spec, hostname, root, held=held)
            words = ()
        tries = {**command.tries, "dataset": choice.dataset}
        return msgspec.structs.replace(command, argv=(*command.argv, *words), tries=tries)

    # ---- deleting ----------------------------------------------------------------------------------------------------------

    async def delete(self, node: Node, ref: Ref, *, force: bool, purge: bool) -> None:
        """What holds the dataset is found before the container is gone: then nothing has been done yet."""
        mark = node.mark(ref.id, ref.vmid)
        survey = await self._survey(node, mark)
        if self._config.required and survey.why:
            raise NodeNotUsable(node.name, f"{survey.why} (zfs.required)")
        found = self._own(survey, mark)
        guest = node.seen.guests.get(ref.vmid)
        if found is not None and not (guest is not None and guest.running) and self._config.on_delete != "keep":
            await self._until_free(node, found)
        if found is not None and self._config.on_delete != "destroy" and not self._config.mount:
            await self._keep(node, found.name, mark)
        await super().delete(node, ref, force=force, purge=purge)

    async def tidy(self, node: Node, ref: Ref, *, deleted: bool) -> None:
        """Put away the dataset of a container that is no more: by ``on_delete`` when it was ``deleted``, else all that its create made."""
        if deleted:
            await self._retire(node, node.mark(ref.id, ref.vmid))
            return
        wanted = node.mark(ref.id, 0)
        try:
            marked = await node.run(datasets.marked(self._base))
        except (NotFound, NodeNotUsable):
            return
        for name, mark in marked:
            if (mark.fleet, mark.id, mark.op) == (wanted.fleet, wanted.id, wanted.op):
                await self._destroy(node, name, mark, "")

    async def _retire(self, node: Node, mark: Mark) -> None:
        found = self._own(await self._survey(node, mark), mark)
        if found is None:
            return
        new = retired_name(found.name, mark)
        match self._config.on_delete:
            case "destroy":
                await self._destroy(node, found.name, mark, found.mountpoint)
            case "rename":
                await self._unmount(node, found, mark)
                renamed = datasets.guarded(found.name, mark, zfs.rename(found.name, new), f"its dataset is {new} now")
                await self._patiently(node, renamed, found.mountpoint)
            case _:
                if not self._config.mount:  # the next guest with this VMID needs the place
                    await self._unmount(node, found, mark)

    async def _unmount(self, node: Node, found: Found, mark: Mark) -> None:
        if found.mountpoint:
            off = zfs.set_(found.name, "mountpoint", "none")
            note = f"its dataset {found.name} is kept, unmounted"
            await self._patiently(node, datasets.guarded(found.name, mark, off, note), found.mountpoint)

    async def _keep(self, node: Node, name: str, mark: Mark) -> None:
        """``pct destroy`` removes the volume in it, so its content is kept as a snapshot; an older one is of a delete that failed."""
        full = f"{name}@{SNAPSHOT}"
        try:
            await node.run(datasets.guarded(name, mark, zfs.snapshot(full)))
        except AlreadyExists:
            await node.run(datasets.guarded(name, mark, zfs.destroy(full)))
            await node.run(datasets.guarded(name, mark, zfs.snapshot(full)))

    async def _destroy(self, node: Node, name: str, mark: Mark, mountpoint: str) -> None:
        await self._patiently(node, datasets.destroyed(name, mark), mountpoint)

    # ---- waiting for others ------------------------------------------------------------------------------------------------

    async def _patiently(self, node: Node, command: Command[Any], mountpoint: str) -> None:
        """Run it until nobody is in the way; raises Blocked that names who still is. What is gone or not ours is let be."""
        until = anyio.current_time() + PATIENCE
        for attempt in itertools.count():
            try:
                await node.run(command)
                return
            except (NotFound, NotOurs):
                return
            except Busy as busy:
                if anyio.current_time() > until:
                    holders = await node.run(datasets.holders(mountpoint)) if mountpoint else ()
                    raise Blocked(busy.what, _shown(holders)).noted(*getattr(busy, "__notes__", ())) from None
            await anyio.sleep(min(0.25 * 2.0**attempt, 4.0))

    async def _until_free(self, node: Node, found: Found) -> None:
        """Until nobody has a file open in it."""
        until = anyio.current_time() + PATIENCE
        for attempt in itertools.count():
            holders = tuple(who for who in await node.run(datasets.holders(found.mountpoint)) if who.endswith(" file"))
            if not holders or not found.mounted:
                return
            if anyio.current_time() > until:
                raise Blocked(f"dataset {found.name} on {node.name}", _shown(holders))
            await anyio.sleep(min(0.25 * 2.0**attempt, 4.0))

    # ---- looking -----------------------------------------------------------------------------------------------------------

    async def _survey(self, node: Node, mark: Mark) -> Survey:
        return await node.run(datasets.survey(self._base, name_of(self._base, mark.id, mark.vmid)))

    def _own(self, survey: Survey, mark: Mark) -> Found | None:
        """The container's dataset, as long as it carries its mark."""
        found = survey.found.get(name_of(self._base, mark.id, mark.vmid))
        return found if found is not None and found.mark == str(mark) else None


def _shown(holders: tuple[str, ...]) -> str:
    """``PID NAME file`` and ``PID NAME mount`` as an operator reads it."""
    told = [
        f"{name} (pid {pid}{', another mount namespace' if how == 'mount' else ''})"
        for pid, name, how in map(_three, holders)
    ]
    return ", ".join(told[:4]) or "somebody who does not show up in /proc (a hold, a send, another mount namespace)"


def _three(line: str) -> tuple[str, str, str]:
    pid, name, how = (*line.split(" "), "", "", "")[:3]
    return pid, name, how


def _without(command: Command[None], note: str) -> Command[None]:
    return msgspec.structs.replace(command, tries={**command.tries, "note": note}) if note else command


def _on(storage: str, spec: Spec) -> Spec:
    return msgspec.structs.replace(spec, storage=storage) if storage else spec


def _free(argv: tuple[str, ...]) -> int:
    """The first ``mpN`` that the container does not have yet."""
    return next(n for n in range(256) if f"--mp{n}" not in argv)
