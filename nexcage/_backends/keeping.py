"""What the lxc backend does to a container that goes on being what it is: snapshots, settings, disks, place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nexcage._core.adopting import adopted
from nexcage._core.command import Command
from nexcage._core.details import Details
from nexcage._core.seen import Mark, Settled
from nexcage._core.spec import Spec
from nexcage.abc import Node, Ref
from nexcage.errors import CommandFailed, NotFound
from nexcage.tools import lxc, mend_clone, mend_lock, mend_snapshot, pct, pvesm, vzdump
from nexcage.tools.config import Section

__all__ = ["Keeps"]


class Keeps:
    """The verbs of `nexcage.abc.Keeper`."""

    async def snapshot(self, node: Node, ref: Ref, name: str, *, description: str) -> None:
        await node.run(_ours(node, ref, pct.snapshot(ref.vmid, name, description)))

    async def delsnapshot(self, node: Node, ref: Ref, name: str) -> None:
        await node.run(_ours(node, ref, pct.delsnapshot(ref.vmid, name)))

    async def mend_snapshot(self, node: Node, ref: Ref, name: str, *, lock: str, op: str) -> None:
        await node.run(mend_snapshot.mend(node.mark(ref.id, ref.vmid), name, lock, op))

    async def backup(self, node: Node, ref: Ref, storage: str, *, mode: str, compress: str) -> None:
        before = await node.run(pvesm.list_(storage, "backup"))
        command = vzdump.backup(ref.vmid, storage, mode=mode, compress=compress)
        await node.run(_ours(node, ref, command))
        known = {volume.id for volume in before}
        after = await node.run(pvesm.list_(storage, "backup"))
        if not any(volume.vmid == ref.vmid and volume.id not in known for volume in after):
            raise CommandFailed(
                node.name, command.argv, 0, f"it said that it was done, and {storage} has no new archive"
            )

    async def restore(self, node: Node, mark: Mark, archive: str, spec: Spec, saved: Details) -> None:
        """Make the one with this VMID from an archive: all is as it was saved but for our mark, and the host name where one is given."""
        values = adopted(str(mark), saved, spec.description)
        settings = pct.Settings.read(Section({"tags": values["tags"]}, values["description"]))
        if spec.hostname is not None:
            settings = msgspec.structs.replace(settings, hostname=spec.hostname)
        then = vzdump.guest(archive)  # while that is there, the copy cannot have its network addresses
        command = pct.restore(mark.vmid, archive, settings, storage=spec.storage or "", unique=then in node.seen.vmids)
        await node.run(command)

    async def rollback(self, node: Node, ref: Ref, name: str, *, start: bool) -> None:
        await node.run(_ours(node, ref, pct.rollback(ref.vmid, name)))
        if start:  # rollback --start 1 succeeds even when the start fails
            await node.run(_ours(node, ref, pct.start(ref.vmid)))

    async def update(
        self, node: Node, ref: Ref, values: Mapping[str, str], *, unset: Sequence[str], digest: str
    ) -> None:
        plain = {key: value for key, value in values.items() if key != "description"}
        settings = pct.Settings.read(Section(plain, values.get("description", "")))
        await node.run(_ours(node, ref, pct.set_(ref.vmid, settings, delete=unset, digest=digest)))

    async def adopt(self, node: Node, ref: Ref) -> None:
        details = node.seen.details[ref.vmid]
        values = adopted(str(node.mark(ref.id, ref.vmid)), details)
        settings = pct.Settings.read(Section({"tags": values["tags"]}, values["description"]))
        await node.run(pct.set_(ref.vmid, settings, digest=details.digest))

    async def resize(self, node: Node, ref: Ref, disk: str, size: int) -> None:
        await node.run(_ours(node, ref, pct.resize(ref.vmid, disk, size)))

    async def move_volume(self, node: Node, ref: Ref, disk: str, storage: str, *, delete: bool) -> None:
        await node.run(_ours(node, ref, pct.move_volume(ref.vmid, disk, storage=storage, delete=delete)))

    async def template(self, node: Node, ref: Ref) -> None:
        await node.run(_ours(node, ref, pct.template(ref.vmid)))

    def source(self, node: Node, ref: Ref, spec: Spec) -> Mark:
        """Of which it is to be a copy, as the look before showed it."""
        fleet = node.mark(ref.id, ref.vmid).fleet
        guest = node.seen.find(fleet, spec.source or "")
        if guest is None or guest.mark is None:
            raise NotFound("container", spec.source, f"is not on {ref.node}")
        return guest.mark

    async def mend_clone(self, node: Node, ref: Ref, source: Mark, proof: Settled) -> None:
        await node.run(mend_clone.mend(ref.id, ref.vmid, source, proof))

    async def migrate(
        self, node: Node, ref: Ref, target: str, *, restart: bool, timeout: int, storage: str | None
    ) -> None:
        seconds = timeout if restart else None
        command = pct.migrate(ref.vmid, target, restart=restart, timeout=seconds, storage=storage or "")
        await node.run(_ours(node, ref, command))

    async def mend_lock(self, node: Node, ref: Ref, proof: Settled) -> None:
        await node.run(mend_lock.mend(node.mark(ref.id, ref.vmid), proof))


def _ours(node: Node, ref: Ref, command: Command[None]) -> Command[None]:
    return lxc.guarded(node.mark(ref.id, ref.vmid), command)
