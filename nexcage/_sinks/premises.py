"""What lies in and around a state directory besides its journal: who may read it, what was left behind, what other programs read."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping

import msgspec

from nexcage import names
from nexcage._core.finding import Finding, Severity
from nexcage._core.machine import Machine
from nexcage._core.oci import oci_state
from nexcage._core.states import State
from nexcage._sinks.peek import listed, small
from nexcage.errors import InvalidInput, escaped

__all__ = ["REPAIR", "modes", "state_files", "temporary"]

REPAIR = "nexcage doctor --repair"
_TEMPORARY = re.compile(r"\.(fleet|holder|epoch|lease|state\.json|quarantine\.json|[0-9]{20}\.jsonl)\.new")
_OWN = {"journal", "owners", "fleet", "holder", "epoch", "lease", "cordoned", "run"}


def _found(severity: Severity, what: str, where: str, why: str, fix: str, *, id: str = "") -> Finding:
    return Finding(severity=severity, what=what, where=where, why=why, fix=fix, repairable=fix == REPAIR, id=id)


def temporary(state: str, run: str | None) -> Iterator[str]:
    """Files that were being written when their writer died; while the journal's lock is held nobody writes any."""
    folders = [state, os.path.join(state, "journal")]
    if run is not None:
        folders += [run, *(os.path.join(run, name) for name in listed(run) if not name.startswith("."))]
    for folder in folders:
        yield from (os.path.join(folder, name) for name in listed(folder) if _TEMPORARY.fullmatch(name))
    owners = os.path.join(state, "owners")
    yield from (os.path.join(owners, name) for name in listed(owners) if name.startswith("."))


# Who may read it


def modes(state: str, run: str | None) -> Iterator[Finding]:
    """Files and directories of ours that others may read or change."""
    for path, inner in _ours(state, run):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            if inner:
                why = "a link where a file of ours should be"
                yield _found("error", "link", path, why, "see who made it, then remove it")
        elif found.st_uid != os.geteuid():
            why = f"it belongs to user {found.st_uid}"
            yield _found("warning", "owner", path, why, f"chown it to {os.geteuid()}, or run as that user")
        elif found.st_mode & (0o077 if inner else 0o022):
            wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
            mine = inner or path == run or set(listed(path)) <= _OWN
            fix = REPAIR if mine else f"chmod {wanted:o}, or another directory"
            yield _found("warning", "mode", path, f"it is {stat.S_IMODE(found.st_mode):04o}, not {wanted:04o}", fix)


def _ours(state: str, run: str | None) -> Iterator[tuple[str, bool]]:
    """Every path that should be closed to others, and whether it is ours alone (the two outermost directories may not be)."""
    yield state, False
    for name in ("fleet", "holder", "epoch", "lease"):
        if os.path.lexists(os.path.join(state, name)):
            yield os.path.join(state, name), True
    for folder in ("journal", "owners", "cordoned"):
        path = os.path.join(state, folder)
        if os.path.lexists(path):
            yield path, True
            yield from ((os.path.join(path, name), True) for name in listed(path) if not name.startswith("."))
    if run is not None and os.path.isdir(run):
        yield run, False
        for name in listed(run):
            path = os.path.join(run, name, "state.json")
            if os.path.lexists(path) and not name.startswith("."):
                yield os.path.dirname(path), True
                yield path, True


# What other programs read


def state_files(run: str, machines: Mapping[str, Machine], fleet: str) -> Iterator[Finding]:
    """State files that do not parse, are not what the journal says, belong to nobody or are missing."""
    claim = small(os.path.join(run, ".fleet"))
    other = (claim or b"").decode("ascii", "backslashreplace").strip()
    if claim is not None and fleet and other != fleet:
        fix = f"another run_dir, or remove {run}/.fleet if that fleet is gone"
        yield _found("error", "run directory", run, f"it holds the state files of fleet {escaped(other)}", fix)
        return
    there = {name for name in listed(run) if not name.startswith(".")}
    alive = {id for id, machine in machines.items() if machine.state is not State.ABSENT}
    for name in sorted(there | alive):
        yield from _state_file(run, name, machines[name] if name in alive else None)


def _state_file(run: str, name: str, machine: Machine | None) -> Iterator[Finding]:
    path = os.path.join(run, name, "state.json")
    try:
        names.container_id(name)
        data = small(path)
    except (InvalidInput, NotADirectoryError):
        yield _found("note", "stranger", os.path.join(run, name), "no container of ours", "move it away")
        return
    except OSError as error:
        yield _found("error", "state file", path, f"it cannot be read: {error}", "remove what is in its place")
        return
    if machine is None:
        if data is not None:
            yield _found("warning", "state file", path, "it belongs to no container", REPAIR, id=name)
    elif data is None:
        yield _found("warning", "state file", path, "it is missing", REPAIR, id=name)
    elif data != msgspec.json.format(msgspec.json.encode(oci_state(machine, run_dir=run)), indent=1) + b"\n":
        if _parses(data):
            yield _found("warning", "state file", path, "it is not what the journal says", REPAIR, id=name)
        else:
            yield _found("error", "state file", path, "it does not parse", REPAIR, id=name)


def _parses(data: bytes) -> bool:
    decode: Callable[[bytes], object] = json.loads
    try:
        return isinstance(decode(data), dict)
    except ValueError:
        return False
