"""One argv with its parser, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from nexcage.errors import CommandFailed, NexcageError

__all__ = ["Claim", "Command", "Result", "failed", "nothing", "number", "shown", "text"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MIB = 1 << 20


class Result(msgspec.Struct, frozen=True, gc=False):
    """What came back from one command. Only an integer ``exit`` is an answer; ``None`` means that the answer was lost.

    ``stdout``/``stderr`` are bytes that nobody trusts, capped: the head and tail of what was printed; ``dropped``
    counts the bytes
    left out between them. ``lost`` says why there is no exit status (``link``, ``deadline``) or that a deadline ended it.
    """

    exit: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    dropped: int = 0
    lost: str = ""
    seconds: float = 0.0


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step of an operation on a node: the right to run its command once.

    ``path`` is where the node keeps it below ``/run/nexcage-ops``. ``boot_id``: of the node when the step was journaled;
    after a reboot the node refuses it. (``epoch``, ``seq``) is the fence for container ``id``: the lease's epoch and the
    journal number of the operation's Began; a node with a runner refuses a pair lower than the highest that it has seen.
    """

    fleet: str
    op: str
    step: int
    id: str
    boot_id: str = ""
    epoch: int = 0
    seq: int = 0

    @property
    def path(self) -> str:
        return f"{self.fleet}/{self.op}.{self.step}"


def shown(data: bytes, limit: int = 4096) -> str:
    """Bytes of a node as text for people: UTF-8 where it is, every control character but newline and tab visibly escaped."""
    decoded = data[-limit:].decode("utf-8", "backslashreplace")
    if decoded.isprintable():
        return decoded
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in decoded)


def nothing(result: Result) -> None:
    """The parser of commands that are expected to say nothing worth reading."""


def text(result: Result) -> str:
    """Standard output as text without the last newline; bytes that are not UTF-8 are shown as escapes."""
    return shown(result.stdout, len(result.stdout)).rstrip("\n")


def number(result: Result) -> int:
    """Standard output as one decimal integer; raises ValueError on anything else, also on look-alike digits."""
    word = result.stdout.strip()
    if not word.isdigit() or len(word) > 19:
        raise ValueError(f"not a number: {shown(word[:64])!r}")
    return int(word)


def failed(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error of a command that ran and said no, when its vocabulary has nothing more precise to say."""
    assert result.exit is not None
    return CommandFailed(node, command.argv, result.exit, shown(result.stderr), shown(result.stdout))


class Command(msgspec.Struct, Generic[T], frozen=True):
    """One argv (never a shell string) with everything needed to run it and to understand its answer.

    ``parse`` gets the result of an exit status 0 and gives the value of ``node.run(command)``; a ValueError from it
    is reported as
    a failure of the command. ``classify`` turns another exit status into the error to raise. ``check`` sees every
    result first, for
    the tools that exit 0 though they failed; an error that it returns is raised.

    ``safe``: reads only, may be repeated freely and needs no journal. ``tries``: facts that recovery must know about this attempt
    (the VMID of a create); journaled with the step before it runs. ``cancel``: how a running one is ended: ``kill`` = TERM to its
    process group, a second later KILL; ``term`` = TERM to the tool only, never KILL or HUP, then wait for its own clean-up (PVE's
    tools leave locks and volumes behind otherwise). ``timeout`` and ``cap`` in seconds and bytes (each of stdout and stderr);
    ``None`` takes the fleet's. ``weight`` names the bound that it counts against besides the node's total. ``claim``: it is
    this step, so it runs at most once, outlives its link, and whoever asks again gets the same answer.
    """

    argv: tuple[str, ...]
    parse: Callable[[Result], T]
    safe: bool = False
    stdin: bytes = b""
    env: Mapping[str, str] = {}
    cancel: Literal["kill", "term"] = "kill"
    timeout: float | None = None
    cap: int = MIB
    weight: Literal["read", "change", "create"] = "change"
    tries: Mapping[str, str | int] = {}
    claim: Claim | None = None
    classify: Callable[[Command[Any], Result, str], NexcageError] = failed
    check: Callable[[Command[Any], Result, str], NexcageError | None] | None = None

    @property
    def typed(self) -> tuple[str, ...]:
        """What an operator would type for it: without the script that checks first whether the container is still ours."""
        shell, inner = self.argv[:2] == ("sh", "-c"), self.argv[6:]
        if shell and self.argv[3:4] == ("nexcage",) and inner:
            return inner
        return ("sh", "-c", "...", *self.argv[3:]) if shell else self.argv

    def __str__(self) -> str:
        return " ".join(self.argv)
