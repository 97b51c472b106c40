"""The commands of ``crun`` and ``runc`` on one container, by their names there."""

from __future__ import annotations

from collections.abc import Mapping

from nexcage._core.command import Command, nothing
from nexcage._core.seen import Mark
from nexcage.errors import InvalidInput
from nexcage.tools.runtime import answers
from nexcage.tools.runtime.answers import Features, Listed, Usage
from nexcage.tools.runtime.call import Runtime, change, read

__all__ = [
    "events",
    "features",
    "kill",
    "list_",
    "pause",
    "ps",
    "resume",
    "spec",
    "start",
    "state",
    "update",
    "version",
]

_LIMITS = {
    "memory": "--memory",
    "reservation": "--memory-reservation",
    "swap": "--memory-swap",
    "shares": "--cpu-share",
    "quota": "--cpu-quota",
    "period": "--cpu-period",
    "cpus": "--cpuset-cpus",
    "mems": "--cpuset-mems",
    "pids": "--pids-limit",
    "weight": "--blkio-weight",
}


def start(runtime: Runtime, mark: Mark) -> Command[None]:
    """Run the program of a created one. Raises IllegalTransition for what has been started."""
    return change(runtime, mark, "start", mark.id, timeout=120.0)


def kill(runtime: Runtime, mark: Mark, number: int, *, everything: bool = False) -> Command[None]:
    """Send signal ``number`` to its init; ``everything``: to all of its processes. crun takes words that are no signal for 0."""
    if not 0 < number < 65:
        raise InvalidInput("signal", number, "a number from 1 to 64")
    return change(runtime, mark, "kill", *(("--all",) if everything else ()), mark.id, str(number))


def pause(runtime: Runtime, mark: Mark) -> Command[None]:
    """Freeze it. crun takes a frozen one, and one that has ended, without a word: look."""
    return change(runtime, mark, "pause", mark.id)


def resume(runtime: Runtime, mark: Mark) -> Command[None]:
    """Let it go on. crun takes one that is not frozen without a word."""
    return change(runtime, mark, "resume", mark.id)


def update(runtime: Runtime, mark: Mark, given: Mapping[str, str] | None = None, **limits: int | str) -> Command[None]:
    """Change limits of a live one: ``memory``, ``reservation`` and ``swap`` (memory plus swap) in bytes, ``shares``, ``quota`` and
    ``period`` (microseconds), ``cpus`` and ``mems`` (lists such as ``0-2,4``), ``pids``, ``weight``. ``given``: options by their own names;
    ``resources`` is the document itself. Raises InvalidInput.
    """
    options = dict(given or {})
    document = options.pop("resources", None)
    words = [f"--{name}={value}" for name, value in options.items()]
    if document is not None:
        words.append("--resources=-")
    for name, value in limits.items():
        if name not in _LIMITS:
            raise InvalidInput("limit", name, f"one of {', '.join(_LIMITS)}")
        words += [_LIMITS[name], str(value)]
    if not words:
        raise InvalidInput("limits", "", "something to change")
    return change(runtime, mark, "update", *words, mark.id, stdin=(document or "").encode())


def state(runtime: Runtime, mark: Mark) -> Command[Listed]:
    """What the program itself says about it."""
    return read(runtime, mark, lambda result: answers.state(result.stdout), "state", mark.id)


def list_(runtime: Runtime, mark: Mark) -> Command[tuple[Listed, ...]]:
    """All containers beside it."""
    return read(runtime, mark, lambda result: answers.listed(result.stdout), "list", "--format", "json")


def ps(runtime: Runtime, mark: Mark) -> Command[tuple[int, ...]]:
    """The host's pids of its processes."""
    return read(runtime, mark, answers.pids, "ps", "--format", "json", mark.id)


def events(runtime: Runtime, mark: Mark) -> Command[Usage]:
    """Its statistics, once. Raises NodeNotUsable where the program is too old for that (crun 1.8)."""
    return read(runtime, mark, answers.usage, "events", "--stats", mark.id)


def features(runtime: Runtime, mark: Mark) -> Command[Features]:
    """What the program can do. Raises NodeNotUsable where it is too old to say so (crun 1.8)."""
    return read(runtime, mark, answers.features, "features")


def version(runtime: Runtime) -> Command[tuple[str, str]]:
    """The program's version and that of the specification that it follows."""
    argv = (*(runtime.command or (runtime.name,)), "--version")
    return Command(argv, answers.version, safe=True, weight="read", timeout=30.0)


def spec(runtime: Runtime, directory: str) -> Command[None]:
    """Write the program's own ``config.json`` into ``directory``, where there is none yet."""
    argv = (
        "sh",
        "-c",
        'cd "$1" && shift && exec "$@"',
        "spec",
        directory,
        *(runtime.command or (runtime.name,)),
        "spec",
    )
    return Command(argv, nothing, timeout=30.0)
