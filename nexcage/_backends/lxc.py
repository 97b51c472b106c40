"""System containers on Proxmox VE: ``pct`` for what changes a configuration, LXC's own tools for the rest."""

from __future__ import annotations

import logging

from nexcage._backends import bundle_hooks, bundles, gate
from nexcage._backends.inside import Inside
from nexcage._backends.keeping import Keeps
from nexcage._backends.monitored import Monitored
from nexcage._backends.numbers import candidates
from nexcage._core.changes import described
from nexcage._core.command import Command
from nexcage._core.details import Details
from nexcage._core.seen import Guest, Look, Mark, Settled
from nexcage._core.settings import FIELDS, refuse
from nexcage._core.spec import Spec
from nexcage.abc import Node, Ref
from nexcage.errors import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    IllegalTransition,
    NexcageError,
    Unsupported,
    UnsupportedImage,
)
from nexcage.names import ImageRef, image
from nexcage.tools import bundling, lxc, mending, pct, pvesm
from nexcage.tools.gate import HOOK_FAILED

__all__ = ["Lxc"]

_log = logging.getLogger("nexcage")


class Lxc(Inside, Keeps, Monitored):
    """The backend ``lxc`` (aliases ``proxmox-lxc`` and ``pct``)."""

    name: str = "lxc"
    family: str = "pve"
    templates: bool = True  # made from what lies on the node's storages: the engine sees to it that it is there
    plans: bool = True  # bundles: the engine hands their plan to `create`, with the node
    poststart: str = "fail"  # or "warn": what a poststart hook that fails does to the start
    only_commands: bool = True
    holds_created: bool = False  # a PVE container that was created has no process, so there is nothing to signal

    def accepts(self, image: ImageRef) -> bool:
        return image.kind in ("template", "backup")

    def check(self, id: str, spec: Spec) -> None:
        if spec.bundle is None and image(spec.image).kind != "path" and not self.accepts(image(spec.image)):
            ways = (
                "a template (STORAGE:vztmpl/NAME.tar.zst) for the lxc backend, an alias of one in [images], STORAGE:backup/NAME, "
                "or a directory with config.json (a bundle)"
            )
            raise UnsupportedImage("image", spec.image, ways)
        if image(spec.image).kind == "backup":
            refuse(spec, FIELDS, "left out: what is restored is as it was saved, and nexcage update changes it")
        pct.hostname_for(id, spec)
        pct.besides(spec)

    async def create(self, node: Node, ref: Ref, spec: Spec) -> Ref:
        bundle = bundles.prepared_of(node) if spec.bundle is not None else None
        if bundle is not None:
            spec = bundles.with_plan(spec, bundle)
        sent = bundle or (bundles.sent_of(node) if spec.content is not None else None)
        if sent is not None:
            await bundles.linked(node, node.mark(ref.id, 0))
        template, hostname = sent.template if sent else str(image(spec.image)), pct.hostname_for(ref.id, spec)
        saved: Details | None = None
        if image(spec.image).kind == "backup":
            saved = await node.run(pvesm.saved(template))
            if saved.beside:
                why = "cannot restore what was made from a bundle: the archive has not the files that its node had beside it"
                raise Unsupported(ref.id, "create", self.name, why)
        for vmid in candidates(ref.id, node.vmids, node.seen):
            try:
                if saved is None:
                    await self.make(node, node.mark(ref.id, vmid), template, spec, hostname, bundle)
                else:
                    await self.restore(node, node.mark(ref.id, vmid), template, spec, saved)
            except AlreadyExists:  # somebody else took it between our look and the create, which is the arbiter
                continue
            if bundle is not None:
                mark = node.mark(ref.id, vmid)
                await node.run(bundles.finished(bundle, mark))
                await gate.came_to_it(node, mark, bundle_hooks.kept(bundle.plan, bundle.state))
            elif sent is not None:  # an image: it has been unpacked
                await node.run(bundling.tidy(node.mark(ref.id, vmid)))
            return Ref(ref.id, vmid, ref.node)
        raise AlreadyExists(
            "VMID", f"{node.vmids.start}-{node.vmids.stop - 1}", "has no free number left for this container"
        )

    async def clone(self, node: Node, ref: Ref, spec: Spec) -> Ref:
        source, hostname = self.source(node, ref, spec), pct.hostname_for(ref.id, spec)
        for vmid in candidates(ref.id, node.vmids, node.seen):
            command = pct.clone(
                source.vmid,
                vmid,
                full=not spec.linked,
                hostname=hostname,
                description=described(str(node.mark(ref.id, vmid)), spec.description),
                snapname=spec.snapshot or "",
                storage="" if spec.linked else spec.storage or "",
            )
            try:
                await node.run(lxc.guarded(source, command))
            except AlreadyExists:
                continue
            return Ref(ref.id, vmid, ref.node)
        raise AlreadyExists(
            "VMID", f"{node.vmids.start}-{node.vmids.stop - 1}", "has no free number left for this container"
        )

    async def make(
        self, node: Node, mark: Mark, template: str, spec: Spec, hostname: str, bundle: bundles.Prepared | None
    ) -> None:
        """Make the one with this VMID; raises AlreadyExists when somebody has that. From a bundle it keeps its lock, to be finished."""
        command = pct.create(mark, template, spec, hostname, held=bundle is not None)
        await node.run(bundles.with_words(command, bundle))

    async def start(self, node: Node, ref: Ref) -> int:
        guest = _guest(node, ref)
        if not guest.gated:
            await node.run(_ours(node, ref, pct.start(ref.vmid)))
            return 0
        try:
            known, pid = await gate.opened(node, node.mark(ref.id, ref.vmid), running=guest.running)
        except CommandFailed as error:
            if error.exit == HOOK_FAILED and guest.waiting:
                await self._undo(node, ref, error, pct.destroy(ref.vmid, force=True))
            raise
        if known is not None:
            await self.started(node, ref, pid, first=guest.waiting, known=known)
        return pid

    async def started(
        self, node: Node, ref: Ref, pid: int, *, first: bool, known: bundle_hooks.Kept | None = None
    ) -> None:
        """What follows when the program of one from a bundle runs: hooks that have begun do not run again. One that fails undoes the
        create, as the specification has it, when this is the ``first`` start; one that is started once more is stopped.
        """
        mark = node.mark(ref.id, ref.vmid)
        known = known or await bundle_hooks.recall(node, mark)
        if known is None:
            return
        try:
            await bundle_hooks.after_start(node, mark, known, pid)
        except CommandFailed as error:
            if self.poststart == "warn":
                _log.warning("'%s' on %s: %s", ref.id, ref.node, error)
                return
            stop = (pct.stop(ref.vmid),) if pid else ()
            await self._undo(node, ref, error, *stop, *((pct.destroy(ref.vmid, force=True),) if first else ()))
            raise

    async def _undo(self, node: Node, ref: Ref, error: CommandFailed, *commands: Command[None]) -> None:
        trouble: NexcageError | None = None
        for command in commands:
            try:
                await node.run(_ours(node, ref, command))
                trouble = None
            except (Blocked, Busy, CommandFailed, IllegalTransition) as said:  # it may have come to its end already
                trouble = said
        if trouble is not None:
            error.noted(f"and undoing the start failed: {trouble}")

    async def stop(self, node: Node, ref: Ref, *, timeout: float, force: bool) -> None:
        if force:
            await node.run(_ours(node, ref, pct.stop(ref.vmid)))
            return
        if _guest(node, ref).frozen:  # a frozen container acts on no signal: its shutdown would only time out
            await node.run(lxc.guarded(node.mark(ref.id, ref.vmid), lxc.unfreeze(ref.vmid)))
        if not await node.run_unless_hurried(_ours(node, ref, pct.shutdown(ref.vmid, timeout))):
            await node.run(_ours(node, ref, pct.stop(ref.vmid, overrule=True)))

    async def kill(self, node: Node, ref: Ref, signal: int) -> None:
        await node.run(lxc.signal(node.mark(ref.id, ref.vmid), signal))

    async def pause(self, node: Node, ref: Ref) -> None:
        await node.run(_ours(node, ref, lxc.freeze(ref.vmid)))

    async def resume(self, node: Node, ref: Ref) -> None:
        await node.run(_ours(node, ref, lxc.unfreeze(ref.vmid)))

    async def delete(self, node: Node, ref: Ref, *, force: bool, purge: bool) -> None:
        _unshared(node, ref)
        force = force or _guest(node, ref).waiting  # its program has not run: OCI's delete of what is created
        await node.run(_ours(node, ref, pct.destroy(ref.vmid, force=force, purge=purge)))

    async def mend(self, node: Node, ref: Ref, lock: str, proof: Settled) -> None:
        await node.run(mending.mend(ref.id, ref.vmid, lock, proof, making=node.mark(ref.id, ref.vmid)))

    async def tidy_bundle(self, node: Node, ref: Ref) -> None:
        """What is kept on the node for one that was made, or was to be made, from a bundle or an image of the driver's machine."""
        mark = node.mark(ref.id, ref.vmid)
        if (known := await bundle_hooks.recall(node, mark)) is not None:
            await bundle_hooks.after_stop(node, mark, known)
        await node.run(bundling.tidy(mark))

    def observe(self, node: str, ops: tuple[str, ...] = ()) -> Command[Look]:
        return lxc.look(node, ops)


def _ours(node: Node, ref: Ref, command: Command[None]) -> Command[None]:
    return lxc.guarded(node.mark(ref.id, ref.vmid), command)


def _guest(node: Node, ref: Ref) -> Guest:
    return node.seen.guests.get(ref.vmid) or Guest(ref.vmid)


def _unshared(node: Node, ref: Ref) -> None:
    """Raises Blocked for a template that linked clones live on: a destroy would empty its config before it fails at their disks."""
    if not _guest(node, ref).template:
        return
    details = node.seen.details
    using = [(v, other) for v, other in node.seen.guests.items() if v in details and details[v].shares(ref.vmid)]
    if using:
        named = (f"{other.mark.id if other.mark else other.name} ({vmid})" for vmid, other in using)
        raise Blocked(f"container '{ref.id}'", f"its linked clones {', '.join(named)}; delete them first")
