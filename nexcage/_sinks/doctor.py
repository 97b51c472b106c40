"""A state directory read without opening the fleet and without changing anything: what is wrong with it, as values.

`examine` holds the journal's lock shared while it reads, so what a living driver is writing is not taken for damage.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Generator, Mapping
from typing import cast

import msgspec

from nexcage._core.finding import Finding, Severity
from nexcage._core.machine import Machine
from nexcage._core.states import State
from nexcage._sinks.audit import Audit
from nexcage._sinks.owners import owner_alive
from nexcage._sinks.peek import listed, small, under
from nexcage._sinks.premises import REPAIR, modes, state_files, temporary
from nexcage.errors import JournalError, escaped

__all__ = ["Examination", "examine"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PATIENCE = 5.0
"""Seconds to wait for the journal's lock, which nobody holds for long."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """``findings`` about the directories; ``machines`` as opening would have them, ``aside`` the ones that damage has set aside.

    ``fleet`` is the id in the directory, "" when it has none or none that can be read. ``readable``: the journal was read.
    """

    findings: tuple[Finding, ...]
    machines: Mapping[str, Machine]
    aside: Mapping[str, str]
    fleet: str = ""
    readable: bool = True


def examine(
    state_dir: str | os.PathLike[str], run_dir: str | os.PathLike[str] | None = None, *, fleet: str = ""
) -> Examination:
    """What is wrong in these directories; ``fleet`` is the id that the configuration names. Never raises for what is in them."""
    look = _Look(os.path.abspath(state_dir), None if run_dir is None else os.path.abspath(run_dir), fleet)
    if not os.path.isdir(look.state):
        look.say(
            "note", "state directory", look.state, "there is none yet: nothing was ever done from here, or it is lost"
        )
        return look.result()
    try:
        with _shared(os.path.join(look.state, "journal")):
            look.all()
    except (OSError, JournalError) as error:
        fix = "see who holds it, and as whom the doctor runs"
        look.say("error", "state directory", look.state, f"it cannot be read: {error}", fix)
        look.readable = False
    return look.result()


@contextlib.contextmanager
def _shared(folder: str) -> Generator[None]:
    """The journal's lock, shared; raises JournalError that names its holder when it is not to be had."""
    try:
        fd = os.open(os.path.join(folder, "lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise JournalError(f"the lock of {folder} is held by {_holders(fd)} all the time") from None
                time.sleep(0.02)  # the doctor is synchronous: there is no loop to block
        yield
    finally:
        os.close(fd)


def _holders(fd: int) -> str:
    inode = f":{os.fstat(fd).st_ino}"
    with open("/proc/locks", encoding="ascii", errors="replace") as file:
        pids = sorted({words[4] for words in map(str.split, file) if len(words) > 5 and words[5].endswith(inode)})
    return f"process {', '.join(pids)}" if pids else "somebody"


class _Look:
    """One examination under way."""

    def __init__(self, state: str, run: str | None, configured: str) -> None:
        self.state: str = state
        self.run: str | None = run
        self.configured: str = configured
        self.fleet: str = ""
        self.readable: bool = True
        self.audit: Audit | None = None
        self.findings: list[Finding] = []

    def say(self, severity: Severity, what: str, where: str, why: str, fix: str = "", *, repair: bool = False) -> None:
        self.findings.append(Finding(severity=severity, what=what, where=where, why=why, fix=fix, repairable=repair))

    def result(self) -> Examination:
        audit = self.audit
        return Examination(
            findings=(*(audit.findings if audit else ()), *self.findings),
            machines=audit.machines if audit else {},
            aside=audit.aside if audit else {},
            fleet=self.fleet,
            readable=self.readable,
        )

    @property
    def machines(self) -> Mapping[str, Machine]:
        return self.audit.machines if self.audit else {}

    def all(self) -> None:
        folder = os.path.join(self.state, "journal")
        if os.path.isdir(folder):
            self.audit = Audit(folder)
        else:
            self.say("note", "journal", folder, "there is none yet: nothing was ever done from here, or it is lost")
        self._fleet()
        self._owners()
        self._lease()
        self.findings += modes(self.state, self.run)
        for path in temporary(self.state, self.run):
            self.say("note", "temporary file", path, "its writer died", REPAIR, repair=True)
        if self.run is not None and os.path.isdir(self.run):
            self.findings += state_files(self.run, self.machines, self.fleet)

    # Whose it is

    def _fleet(self) -> None:
        path = os.path.join(self.state, "fleet")
        known = any(machine.state is not State.ABSENT for machine in self.machines.values())
        try:
            with open(path, "rb", opener=under) as file:
                there = file.read(4096).decode("ascii", "backslashreplace").strip()
        except FileNotFoundError:
            fix = "put back the id that its containers carry in their marks: nexcage doctor --rebuild finds it"
            if known:
                self.say("error", "fleet id", path, "it is missing, and the journal has containers", fix)
            return
        if not _ID.fullmatch(there):
            fix = "put back the id that its containers carry in their marks"
            self.say("error", "fleet id", path, f"it does not hold an id but {escaped(there)}", fix)
            return
        self.fleet = there
        if self.configured and self.configured != there:
            fix = f"another state_dir, or drop fleet = '{self.configured}' from the configuration"
            self.say("error", "fleet id", path, f"it is {there}, and the configuration says {self.configured}", fix)
        else:
            self.say("ok", "fleet id", path, there)

    def _owners(self) -> None:
        folder = os.path.join(self.state, "owners")
        left: dict[str, list[Machine]] = {}
        for machine in self.machines.values():
            if machine.running is not None:
                left.setdefault(machine.running.owner, []).append(machine)
        files = [name for name in listed(folder) if not name.startswith(".")]
        for owner in sorted({*files, *left}):
            path, begun = os.path.join(folder, owner), left.get(owner, [])
            doing = ", ".join(f"{m.running.op} of '{m.id}'" for m in begun[:5] if m.running is not None)
            doing += f" and {len(begun) - 5} more" if len(begun) > 5 else ""
            if owner_alive(self.state, owner):
                self.say("ok", "driver", path, f"alive ({_first_line(path)}): {doing or 'nothing under way'}")
            elif begun:
                some = " ".join(m.id for m in begun) if len(begun) <= 5 else "--all"
                fix = f"nexcage reconcile {some} finds out what became of {'it' if len(begun) == 1 else 'them'}"
                self.say("warning", "driver", path, f"dead; it left {doing}", fix, repair=True)
            else:
                self.say("note", "driver", path, "dead; it left nothing", REPAIR, repair=True)

    def _lease(self) -> None:
        path = os.path.join(self.state, "lease")
        try:
            with open(path, "rb", opener=under) as file:
                said: object = json.loads(file.read(1 << 16))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            fix = "delete it when no driver of another state directory runs: the next one makes it again"
            self.say("error", "lease", path, f"it cannot be read: {error}", fix)
            return
        lease = cast("dict[str, object]", said) if isinstance(said, dict) else {}
        fleet, epoch = lease.get("fleet"), lease.get("epoch")
        if not isinstance(epoch, int) or not isinstance(fleet, str):
            self.say("error", "lease", path, "it names no fleet and no epoch", "delete it when no driver runs")
        elif self.fleet and fleet != self.fleet:
            self.say(
                "error", "lease", path, f"it is of fleet {escaped(fleet)}", "give every fleet a lease.path of its own"
            )
        else:
            self.say("ok", "lease", path, f"epoch {epoch}, held by {escaped(lease.get('holder', '?'))[1:-1]}")


def _first_line(path: str) -> str:
    return escaped((small(path) or b"").decode("utf-8", "replace").split("\n")[0])[1:-1] or "no pid"
