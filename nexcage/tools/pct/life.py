"""Starting and ending containers."""

from __future__ import annotations

from nexcage._core.command import Command
from nexcage.tools.pct.call import change, flags, number

__all__ = ["destroy", "reboot", "resume", "shutdown", "start", "stop", "suspend", "unlock"]


def start(vmid: int) -> Command[None]:
    """Start it; returns when init was spawned. Running already is an error of ``pct``: look at the state instead."""
    return change("start", str(vmid), timeout=180.0)


def shutdown(vmid: int, timeout: float) -> Command[None]:
    """Ask it to halt, wait ``timeout`` seconds (at least one: 0 would wait for ever), then kill it.

    The config's lock is held all that time, which may be twice the timeout and some seconds (pct-observed 9).
    """
    seconds = max(1, round(timeout))
    return change("shutdown", str(vmid), "--timeout", str(seconds), "--forceStop", "1", timeout=2.0 * seconds + 60.0)


def stop(vmid: int, *, overrule: bool = False) -> Command[None]:
    """Kill it at once; ``overrule`` ends a shutdown of it that is under way and holds the lock."""
    return change("stop", str(vmid), *flags(overrule_shutdown=overrule), timeout=120.0)


def reboot(vmid: int, timeout: float = 60.0) -> Command[None]:
    """Halt it (kill it after ``timeout`` seconds) and start it again.

    Look at its lock first: a locked one is stopped and then cannot be started (pct-observed 7).
    """
    seconds = max(1, round(timeout))
    return change("reboot", number(vmid), "--timeout", str(seconds), timeout=2.0 * seconds + 240.0)


def suspend(vmid: int) -> Command[None]:
    """Write it to disk with CRIU and stop it. PVE does not install CRIU, so this mostly fails; to pause, freeze it."""
    return change("suspend", number(vmid), timeout=300.0)


def resume(vmid: int) -> Command[None]:
    """Start what :func:`suspend` wrote to disk."""
    return change("resume", number(vmid), timeout=300.0)


def destroy(vmid: int, *, force: bool = False, purge: bool = False) -> Command[None]:
    """Remove it with its volumes; ``force`` kills a running one first."""
    return change("destroy", str(vmid), *flags(force=force, purge=purge), timeout=600.0)


def unlock(vmid: int) -> Command[None]:
    """Remove the config's lock, whoever set it. It stops nobody: make sure first that no task is alive."""
    return change("unlock", number(vmid), timeout=60.0)
