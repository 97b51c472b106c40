"""Reading the segments for what is wrong with them, without changing a byte; and the machines as opening would fold them.

Only the newest segment says what is so: it begins with every machine as it was then. Damage in older ones has cost history and
nothing else, so it is a note; damage in the newest one is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

from nexcage._core.events import Observed
from nexcage._core.finding import Finding, Severity
from nexcage._core.machine import Checkpointed, Event, Machine
from nexcage._core.states import State
from nexcage._sinks.peek import under
from nexcage._sinks.segments import Record, first_of, records, segments_in
from nexcage.errors import JournalError

__all__ = ["Audit"]

_TORN = re.compile(r"[0-9]{20}\.jsonl\.torn-[0-9]+(-[0-9]+)?")
_KNOWN = re.compile(r"lock|quarantine\.json|[0-9]{20}\.jsonl|\..*\.new")
_LIFT = "nexcage doctor --repair looks at the nodes and lifts it when nothing is left to guess"


class Audit:
    """The journal in ``folder`` as it is now; whoever makes one holds the journal's lock."""

    def __init__(self, folder: str) -> None:
        self.folder: str = folder
        self.findings: list[Finding] = []
        self.machines: dict[str, Machine] = {}
        self.aside: dict[str, str] = {}
        self.seq: int = 0
        self._clean = True  # the segment before was read without a complaint
        self._newest = ""
        self._read()

    def _read(self) -> None:
        names = sorted(os.listdir(self.folder))
        segments = segments_in(self.folder)
        self._newest = segments[-1] if segments else ""
        for name in segments:
            self._segment(name)
        self._evidence(names)
        for id, why in sorted(self.aside.items()):
            self.machines.setdefault(id, Machine(id, state=State.UNKNOWN))
            self._say("error", "set aside", f"container '{id}'", why, _LIFT, repairable=True, id=id)
        if segments:
            size = sum(os.path.getsize(os.path.join(self.folder, name)) for name in segments)
            count = "1 segment" if len(segments) == 1 else f"{len(segments)} segments"
            self._say("ok", "journal", self.folder, f"{count}, {size} bytes, newest record {self.seq}")

    def _say(self, severity: Severity, what: str, where: str, why: str, fix: str = "", **more: bool | str) -> None:
        finding = Finding(severity=severity, what=what, where=where, why=why, fix=fix)
        self.findings.append(msgspec.structs.replace(finding, **more))

    def _evidence(self, names: list[str]) -> None:
        for name in names:
            path = os.path.join(self.folder, name)
            if _TORN.fullmatch(name):
                why = f"{os.path.getsize(path)} bytes that were torn off when their writer died"
                self._say("note", "evidence", path, why, "look at it, then delete it")
            elif not _KNOWN.fullmatch(name):
                self._say("note", "stranger", path, "no file of a journal", "move it away")

    # One segment

    def _segment(self, name: str) -> None:
        before, self.machines = self.machines, {}
        whole, self._clean = self._clean, True
        if name == self._newest:
            self._quarantine()
        if self.seq and first_of(name) != self.seq + 1:
            self._between(name)
        known, self.seq = self.seq, first_of(name) - 1
        checkpoint: dict[str, Machine] | None = {}
        doubtful: list[Record] = []
        path = os.path.join(self.folder, name)
        with open(path, "rb", opener=under) as file:
            for record in records(lambda size, offset: os.pread(file.fileno(), size, offset)):
                if record.fault and not record.whole:
                    doubtful.append(record)
                    continue
                for bad in doubtful:
                    self._bad(bad, name)
                doubtful.clear()
                if record.fault:
                    self._bad(record, name)
                    continue
                self._number(record, name)
                if record.event is None:
                    self._say("note", "unknown record", path, f"record {record.seq} was written by a newer version")
                    continue
                if checkpoint is not None and not isinstance(record.event, Checkpointed):
                    self._compare(before, checkpoint if whole and known else None, name)
                    checkpoint = None
                elif checkpoint is not None and isinstance(record.event, Checkpointed):
                    checkpoint[record.event.id] = record.event.machine
                self._fold(record.event)
            if checkpoint is not None:
                self._compare(before, checkpoint if whole and known else None, name)
            if doubtful:
                self._torn(file.fileno(), doubtful[0].start, name)

    def _between(self, name: str) -> None:
        first, path = first_of(name), os.path.join(self.folder, name)
        if first > self.seq + 1:
            why = f"records {self.seq + 1} to {first - 1} are missing before it"
            self._say("note", "gap", path, f"{why}; what is now is in its checkpoint")
        else:
            self._say("error", "overlap", path, f"it begins with {first}, and the one before ends with {self.seq}")
        self._clean = False

    def _number(self, record: Record, name: str) -> None:
        path = os.path.join(self.folder, name)
        if record.seq <= self.seq:
            self._complain(name, "order", path, f"record {record.seq} comes after record {self.seq}")
        elif record.seq > self.seq + 1:
            why = f"records {self.seq + 1} to {record.seq - 1} are missing before byte {record.start}"
            self._complain(name, "gap", path, why)
        self.seq = max(self.seq, record.seq)

    def _complain(self, name: str, what: str, path: str, why: str) -> None:
        self._clean = False
        if name == self._newest:
            fix = "nexcage reconcile --all compares every container with its node"
            self._say("error", what, path, why, fix)
        else:
            self._say("note", what, path, f"{why}; it has cost history only")

    def _bad(self, record: Record, name: str) -> None:
        self.seq = max(self.seq + record.whole, record.seq)
        why = f"a record at byte {record.start} is bad: {record.fault}"
        path = os.path.join(self.folder, name)
        if record.id:  # it costs that container, until a record that says all about it
            self._clean = False
            self.aside[record.id] = f"{why} ({name})"
            self._say("note", "damage", path, f"{why}; it is one of container '{record.id}'")
        else:
            self._complain(name, "damage", path, why)

    def _fold(self, event: Event) -> None:
        if isinstance(event, Observed) and event.rebuilt:
            self.aside.pop(event.id, None)
        if not event.id or (event.id in self.aside and not isinstance(event, Checkpointed)):
            return
        try:
            self.machines[event.id] = (self.machines.get(event.id) or Machine(event.id)).apply(event)
        except JournalError as error:
            self._clean = False
            self.aside[event.id] = str(error)

    def _torn(self, fd: int, start: int, name: str) -> None:
        path = os.path.join(self.folder, name)
        size = os.fstat(fd).st_size
        zeros = not any(os.pread(fd, 1 << 16, start).strip(b"\0\n"))
        why = f"{size - start} bytes behind byte {start} are {'only zeros' if zeros else 'no whole record'}"
        if name == self._newest:
            fix = "nexcage doctor --repair cuts them off and keeps them beside it, as the next command does"
            self._say("warning", "torn tail", path, f"{why}: its writer died", fix, repairable=True)
        else:
            self._complain(name, "torn tail", path, why)

    # What a checkpoint must say

    def _compare(self, before: Mapping[str, Machine], said: Mapping[str, Machine] | None, name: str) -> None:
        if said is None:
            return
        path = os.path.join(self.folder, name)
        for id, machine in before.items():
            if id in self.aside:
                continue
            if id not in said:
                if machine.state is not State.ABSENT:
                    self._complain(
                        name, "checkpoint", path, f"container '{id}' is {machine.state} before it, not in it"
                    )
            elif _core(said[id]) != _core(machine):
                was = f"container '{id}' is {machine.state} on {machine.node} before it and {said[id].state} in it"
                self._complain(name, "checkpoint", path, was)

    def _quarantine(self) -> None:
        path = os.path.join(self.folder, "quarantine.json")
        self.aside = {}
        try:
            with open(path, "rb", opener=under) as file:
                self.aside = msgspec.json.decode(file.read(16 << 20), type=dict[str, str])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            why = f"it cannot be read: {error}"
            self._say("error", "quarantine", path, why, "nexcage reconcile --all, then delete it")


def _core(machine: Machine) -> tuple[object, ...]:
    return machine.state, machine.node, machine.vmid, machine.mark
