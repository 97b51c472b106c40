"""Virtual machines on Proxmox VE: ``qm``, and the signals that a machine without an init of its own can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from signal import Signals

from nexcage._backends.numbers import candidates
from nexcage._core.adopting import adopted
from nexcage._core.command import MIB, Command, Result
from nexcage._core.seen import Guest, Look, Mark, Settled
from nexcage._core.settings import refuse
from nexcage._core.spec import Spec
from nexcage.abc import Node, Ref
from nexcage.errors import AlreadyExists, InvalidInput, InvalidSpec, NexcageError, UnsupportedImage
from nexcage.names import ImageRef, image
from nexcage.tools import agent, kvm, lxc, mend_snapshot, mending, pct, qm

__all__ = ["Vm"]

_POWER = {2: "INT", 15: "TERM", 30: "PWR"}
_KILL = 9
_CONTAINERS = ("mounts", "devices", "features", "timezone", "arch")
_SIGNALS = (
    "KILL, which pulls its plug, or TERM, INT and PWR, which press its power button: a virtual machine has no init that "
    "takes others (pause and resume are operations of their own)"
)


class Vm:
    """The backend ``vm`` (aliases ``qemu`` and ``proxmox-vm``)."""

    name: str = "vm"
    family: str = "pve"
    only_commands: bool = True
    holds_created: bool = False

    def accepts(self, image: ImageRef) -> bool:
        return image.kind == "disk"

    def check(self, id: str, spec: Spec) -> None:
        ref = image(spec.image)
        if not self.accepts(ref):
            ways = "STORAGE:import/NAME.qcow2, STORAGE:iso/NAME.iso or vm:template/VMID for the vm backend, or an alias of one in [images]"
            raise UnsupportedImage("image", spec.image, ways)
        made_from = qm.source(ref)
        if made_from.kind == "cdrom" and (spec.ssh_public_keys or (spec.vm is not None and spec.vm.user)):
            raise InvalidSpec("ssh_public_keys", spec.image, "a disk image with cloud-init; an installer takes no keys")
        if not spec.unprivileged:
            raise InvalidSpec("unprivileged", False, "left alone: a virtual machine has no user namespace")
        if spec.swap not in (0, 512):
            raise InvalidSpec("swap", spec.swap, "left alone: a virtual machine has no swap of the node's")
        _checked(spec, made_from)
        pct.hostname_for(id, spec)

    async def create(self, node: Node, ref: Ref, spec: Spec) -> Ref:
        made_from, name = await _source(node, image(spec.image)), pct.hostname_for(ref.id, spec)
        # An imported disk has the size of its image: it grows while the create's lock still says that this is half made.
        grows = spec.size is not None and made_from.kind == "import"
        for vmid in candidates(ref.id, node.vmids, node.seen):
            made = Ref(ref.id, vmid, ref.node)
            try:
                await node.run(qm.create(node.mark(ref.id, vmid), made_from, spec, name, held=grows))
            except AlreadyExists:  # somebody else took it between our look and the create, which is the arbiter
                continue
            if spec.size is not None and grows:
                await node.run(_ours(node, made, qm.resize(vmid, "scsi0", f"{spec.size}G")))
                await node.run(_ours(node, made, qm.unlock(vmid)))
            return made
        raise AlreadyExists(
            "VMID", f"{node.vmids.start}-{node.vmids.stop - 1}", "has no free number left for this container"
        )

    async def start(self, node: Node, ref: Ref) -> int:
        await node.run(_ours(node, ref, qm.start(ref.vmid)))
        return 0

    async def stop(self, node: Node, ref: Ref, *, timeout: float, force: bool) -> None:
        if force:
            await node.run(_ours(node, ref, qm.stop(ref.vmid)))
            return
        if _guest(node, ref).frozen:  # one that is paused cannot be asked
            await node.run(_ours(node, ref, qm.resume(ref.vmid)))
        if not await node.run_unless_hurried(_ours(node, ref, qm.shutdown(ref.vmid, timeout))):
            await node.run(_ours(node, ref, qm.stop(ref.vmid, overrule=True)))

    async def kill(self, node: Node, ref: Ref, signal: int) -> None:
        if signal == _KILL:
            await node.run(kvm.power_off(node.mark(ref.id, ref.vmid)))
        elif signal in _POWER:
            await node.run(_ours(node, ref, qm.power(ref.vmid)))
        else:
            raise InvalidInput("signal", _named(signal), _SIGNALS)

    async def pause(self, node: Node, ref: Ref) -> None:
        await node.run(_ours(node, ref, qm.suspend(ref.vmid)))

    async def resume(self, node: Node, ref: Ref) -> None:
        await node.run(_ours(node, ref, qm.resume(ref.vmid)))

    async def delete(self, node: Node, ref: Ref, *, force: bool, purge: bool) -> None:
        if force and _guest(node, ref).running:
            await node.run(_ours(node, ref, qm.stop(ref.vmid)))
        await node.run(_ours(node, ref, qm.destroy(ref.vmid, purge=purge)))

    async def snapshot(self, node: Node, ref: Ref, name: str, *, description: str) -> None:
        await node.run(_ours(node, ref, qm.snapshot(ref.vmid, name, description)))

    async def delsnapshot(self, node: Node, ref: Ref, name: str) -> None:
        await node.run(_ours(node, ref, qm.delsnapshot(ref.vmid, name)))

    async def rollback(self, node: Node, ref: Ref, name: str, *, start: bool) -> None:
        await node.run(_ours(node, ref, qm.rollback(ref.vmid, name)))
        if start:
            await node.run(_ours(node, ref, qm.start(ref.vmid)))

    async def adopt(self, node: Node, ref: Ref) -> None:
        details = node.seen.details[ref.vmid]
        values = adopted(str(node.mark(ref.id, ref.vmid)), details)
        await node.run(qm.describe(ref.vmid, values["tags"], values["description"], digest=details.digest))

    async def resize(self, node: Node, ref: Ref, disk: str, size: int) -> None:
        await node.run(_ours(node, ref, qm.resize(ref.vmid, disk, f"{size // 1024}K")))

    async def template(self, node: Node, ref: Ref) -> None:
        await node.run(_ours(node, ref, qm.template(ref.vmid)))

    async def mend_snapshot(self, node: Node, ref: Ref, name: str, *, lock: str, op: str) -> None:
        await node.run(mend_snapshot.mend(node.mark(ref.id, ref.vmid), name, lock, op, tool="qm"))

    async def mend(self, node: Node, ref: Ref, lock: str, proof: Settled) -> None:
        await node.run(mending.mend(ref.id, ref.vmid, lock, proof, mark=node.mark(ref.id, ref.vmid)))

    def collect(
        self,
        mark: Mark,
        argv: Sequence[str | bytes],
        *,
        given: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        cap: int = MIB,
    ) -> Command[None]:
        return agent.guest_exec(mark, argv, given=given, env=env, cwd=cwd, user=user, timeout=timeout, cap=cap)

    def refused(self, mark: Mark, result: Result, node: str) -> NexcageError:
        return agent.refused(mark, result, node)

    def observe(self, node: str, ops: tuple[str, ...] = ()) -> Command[Look]:
        return lxc.look(node, ops)


def _checked(spec: Spec, made_from: qm.Source) -> None:
    refuse(spec, _CONTAINERS, "left alone: only a container of the lxc backend has it")
    refuse(
        spec, ("ostype",), "left alone: what runs in a virtual machine is in its Vm(ostype=...), such as l26 or win11"
    )
    if made_from.kind == "cdrom":
        refuse(spec, ("nameserver", "searchdomain"), "a disk image with cloud-init; an installer is not told it")
    if spec.cpulimit is not None and spec.cpulimit > 128:
        raise InvalidSpec("cpulimit", spec.cpulimit, "a number of cores up to 128 for a virtual machine")
    if spec.cpuunits is not None and not 1 <= spec.cpuunits <= 262_144:
        raise InvalidSpec("cpuunits", spec.cpuunits, "a whole number from 1 to 262144 for a virtual machine")


def _named(signal: int) -> str:
    try:
        return Signals(signal).name
    except ValueError:  # a real-time signal
        return str(signal)


async def _source(node: Node, ref: ImageRef) -> qm.Source:
    """What to make it from; of a template, the disk that it boots from."""
    if ref.storage != "vm" or ref.name is None:
        return qm.source(ref)
    return qm.source(ref, await node.run(qm.template_disk(int(ref.name.rpartition("/")[2]))))


def _ours(node: Node, ref: Ref, command: Command[None]) -> Command[None]:
    return lxc.guarded(node.mark(ref.id, ref.vmid), command)


def _guest(node: Node, ref: Ref) -> Guest:
    return node.seen.guests.get(ref.vmid) or Guest(ref.vmid, kind="vm")
