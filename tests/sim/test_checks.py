"""`check_backend` passes the backends that keep their promises and names the broken promise of the others."""

from __future__ import annotations

import json

import pytest

import nexcage
from nexcage._backends.lxc import Lxc
from nexcage.testing import SimCluster, check_backend, virtual_run

IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


def checked(backend, image=IMAGE, *, loop="asyncio", teach=None):
    async def main():
        with SimCluster(nodes=1, seed=3) as sim:
            for program, tool in (teach or {}).items():
                sim.teach(program, tool)
            await check_backend(backend, sim, image=image)

    virtual_run(main, backend_name=loop)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_lxc_backend_keeps_its_promises(loop):
    checked(Lxc(), loop=loop)


class StopsNothing(Lxc):
    async def stop(self, node, ref, *, timeout, force):
        pass


class StartsNothing(Lxc):
    async def start(self, node, ref):
        return 4711


class StartsAtOnce(Lxc):
    async def create(self, node, ref, spec):
        made = await super().create(node, ref, spec)
        await self.start(node, made)
        return made


class KillsForReal(Lxc):
    async def kill(self, node, ref, signal):
        await super().kill(node, ref, 9)


class KillsNothing(Lxc):
    async def kill(self, node, ref, signal):
        pass


class ResumesByRestart(Lxc):
    async def resume(self, node, ref):
        await self.stop(node, ref, timeout=1, force=True)
        await self.start(node, ref)


class LeavesItThere(Lxc):
    async def delete(self, node, ref, *, force, purge):
        pass


class DeletesTheWrongOne(Lxc):
    async def delete(self, node, ref, *, force, purge):
        await node.run(nexcage.Command(("pct", "destroy", "990099", "--force", "1"), parse=nexcage.text))
        await super().delete(node, ref, force=force, purge=purge)


class AcceptsNothing(Lxc):
    def accepts(self, image):
        return False


class HasNoPause(Lxc):
    pause = None


@pytest.mark.parametrize(
    ("backend", "promise"),
    [
        (StopsNothing, "stop"),
        (StartsNothing, "start"),
        (StartsAtOnce, "create"),
        (KillsForReal, "kill|signal"),
        (KillsNothing, "SIGKILL"),
        (ResumesByRestart, "resumed"),
        (LeavesItThere, "delete"),
        (DeletesTheWrongOne, "not ours"),
        (AcceptsNothing, "accept"),
        (HasNoPause, "pause"),
    ],
)
def test_a_broken_promise_is_named(backend, promise):
    with pytest.raises(AssertionError, match=promise):
        checked(backend())


# Somebody else's backend, with a tool of their own.


class FakeMachinectl:
    """A program that keeps its machines in memory; it speaks JSON."""

    def __init__(self):
        self.machines = {}
        self.pids = 5_000_000

    def __call__(self, argv, stdin):
        verb, *words = argv[1:]
        if verb == "look":
            return json.dumps(self.machines)
        name, *rest = words
        if verb == "clone":
            vmid, mark = rest
            if vmid in self.machines:
                return 1, "", f"{vmid} exists\n"
            self.machines[vmid] = {"name": name, "mark": mark, "pid": 0, "frozen": False}
            return None
        if name not in self.machines:
            return 1, "", f"no machine {name}\n"
        machine = self.machines[name]
        match verb:
            case "start":
                self.pids += 1
                machine["pid"] = self.pids
            case "poweroff" | "terminate":
                machine["pid"], machine["frozen"] = 0, False
            case "kill" if rest == ["9"]:
                machine["pid"] = 0
            case "freeze" | "thaw":
                machine["frozen"] = verb == "freeze"
            case "remove":
                del self.machines[name]
        return None


def machinectl(*words):
    return nexcage.Command(("machinectl", *map(str, words)), parse=nexcage.text)


class Nspawn:
    name = "nspawn"

    def accepts(self, image):
        return image.text.startswith("nspawn:")

    async def create(self, node, ref, spec):
        vmid = next(n for n in node.vmids if n not in node.seen.guests)
        argv = ("machinectl", "clone", ref.id, str(vmid), str(node.mark(ref.id, vmid)))
        await node.run(nexcage.Command(argv, parse=nexcage.text, tries={"vmid": vmid}))
        return nexcage.Ref(ref.id, vmid, ref.node)

    async def start(self, node, ref):
        await node.run(machinectl("start", ref.vmid))
        return 0

    async def stop(self, node, ref, *, timeout, force):
        await node.run(machinectl("terminate" if force else "poweroff", ref.vmid))

    async def kill(self, node, ref, signal):
        guest = node.seen.guests.get(ref.vmid)
        if guest is None or not guest.pid:
            raise nexcage.IllegalTransition(ref.id, "kill", "stopped")
        await node.run(machinectl("kill", ref.vmid, signal))

    async def pause(self, node, ref):
        await node.run(machinectl("freeze", ref.vmid))

    async def resume(self, node, ref):
        await node.run(machinectl("thaw", ref.vmid))

    async def delete(self, node, ref, *, force, purge):
        await node.run(machinectl("remove", ref.vmid))

    def observe(self, node, ops=()):
        def read(result):
            guests = {
                int(vmid): nexcage.Guest(
                    int(vmid), bool(m["pid"]), m["frozen"], m["pid"], 1, m["name"], mark=nexcage.Mark.find(m["mark"])
                )
                for vmid, m in json.loads(result.stdout).items()
            }
            return nexcage.Look(node=node, pve=node, boot_id="", guests=guests, vmids=dict.fromkeys(guests, node))

        return nexcage.Command(("machinectl", "look"), parse=read, safe=True)


def test_a_backend_of_ones_own_with_a_taught_program():
    checked(Nspawn(), "nspawn:debian-12", teach={"machinectl": FakeMachinectl()})
