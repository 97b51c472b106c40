"""What ``crun`` and ``runc`` say when they refuse, and the error that it means (oci 2; recorded runs in tests/cases/runtime).

Never the number: 1 and 255 mean the same, an unknown command is 3 or 1, and the program of an ``exec`` may end with any of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage._core.seen import Mark
from nexcage.errors import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    IllegalTransition,
    InvalidInput,
    InvalidPath,
    InvalidSpec,
    NexcageError,
    NodeNotUsable,
    NotFound,
    NotOurs,
)

__all__ = ["classify", "last_error"]

SAID = b"\n@nexcage said\n"


class _Said(NamedTuple):
    """One refusal: what it names, whose it is, and in which words."""

    name: str
    text: str
    id: str
    verb: str
    runtime: str
    node: str


_Meaning: TypeAlias = Callable[[_Said], NexcageError]


def _state(state: str, reason: str = "") -> _Meaning:
    return lambda said: IllegalTransition(said.id, said.verb, state, reason=reason)


def _missing(said: _Said) -> NexcageError:
    return NodeNotUsable(
        said.node, f"there is no `{said.runtime}`: install it there (`apt-get install {said.runtime}`)"
    )


_MEANINGS: Mapping[str, _Meaning] = {
    "gone": lambda said: NotFound("container", said.id, f"is not known to {said.runtime} on {said.node}"),
    "taken": lambda said: AlreadyExists("container", said.id, f"already exists on {said.node}"),
    "running": _state("running"),
    "started": _state("running", "it has been started already"),
    "stopped": _state("stopped", "it is not running"),
    "ended": _state("stopped", "it has ended, and cannot be started again: delete it and create it anew"),
    "paused": _state("paused"),
    "not paused": _state("running", "it is not paused"),
    "not stopped": _state("running", "it must be stopped for that"),
    "bad id": lambda said: InvalidInput("id", said.id, f"an id that {said.runtime} takes"),
    "bad signal": lambda said: InvalidInput("signal", said.name, "a signal that exists"),
    "no bundle": lambda said: InvalidPath("bundle", said.name, f"a directory that exists on {said.node}"),
    "no config": lambda said: InvalidPath("bundle", said.name, "a directory with a config.json that can be read"),
    "bad config": lambda said: InvalidSpec("config.json", said.name, f"a configuration that {said.runtime} takes"),
    "bad limits": lambda said: InvalidInput("limits", said.name, f"limits that {said.runtime} takes"),
    "no rootfs": lambda said: InvalidPath("root.path", said.name, "a directory that exists"),
    "no console": lambda said: InvalidSpec(  # noqa: ARG005 (the others need it)
        "process.terminal", "true", "false in config.json, or --console-socket (docs/oci-cli.md)"
    ),
    "no command": lambda said: NodeNotUsable(said.node, f"its {said.runtime} is too old: it has no `{said.name}`"),
    "cgroups": lambda said: NodeNotUsable(
        said.node, f"its cgroups are laid out as {said.runtime} cannot use them: see [backends.{said.runtime}] command"
    ),
    "root": lambda said: NodeNotUsable(
        said.node, f"{said.runtime} needs root; log in as root or allow `sudo -n` there"
    ),
    "frozen": lambda said: Blocked(f"container {said.id} on {said.node}", "a frozen cgroup of that name"),
    "busy": lambda said: Busy(f"container {said.id} on {said.node}", said.name),
    "missing": _missing,
}

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), meaning)
    for pattern, meaning in (
        (r"container with given ID already exists", "taken"),
        (r"^container `[^`]*` already exists$", "taken"),
        (r"cannot start an already running container", "started"),
        (r"cannot start a container that has stopped", "ended"),
        (r"cannot start a container in the (paused) state", "paused"),
        (r"cannot open `[^`]*/exec\.fifo`: No such file or directory", "started"),
        (r"cannot delete container \S+ that is not stopped", "not stopped"),
        (r"the container `[^`]*` is not in `created` or `stopped` state", "not stopped"),
        (r"cannot exec in a (paused) container|the container `[^`]*` is (paused)", "paused"),
        (r"cannot exec in a stopped container", "stopped"),
        (r"container with id \S+ is not running|the container `[^`]*` is not running", "stopped"),
        (r"(?:^|: )container `[^`]*` is not running|(?:^|: )container not running$", "stopped"),
        (r"(?:open pidfd|kill container): No such process|no such process$", "stopped"),
        (r"(?:^|: )container not paused$|the container `[^`]*` is not paused", "not paused"),
        (r"(?:^|: )container does not exist$", "gone"),
        (r"error opening file `[^`]*/status`: No such file or directory", "gone"),
        (r"cannot open directory '[^']*/run/nexcage-oci/[^']*': No such file or directory", "gone"),
        (r"invalid container ID format|container id cannot be empty|invalid character `.` in the ID", "bad id"),
        (r"unknown signal [\"`]([^\"`]*)[\"`]", "bad signal"),
        (r"chdir `?([^:`]*)`?(?: failed)?: [Nn]o such file or directory", "no bundle"),
        (r"JSON specification file (config\.json) not found|error loading (config\.json)", "no config"),
        (
            r"invalid rootfs: stat (\S+): no such file|cannot stat `([^`]*)`: No such file|realpath `([^`]*)`",
            "no rootfs",
        ),
        (r"cannot allocate tty if runc will detach|use --console-socket with create", "no console"),
        (r"(cgroups in hybrid mode not supported)", "cgroups"),
        (r"No help topic for '([^']*)'|^unknown command (\S+)$", "no command"),
        (r"failed to create \S+ .*(permission denied)|must be run as root", "root"),
        (r"(container is being (?:created|deleted) by another process)|(resource temporarily unavailable)", "busy"),
        (r"cgroup (unexpectedly frozen)", "frozen"),
        (r"create failed: (unexpected EOF)|json: cannot unmarshal ([^\n]*)", "bad config"),
        (r"invalid character ('.*)|(parse_error)|lexical error: ([^\n]*)", "bad config"),
    )
)

_AS_OF_A_VERB = {("stopped", "start"): "ended", ("bad config", "update"): "bad limits"}

_NO_PROGRAM = re.compile(r"(?:^|: |/)(crun|runc): (?:command )?not found|exec: (crun|runc): ")


class _Line(msgspec.Struct):
    level: str = ""
    msg: str = ""


_LINE = msgspec.json.Decoder(_Line)


def last_error(log: bytes) -> str:
    """The last error in a program's JSON log; empty when there is none. Lines that are no JSON are left out."""
    for text in reversed(log.splitlines()):
        try:
            line = _LINE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if line.level in ("error", "fatal") and line.msg:
            return shown(line.msg.encode("utf-8", "backslashreplace")).strip()
    return ""


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what the program said; CommandFailed with its own words when they mean nothing more precise."""
    mark, runtime, verb = _what(command)
    if result.exit == 9 and b"does not carry our mark" in result.stderr:
        return NotOurs(mark.id, node, mark.vmid, "it does not carry our mark")
    if result.exit == 7 and b"nexcage: the number is taken" in result.stderr:
        return AlreadyExists("VMID", mark.vmid)
    if result.exit == 6 and b"nexcage: others use the cgroup" in result.stderr:
        return Blocked(f"container {mark.id} on {node}", f"a cgroup of that name which others use: /{mark.id}")
    printed, _, log = result.stderr.rpartition(SAID)
    reason = last_error(log) or shown(printed or log).strip()
    plain = CommandFailed(node, command.typed, result.exit or 0, reason, shown(result.stdout))
    said = _Said("", reason, mark.id, verb, runtime, node)
    if result.exit == 127 and _NO_PROGRAM.search(shown(result.stderr)):
        return _missing(said).noted(str(plain))
    if (runtime, verb, result.exit) == ("crun", "ps", 139):  # it dies of a container without processes
        return _MEANINGS["stopped"](said).noted(str(plain))
    for pattern, meaning in _WORDS:
        if match := pattern.search(reason):
            name = next((group for group in match.groups() if group), match[0])
            meant = _AS_OF_A_VERB.get((meaning, verb), meaning)
            return _MEANINGS[meant](said._replace(name=name)).noted(str(plain), *getattr(plain, "__notes__", ()))
    return plain


def _what(command: Command[Any]) -> tuple[Mark, str, str]:
    """Whose container a guarded command is about, by which program, and its verb."""
    mark = Mark.find(command.argv[4]) if len(command.argv) > 4 else None
    runtime, verb = (*command.argv[6:8], "", "")[:2]
    return mark or Mark("", "?", 0, ""), runtime or "the runtime", verb or "use"
