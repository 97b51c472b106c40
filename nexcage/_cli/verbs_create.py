"""``nexcage create`` and ``run``."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from nexcage import Create, Delete, Done, InvalidInput, InvalidPath, NexcageError, Spec, Start, names
from nexcage._cli.dialects import creation
from nexcage._cli.oci_documents import said_of
from nexcage._cli.outcomes import print_outcomes
from nexcage._cli.parser import Call
from nexcage._cli.rehearse import rehearse
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["prepare", "wanted", "write_pid"]


def prepare(call: Call, streams: Streams) -> Verb:
    """Read everything from the command line; raises before anything is opened."""
    id, spec = wanted(call, streams)
    pid_file = call.text("pid_file")
    if pid_file is not None and not os.path.isdir(os.path.dirname(os.path.abspath(pid_file))):
        raise InvalidPath("pid-file", pid_file, "a file in a directory that exists")
    op_id = call.text("op_id")
    if op_id is not None:
        names.op_id(op_id)

    async def verb(fleet: Fleet) -> int:
        if call.flag("dry_run"):
            return await rehearse(call, streams, fleet, [Create(id, spec, op_id)])
        done = await fleet.do(Create(id, spec, op_id), wait=True)
        for note in done.notes:
            streams.say(f"nexcage: {call.name} '{id}': {note}")
        if call.name == "run":
            done = await _start(call, fleet, id, op_id)
        if pid_file is not None:
            write_pid(pid_file, done)
        if output := call.text("output"):
            print_outcomes(streams, [done], output, single=True)
        return 0

    return verb


def wanted(call: Call, streams: Streams) -> tuple[str, Spec]:
    """The id and the spec, with what the state says of a bundle; raises InvalidPath when there is none."""
    id, spec = creation(call, lambda path: _read(path, streams))
    if spec.bundle is None:
        return id, spec
    if not os.path.isfile(os.path.join(spec.bundle, "config.json")):
        raise InvalidPath("bundle", spec.bundle, "an existing directory with config.json in it")
    version, annotations = said_of(spec.bundle)
    return id, msgspec.structs.replace(spec, annotations={**annotations, **spec.annotations}, oci_version=version)


async def _start(call: Call, fleet: Fleet, id: str, op_id: str | None) -> Done:
    try:
        return await fleet.do(Start(id, op_id=None if op_id is None else f"{op_id}.start"), wait=True)
    except NexcageError as error:
        if not call.flag("rm"):
            raise error.noted(f"container '{id}' was created and stays; 'nexcage delete {id}' removes it") from None
        try:
            await fleet.do(Delete(id, force=True), wait=True)
        except NexcageError as second:
            raise error.noted(f"container '{id}' was created and could not be removed again: {second}") from None
        raise error.noted(f"container '{id}' was created and removed again") from None


def _read(path: str, streams: Streams) -> str:
    try:
        return streams.document(path)
    except OSError as error:
        raise InvalidPath("ssh-public-keys", path, f"a readable file ({error.strerror})") from None
    except ValueError:
        raise InvalidInput("ssh-public-keys", path, "a file with lines of text") from None


def write_pid(path: str, done: Done) -> None:
    """The pid in decimal, without a newline, in one step: whoever sees the file sees all of it."""
    whole = os.path.abspath(path)
    beside = f"{os.path.dirname(whole)}/.{secrets.token_hex(8)}.pid"
    try:
        with open(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w", encoding="ascii"
        ) as file:
            file.write(str(done.pid))
        os.replace(beside, whole)
    except OSError as error:
        raise NexcageError(f"cannot write the pid file {path!a}: {error.strerror}").noted(
            f"container '{done.id}' is {done.state}"
        ) from None
