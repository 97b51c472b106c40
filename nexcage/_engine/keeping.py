"""What people do to a container that goes on being what it is: snapshots, settings, disks, place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nexcage._core.changes import Change, plan_update
from nexcage._core.details import Details, Snap
from nexcage._core.keeping import (
    Backup,
    DelSnapshot,
    MakeTemplate,
    Migrate,
    MoveVolume,
    Resize,
    Rollback,
    Snapshot,
    Update,
)
from nexcage._core.outcome import Done
from nexcage._core.seen import Mark
from nexcage._core.spec import Net
from nexcage._engine.saving import archives
from nexcage._engine.verbs import details_of
from nexcage.errors import NotFound
from nexcage.tools.pvesm import Volume

if TYPE_CHECKING:
    from nexcage._engine.fleet import Fleet

__all__ = ["Keeps"]


class Keeps:
    """A part of `Container`; its verbs drive the intents of the same names."""

    def __init__(self, fleet: Fleet, id: str) -> None:
        self.id: str = id
        self._fleet: Fleet = fleet

    async def snapshot(self, name: str, description: str = "", *, op_id: str | None = None, wait: bool = False) -> Done:
        """Keep its disks and settings as they are now; a running one is frozen for a moment. Raises AlreadyExists for a name that is
        taken, and Blocked where a storage has no snapshots.
        """
        return await self._fleet.do(Snapshot(self.id, name, description, op_id=op_id), wait=wait)

    async def snapshots(self) -> tuple[Snap, ...]:
        """Its snapshots, oldest first, looked up now."""
        details = await self.details()
        return tuple(sorted(details.snapshots.values(), key=lambda snap: (snap.at, snap.name)))

    async def delsnapshot(self, name: str, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Forget a snapshot; raises NotFound."""
        return await self._fleet.do(DelSnapshot(self.id, name, op_id=op_id), wait=wait)

    async def rollback(self, name: str, *, start: bool = False, op_id: str | None = None, wait: bool = False) -> Done:
        """Its disks and settings as at the snapshot. Kills it if it runs; then it is stopped, unless ``start``. Never repeated by itself:
        a lost answer raises Uncertain.
        """
        return await self._fleet.do(Rollback(self.id, name, start, op_id=op_id), wait=wait)

    async def backup(
        self,
        storage: str = "local",
        *,
        mode: str = "snapshot",
        compress: str = "zstd",
        op_id: str | None = None,
        wait: bool = False,
    ) -> str:
        """Save it as an archive on ``storage`` of its node; the volume id of the archive, for `nexcage.Fleet.restore`. See `Backup`.

        Never repeated by itself: a lost answer that the node has not kept raises Uncertain.
        """
        done = await self._fleet.do(Backup(self.id, storage, mode, compress, op_id=op_id), wait=wait)
        found = await archives(self._fleet.nodes[done.node], storage)
        ours = [volume.id for volume in found if volume.vmid == done.vmid]
        if not ours:
            raise NotFound("backup", self.id, f"is not on {storage} any more")
        return ours[-1]

    async def backups(self) -> tuple[Volume, ...]:
        """The archives of its VMID on its node, the oldest first. Raises NotFound and NodeError."""
        machine = await self._fleet.observe(self.id)
        if not machine.vmid:
            raise NotFound("container", self.id)
        found = await archives(self._fleet.nodes[machine.node])
        return tuple(volume for volume in found if volume.vmid == machine.vmid)

    async def details(self) -> Details:
        """Its settings, snapshots and the digest of both, looked up now. Raises NotFound, NodeError and what `Container.state` raises."""
        machine = await self._fleet.observe(self.id)
        if not machine.node:
            raise NotFound("container", self.id)
        node = self._fleet.nodes[machine.node].of(machine.backend)
        look = node.seen
        if look is None or machine.vmid not in look.guests:
            look = await node.look()
        return details_of(machine, look, machine.backend, "look at")

    async def plan(self, change: Update) -> tuple[Change, ...]:
        """What that update would change now, and what of it waits for a restart; changes nothing."""
        details, machine = await self.details(), self._fleet.machines[self.id]
        mark = str(Mark(self._fleet.id, self.id, machine.vmid, machine.mark))
        return plan_update(change, details, mark=mark, running=machine.pid != 0)

    async def update(
        self,
        *,
        memory: int | None = None,
        swap: int | None = None,
        cores: int | None = None,
        cpulimit: float | None = None,
        cpuunits: int | None = None,
        hostname: str | None = None,
        onboot: bool | None = None,
        protection: bool | None = None,
        tags: tuple[str, ...] | None = None,
        description: str | None = None,
        nets: Mapping[str, Net] | None = None,
        mounts: Mapping[str, str] | None = None,
        unset: tuple[str, ...] = (),
        digest: str = "",
        limits: Mapping[str, str] | None = None,
        op_id: str | None = None,
        wait: bool = False,
    ) -> Done:
        """Change settings, see `Update`; ``changed`` is False when they are so already. Raises Changed when somebody else was faster."""
        change = Update(
            self.id,
            memory=memory,
            swap=swap,
            cores=cores,
            cpulimit=cpulimit,
            cpuunits=cpuunits,
            hostname=hostname,
            onboot=onboot,
            protection=protection,
            tags=tags,
            description=description,
            nets=nets or {},
            mounts=mounts or {},
            unset=unset,
            digest=digest,
            limits=limits or {},
            op_id=op_id,
        )
        return await self._fleet.do(change, wait=wait)

    async def resize(self, disk: str, size: str, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Let a disk grow to ``10G``, or by ``+2G``: that is made absolute before it begins, so that it never grows twice."""
        return await self._fleet.do(Resize(self.id, disk, size, op_id=op_id), wait=wait)

    async def move_volume(
        self, disk: str, storage: str, *, delete: bool = False, op_id: str | None = None, wait: bool = False
    ) -> Done:
        """Move a disk to another storage; it must be at rest."""
        return await self._fleet.do(MoveVolume(self.id, disk, storage, delete, op_id=op_id), wait=wait)

    async def make_template(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Turn it into a template for clones, for good."""
        return await self._fleet.do(MakeTemplate(self.id, op_id=op_id), wait=wait)

    async def migrate(
        self,
        node: str,
        *,
        restart: bool = False,
        timeout: int = 180,
        storage: str | None = None,
        op_id: str | None = None,
        wait: bool = False,
    ) -> Done:
        """Move it to another node of its cluster; a running one only with ``restart``."""
        return await self._fleet.do(Migrate(self.id, node, restart, timeout, storage, op_id=op_id), wait=wait)
