"""Containers of Proxmox VE that are made from bundles, from ``pct create`` to their gate and through it.

A create ends with the container at its gate: it has a process, and its program has not run. Only then does the container carry our mark
and lose its create lock, so that a create whose driver dies anywhere before is debris that provably is ours. Where it does not come to its
gate, it is created without a process, and the journal says why.
"""

from __future__ import annotations

import logging

from nexcage._backends import bundle_hooks
from nexcage._backends.bundle_hooks import Kept
from nexcage._core.seen import Mark
from nexcage.abc import Node
from nexcage.errors import CommandFailed, IllegalTransition
from nexcage.tools import gate

__all__ = ["came_to_it", "opened"]

_log = logging.getLogger("nexcage")
_LONG = 600  # seconds for hooks of which nothing is known


async def came_to_it(node: Node, mark: Mark, known: Kept) -> None:
    """Start it up to its gate, run the hooks of its create, and let that be its end. Raises what a hook that fails raises."""
    pid, why = 0, "it names no program"
    if known.gated:
        pid, why = await _at_gate(node, mark)
    await bundle_hooks.before_start(node, known, pid)
    await node.run(gate.seal(mark, why))


async def _at_gate(node: Node, mark: Mark) -> tuple[int, str]:
    try:
        await node.run(gate.start(mark))
        return await node.run(gate.reached(mark)), ""
    except CommandFailed as error:
        why = error.stderr.strip().rpartition("\n")[2] or str(error)
        if not getattr(node, "rehearsed", False):  # where nothing was made there is nothing to find
            _log.warning("'%s' on %s is created without a process: %s", mark.id, node.name, why)
        return 0, why[:200]


async def opened(node: Node, mark: Mark, *, running: bool) -> tuple[Kept | None, int]:
    """Let it run its program, after a start where it has no process; what is kept of its hooks, and the pid of its init."""
    known = await bundle_hooks.recall(node, mark)
    if known is not None and not known.startable:
        raise IllegalTransition(mark.id, "start", "created", reason="its bundle says nothing of a process")
    if not running:
        await node.run(gate.start(mark))
        await node.run(gate.reached(mark))
    return known, await node.run(gate.open_(mark, _LONG if known is None else known.inside))
