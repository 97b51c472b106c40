"""Twins of the library's scripts that run inside containers."""

from __future__ import annotations

import hashlib

from nexcage.testing._model import guest as guests
from nexcage.testing._model.guest import Guest, Program
from nexcage.testing._model.tool import Interrupted, Steps
from nexcage.tools import inside

__all__ = ["INNER"]

_IDS = {"root": 0, "www-data": 33, "user": 1000}


def _in_directory(guest: Guest, words: tuple[str, ...]) -> Steps:
    directory, *command = words
    if not guest.is_directory(directory):
        guest.ctx.err(f"sh: 1: cd: can't cd to {directory}\n")
        return 126
    guest.cwd = directory
    return (yield from guests.run(guest, tuple(command)))


def _push(guest: Guest, words: tuple[str, ...]) -> Steps:
    path, mode, owner, sha256, nonce = words
    if guest.is_directory(path):
        return _fail(guest, 72, "it is a directory")
    if not guest.is_directory(path.rpartition("/")[0] or "/"):
        guest.ctx.err(f"sh: 1: cannot create {path}.nexcage-{nonce}: Directory nonexistent\n")
        return _fail(guest, 73, "its directory cannot be written to")
    try:
        data = yield from guest.whole()
    except Interrupted:
        return 143
    if hashlib.sha256(data).hexdigest() != sha256:
        return _fail(guest, 74, "what arrived is not what was sent")
    user, _, group = owner.partition(":")
    uid, gid = _id(user, guest.uid), _id(group, guest.gid)
    if uid is None or gid is None:
        return _fail(guest, 75, "its owner cannot be set")
    guest.write(path, data)
    guest.chmod(path, int(mode, 8), uid, gid)
    return 0


def _id(name: str, otherwise: int) -> int | None:
    return otherwise if not name else int(name) if name.isdigit() else _IDS.get(name)


def _fail(guest: Guest, status: int, text: str) -> int:
    guest.ctx.err(f"nexcage: {text}\n")
    return status


def _pull(guest: Guest, words: tuple[str, ...]) -> Steps:
    (path,) = words
    if guest.is_directory(path):
        return _fail(guest, 72, "it is a directory")
    data = guest.read(path)
    if data is None:
        return _fail(guest, 76, "it does not exist")
    guest.ctx.out(data)
    mode, uid, gid = guest.about(path)
    guest.ctx.err(f"@nexcage file {hashlib.sha256(data).hexdigest()} {mode:o} {uid} {gid}\n")
    return 0
    yield


def _digest(guest: Guest, words: tuple[str, ...]) -> Steps:
    path, nonce = words
    guest.remove(f"{path}.nexcage-{nonce}")
    data = guest.read(path)
    if data is not None:
        guest.ctx.out(f"{hashlib.sha256(data).hexdigest()}  -\n")
    return 0
    yield


def _logs(guest: Guest, words: tuple[str, ...]) -> Steps:
    lines, follow = words
    return (yield from guests.run(guest, ("journalctl", "-n", lines, *(("-f",) if follow else ()))))


INNER: dict[str, Program] = {
    inside.IN_DIRECTORY: _in_directory,
    inside.PUSH: _push,
    inside.PULL: _pull,
    inside.DIGEST: _digest,
    inside.LOGS: _logs,
}
"""Script text to its twin; they get what stands behind the script's own name."""
