"""``nexcage health``: look at values on every node and on this machine, and say what to do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

import nexcage
from nexcage import Look, NexcageError, NodeError
from nexcage._cli.parser import Call
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams, one_line
from nexcage._cli.verbs_fleet import Verb
from nexcage.tools import ha, health
from nexcage.tools.health import Check

if TYPE_CHECKING:
    from nexcage import Fleet
    from nexcage.abc import Health

__all__ = ["prepare"]

_HERE = "this machine"
_PATIENCE = 30.0  # seconds for a plugin's check of one node
_NEEDED = 64 << 20  # bytes; a journal segment and room to go on


def prepare(call: Call, streams: Streams) -> Verb:
    """The checks as rows; the exit status is 3 for a node out of reach, 1 when something fails, else 0."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}", f"--hosts {ascii(call.words[0])[1:-1]}")

    async def verb(fleet: Fleet) -> int:
        found: dict[str, list[Check]] = {_HERE: _this_machine(fleet)}
        away: list[str] = []
        looks = await fleet.look()
        more: Mapping[str, Health] = nexcage.plugged("health", fleet.config.plugins)

        async def one(key: str) -> None:
            look = looks[key]
            if isinstance(look, NexcageError):
                away.append(key)
                notes = "; ".join(str(note) for note in getattr(look, "__notes__", ()))
                found[key] = [Check("node", "FAIL", str(look), notes or "see --debug for what was tried")]
                if not _reachable(look):
                    return
                found[key] += await _ask(fleet, key)
                return
            found[key] = [
                _seen(look),
                *_closed(fleet, key, look),
                await _runner(fleet, key),
                *await _ask(fleet, key),
                *await _plugins(fleet, key, more),
            ]

        async with anyio.create_task_group() as tasks:
            for key in fleet.nodes:
                tasks.start_soon(one, key)
        rows = [_row(key, check) for key in (_HERE, *fleet.nodes) for check in found[key]]
        print_rows(streams, rows, call.text("output") or "table", ("node", "check", "verdict", "value", "todo"))
        return 3 if away else 1 if any(row["verdict"] == "FAIL" for row in rows) else 0

    return verb


def _row(node: str, check: Check) -> Mapping[str, Any]:  # Any: whatever JSON can say
    return {
        "node": node,
        "check": check.check,
        "verdict": check.verdict,
        "value": one_line(check.value),
        "todo": one_line(check.todo),
    }


def _reachable(error: NexcageError) -> bool:
    return not isinstance(error, NodeError) or type(error).__name__ in ("NodeNotUsable", "NoQuorum")


def _seen(look: Look) -> Check:
    if not look.quorate:
        return Check(
            "quorum", "FAIL", "no quorum: it can be read, not changed", "see `pvecm status`; bring the other nodes back"
        )
    return Check("quorum", "PASS", f"quorate, {len(look.guests)} containers here")


def _closed(fleet: Fleet, key: str, look: Look) -> list[Check]:
    """What keeps new containers off a node that could take them."""
    checks: list[Check] = []
    if key in fleet.cordoned:
        checks.append(Check("cordon", "WARN", "cordoned: it takes no new containers", f"nexcage uncordon {key}"))
    if look.maintenance:
        todo = ha.to_leave_maintenance(look.pve)
        checks.append(Check("maintenance", "WARN", "in Proxmox VE's maintenance mode: no new containers", todo))
    return checks


async def _ask(fleet: Fleet, key: str) -> list[Check]:
    """Every probe of a node, one after the other: a node that is ill should not be asked seven things at once."""
    checks: list[Check] = []
    for probe in (*health.probes(), health.clock(time.time)):
        if probe.name == "sshd" and fleet.nodes[key].host.local:
            continue
        checks += await _one(fleet, key, probe)
    where = await _one(fleet, key, health.templates())
    for storage in health.template_storages(tuple(where))[:4]:
        checks += await _one(fleet, key, health.template_list(storage))
    return checks + [check for check in where if check.verdict != "PASS"]


async def _plugins(fleet: Fleet, key: str, more: Mapping[str, Health]) -> list[Check]:
    """What the checks of plugins find on a node; one that breaks is a finding of its own."""
    checks: list[Check] = []
    for name, one in more.items():
        why = ""
        with anyio.move_on_after(_PATIENCE) as scope:
            try:
                checks += await one.check(fleet.nodes[key])
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
        if scope.cancelled_caught:
            why = f"no answer in {_PATIENCE:g} s"
        if why:
            checks.append(Check(name, "WARN", f"the plugin's check failed: {why}", f"[plugins.{name}] enabled = false"))
    return checks


async def _runner(fleet: Fleet, key: str) -> Check:
    node = fleet.nodes[key]
    versions = [check.value for check in await _one(fleet, key, health.perl()) if check.verdict == "PASS"]
    return health.runner(node.mode, fencing=node.fencing, local=node.host.local, perl="".join(versions))


async def _one(fleet: Fleet, key: str, probe: health.Probe) -> list[Check]:
    try:
        return list(health.read(probe, await fleet.nodes[key].call(probe.command)))
    except NodeError as error:
        if type(error).__name__ == "NodeNotUsable" and probe.missing is not None:
            return [probe.missing]
        return [Check(probe.name, "FAIL", str(error))] if _reachable(error) is False else []


def _this_machine(fleet: Fleet) -> list[Check]:
    return [_directory("journal", fleet.state_dir), _directory("run dir", fleet.run_dir), _lease(fleet)]


def _lease(fleet: Fleet) -> Check:
    settings = fleet.config.lease
    holder = _text(fleet.state_dir / "holder") or "no id yet"
    if settings.kind == "cluster":
        highest = _text(fleet.state_dir / "epoch") or "none yet"
        through = f"through {settings.node}" if settings.node else "through the first node that answers"
        return Check("lease", "PASS", f"kept by the cluster, {through}; highest epoch had here: {highest}")
    path = Path(settings.path) if settings.path else fleet.state_dir / "lease"
    try:
        said: object = json.loads(_text(path) or "{}")
        held = msgspec.convert(said, _Held)
    except (ValueError, msgspec.MsgspecError) as error:
        return Check("lease", "FAIL", f"{path}: {error}", "nexcage doctor")
    ours = held.holder == holder
    return health.lease(
        os.fspath(path), held.holder, epoch=held.epoch, ours=ours, expires=held.expires, now=time.time(), host=held.host
    )


class _Held(msgspec.Struct, frozen=True):
    """What a lease file says, as far as it is shown."""

    holder: str = ""
    epoch: int = 0
    expires: float = 0.0
    host: str = ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _directory(name: str, path: os.PathLike[str]) -> Check:
    """Whether it can be written, and the room below it."""
    where = os.fspath(path)
    while not os.path.isdir(where) and where != os.path.dirname(where):
        where = os.path.dirname(where)
    if not os.access(where, os.W_OK | os.X_OK):
        return Check(
            name, "FAIL", f"{os.fspath(path)} cannot be written", "run as its owner, or give --state-dir and --run-dir"
        )
    space = os.statvfs(where)
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    check = health.free_space(name, free, total)
    value = f"{os.fspath(path)}: {check.value}"
    if free < _NEEDED:
        return Check(name, "FAIL", value, "free some space: without a journal nothing is changed")
    # A nearly full disk with room for years of journal is worth a warning, not a failure.
    return Check(name, "WARN" if check.verdict != "PASS" else "PASS", value, check.todo)
