"""Hooks of a bundle on Proxmox VE (runtime-spec 1.3, config.md "POSIX-platform Hooks"): which run when, and what they are told.

Hooks are programs of the node. Those of a create run when the container waits at its gate (or, where it has no process, when it is
made), before the create is done: one that fails fails the create, and the container goes. ``poststart`` hooks run when the program does,
``poststop`` hooks when the container is gone. What they need then is kept on the node, so that a config.json that is edited
later changes nothing. Each is a step of its operation, and nobody runs one twice: what recovery finds of an interrupted create is
removed, hooks of a start that it lacks are made up for, and a ``poststart`` or ``poststop`` hook that has begun is not begun again.
"""

from __future__ import annotations

import logging

import msgspec

from nexcage._core.bundle_plan.model import BundlePlan, Hooks
from nexcage._core.seen import Mark
from nexcage.abc import Node
from nexcage.errors import CommandFailed
from nexcage.tools import gate, hook

__all__ = ["FILE", "Kept", "after_start", "after_stop", "before_start", "kept", "recall"]

FILE = "hooks.json"
_DAY = 24 * 3600  # for a hook that has no timeout
_log = logging.getLogger("nexcage")


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node keeps of a container's hooks. ``state`` is the document that they get, but for ``status`` and ``pid``."""

    state: dict[str, msgspec.Raw]
    hooks: Hooks = Hooks()
    inside: int = 0
    """Seconds that the hooks inside may take together."""
    gated: bool = True
    """Its init is ours, and waits at a gate."""
    startable: bool = True

    @property
    def bundle(self) -> str:
        return msgspec.json.decode(self.state.get("bundle", msgspec.Raw(b'"/"')), type=str)

    def told(self, status: str, pid: int = 0) -> bytes:
        """The state document, in the order of the specification; without a ``pid`` when there is no process."""
        document: dict[str, object] = {}
        for key in ("ociVersion", "id", "status", "pid", "bundle", "annotations"):
            if key == "status":
                document[key] = status
            elif key == "pid" and pid:
                document[key] = pid
            elif key in self.state and key != "pid":
                document[key] = self.state[key]
        return msgspec.json.encode(document)


def kept(plan: BundlePlan, state: bytes) -> Kept:
    """What the node is to keep. ``state``: the document as the container's ``startContainer`` hooks get it."""
    given = msgspec.json.decode(state, type=dict[str, msgspec.Raw])
    calls = plan.launch.start_container if plan.launch is not None else ()
    seconds = sum(call.timeout or _DAY for call in calls)
    gated = plan.launch is not None and plan.startable
    return Kept(given, plan.hooks, seconds, gated, plan.startable)


async def recall(node: Node, mark: Mark) -> Kept | None:
    """What the node keeps of this container; None where it was not made from a bundle."""
    data = await node.run(gate.read(mark, FILE))
    return None if data is None else msgspec.json.decode(data, type=Kept)


async def before_start(node: Node, known: Kept, pid: int) -> None:
    """``prestart``, ``createRuntime`` and ``createContainer``; raises what the first that fails raises."""
    told, hooks = known.told("creating", pid), known.hooks
    for kind, calls in (("prestart", hooks.prestart), ("createRuntime", hooks.create_runtime)):
        for index, call in enumerate(calls):
            await node.run(hook.run(kind, index, call, told, cwd=known.bundle))
    for index, call in enumerate(hooks.create_container):
        await node.run(hook.run("createContainer", index, call, told, cwd=known.bundle, pid=pid, inside=pid > 0))


async def after_start(node: Node, mark: Mark, known: Kept, pid: int) -> None:
    """``poststart``; raises what the first that fails raises. Those that have begun since its start do not run again."""
    told = known.told("running" if pid else "stopped", pid)
    for index, call in enumerate(known.hooks.poststart):
        once = gate.once(mark, f"poststart.{index}")
        await node.run(hook.run("poststart", index, call, told, cwd=known.bundle, once=once))


async def after_stop(node: Node, mark: Mark, known: Kept) -> None:
    """``poststop``: one that fails is a warning, and the others run."""
    told = known.told("stopped")
    for index, call in enumerate(known.hooks.poststop):
        try:
            once = gate.once(mark, f"poststop.{index}")
            await node.run(hook.run("poststop", index, call, told, cwd=known.bundle, once=once))
        except CommandFailed as error:
            _log.warning("'%s' on %s: %s", mark.id, node.name, error)
