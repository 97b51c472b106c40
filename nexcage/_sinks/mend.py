"""Mending a state directory: only what cannot go wrong, under the journal's lock, and as often as one likes.

What was mended is not assumed: the directory is examined again, and a finding that is gone then was mended. Dying anywhere in
between leaves a directory that is examined and mended like any other.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable

import msgspec

from nexcage._core.states import State
from nexcage._sinks.disk import Disk, directory, write_whole
from nexcage._sinks.doctor import Examination, examine
from nexcage._sinks.owners import sweep_owners
from nexcage._sinks.premises import temporary
from nexcage._sinks.statefile import StateFiles
from nexcage._sinks.store import Sizes, Store
from nexcage.errors import JournalError

__all__ = ["give_fleet", "repair"]


def repair(
    state_dir: str | os.PathLike[str],
    run_dir: str | os.PathLike[str] | None = None,
    *,
    fleet: str = "",
    clock: Callable[[], float] = time.time,
    disk: Disk | None = None,
) -> Examination:
    """`examine`, with what is safe mended: a torn tail is cut and kept beside the segment, files of dead writers and drivers
    are removed, state files are made again, modes are closed. Raises JournalError when the disk refuses.

    Never touched: the fleet's id, a lease, what a damaged record has set aside, files of others.
    """
    state, run = os.path.abspath(state_dir), None if run_dir is None else os.path.abspath(run_dir)
    before = examine(state, run, fleet=fleet)
    if not before.readable or not os.path.isdir(os.path.join(state, "journal")):
        return before
    port = disk or Disk()
    store = Store(os.path.join(state, "journal"), disk=port, clock=clock, sizes=Sizes())
    try:
        store.open(lambda: _mend(port, store, state, run, before))
    except OSError as error:
        raise JournalError(f"cannot mend {state}: {error}") from None
    finally:
        store.close()
    after = examine(state, run, fleet=fleet)
    left = {(finding.what, finding.where) for finding in after.findings}
    mended = [
        msgspec.structs.replace(finding, mended=True)
        for finding in before.findings
        if finding.repairable and (finding.what, finding.where) not in left
    ]
    return msgspec.structs.replace(after, findings=(*mended, *after.findings))


def _mend(disk: Disk, store: Store, state: str, run: str | None, before: Examination) -> None:
    """The rest, once the segments are in order; the journal's lock is held."""
    for path in temporary(state, run):
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)
    sweep_owners(disk, state, {machine.running.owner for machine in store.machines.values() if machine.running})
    for finding in before.findings:
        if finding.what == "mode" and finding.repairable:
            _close(finding.where)
    if run is not None and before.fleet:
        with contextlib.suppress(JournalError):  # a run_dir of another fleet: it was found and is left alone
            files = StateFiles(disk, run, before.fleet)
            try:
                files.rebuild(store.machines, store.machines)
            finally:
                files.close()


def _close(path: str) -> None:
    """Close it to others, by a descriptor so that no link is followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return  # it is examined again
    try:
        os.fchmod(fd, 0o700 if stat.S_ISDIR(os.fstat(fd).st_mode) else 0o600)
    finally:
        os.close(fd)


def give_fleet(state_dir: str | os.PathLike[str], run_dir: str | os.PathLike[str] | None, fleet: str) -> None:
    """Make ``fleet`` the id of a state directory that knows no containers (a new one made one up); before a rebuild.

    Raises JournalError when the journal has containers under another id, or when a driver of it runs.
    """
    state = os.path.abspath(state_dir)
    found = examine(state, run_dir)
    if not found.readable:
        raise JournalError(f"{state} cannot be read: see nexcage doctor")
    if found.fleet in ("", fleet):
        return  # opening writes it
    known = sum(machine.state is not State.ABSENT for machine in found.machines.values())
    if known:
        raise JournalError(f"{state} belongs to fleet {found.fleet} and knows {known} containers of it, not {fleet}")
    if any(finding.what == "driver" and finding.severity == "ok" for finding in found.findings):
        raise JournalError(f"a driver of fleet {found.fleet} runs on {state}: end it first")
    store = Store(os.path.join(state, "journal"), disk=Disk(), clock=time.time, sizes=Sizes())

    def replace() -> None:
        if any(machine.state is not State.ABSENT for machine in store.machines.values()):
            raise JournalError(f"{state} knows containers of fleet {found.fleet} now")
        if run_dir is not None:
            with contextlib.suppress(FileNotFoundError):
                path = os.path.join(run_dir, ".fleet")
                with open(path, encoding="ascii", errors="replace") as file:
                    claimed = file.read(4096).strip()
                if claimed == found.fleet:
                    os.unlink(path)
        dir_fd = directory(state, follow=True)
        try:
            write_whole(Disk(), "fleet", f"{fleet}\n".encode(), dir_fd=dir_fd, durable=True)
        finally:
            os.close(dir_fd)

    try:
        store.open(replace)
    except OSError as error:
        raise JournalError(f"cannot give {state} the fleet id {fleet}: {error}") from None
    finally:
        store.close()
