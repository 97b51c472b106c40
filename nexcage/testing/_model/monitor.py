"""``lxc-monitor``: the model's own, which sees what the kernel's would tell by looking very often."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["lxc_monitor"]

_OFTEN = 0.2
"""Seconds between looks; less than the time that any container needs to start."""
_Seen = dict[int, tuple[int, bool]]


def lxc_monitor(ctx: Ctx) -> Steps:
    """``lxc-monitor [-n REGEX] [-Q]``: a line for each change until it is ended."""
    words = list(ctx.argv[1:])
    if "-Q" in words or "--quit" in words:
        return 0
    wanted = ".*"
    while words:
        word = words.pop(0)
        if word in ("-n", "--name") and words:
            wanted = words.pop(0)
        elif word.startswith("--name="):
            wanted = word[7:]
    try:
        chosen = re.compile(wanted)
    except re.error:
        ctx.err(
            f"lxc-monitor: ../src/lxc/tools/lxc_monitor.c: lxc_monitor_main: 128 failed to compile the regex '^{wanted}$'\n"
        )
        return 1
    before = _seen(ctx.node)
    while True:
        yield Sleep(_OFTEN)
        now = _seen(ctx.node)
        for vmid in sorted(before.keys() | now.keys()):
            if chosen.fullmatch(str(vmid)):
                ctx.out("".join(f"'{vmid}' {line}\n" for line in _lines(before.get(vmid), now.get(vmid))))
        before = now


def _seen(node: Node) -> _Seen:
    return {vmid: (node.init_pid(vmid) or 0, node.is_frozen(vmid)) for vmid in node.running()}


def _lines(before: tuple[int, bool] | None, now: tuple[int, bool] | None) -> Iterator[str]:
    """What happened between two looks, in LXC's words and order."""
    if before == now:
        return
    if before is not None and (now is None or now[0] != before[0]):
        yield "exited with status [0]"
        yield from _states("STOPPING", "STOPPED")
        before = None
    if now is not None and before is None:
        yield from _states("STARTING", "RUNNING")
        before = (now[0], False)
    if now is not None and before is not None and now[1] != before[1]:
        yield from _states("FREEZING", "FROZEN", "FROZEN") if now[1] else _states("THAWED", "THAWED", "RUNNING")


def _states(*names: str) -> Iterator[str]:
    return (f"changed state to [{name}]" for name in names)
