"""What a pretend tool is: a generator that does its work in steps and says what it waits for between them.

Between two yields nothing else happens on the cluster, so a step reads, decides and writes without locks. Over a yield
anything may change: read again. A tool that is killed (SIGKILL, SIGHUP) is simply dropped and its traces stay, as on a real
node; :class:`Interrupted` is thrown in for SIGTERM and SIGINT, where the real tools clean up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from nexcage.testing._model.node import Node

__all__ = ["Ctx", "Flock", "Input", "Interrupted", "Sleep", "Steps", "Tool", "Unlock", "Wait", "tracked"]


class Sleep(NamedTuple):
    """Wait this long."""

    seconds: float


class Flock(NamedTuple):
    """Wait for an exclusive flock on ``path``; the answer is True, or False when it was not free in time.

    It is given back by :class:`Unlock` or when the tool ends, however it ends.
    """

    path: str
    timeout: float


class Unlock(NamedTuple):
    """Give a flock back."""

    path: str


class Input(NamedTuple):
    """Wait until there is more standard input, or its end is known (`Ctx.stdin`, `Ctx.eof`)."""


class Interrupted(Exception):
    """SIGTERM or SIGINT reached the tool."""


Wait: TypeAlias = Sleep | Flock | Unlock | Input
Steps: TypeAlias = Generator[Wait, Any, int]  # Any: what a wait is answered with depends on the wait


class Ctx:
    """One call of a tool: where it runs, with which words, and where its output goes."""

    __slots__ = (
        "_err",
        "_out",
        "argv",
        "changed",
        "claim",
        "env",
        "eof",
        "line",
        "listener",
        "node",
        "pids",
        "real",
        "seq",
        "stderr",
        "stdin",
        "stdout",
        "watched",
    )

    def __init__(
        self,
        node: Node,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        out: Callable[[bytes], object] | None = None,
        err: Callable[[bytes], object] | None = None,
        real: bool = False,
    ) -> None:
        self.node: Node = node
        self.real: bool = real
        """Whether a process of this machine stands behind the call: then its environment can be read in the real /proc."""
        self.argv: tuple[str, ...] = argv
        self.stdin: bytes = stdin
        self.eof: bool = True
        """Whether no more standard input will come."""
        self.listener: Callable[[], object] | None = None
        """Told when more has come, or the end."""
        self.env: Mapping[str, str] = {} if env is None else env
        self.stdout: bytearray = bytearray()
        self.stderr: bytearray = bytearray()
        self.seq: int | None = None
        """The number of this call in the effects log, once it changed something."""
        self.line: dict[str, object] | None = None
        """The head of its line in the effects log, until it is written."""
        self.changed: list[dict[str, str]] = []
        """What the running step changed so far."""
        self.claim: str = self.env.get("NEXCAGE_CLAIM", "")
        """The claim on the node that it runs under."""
        self.watched: bool = False
        """Whether something is to happen in the middle of it: then it has a middle, even where work takes no time."""
        self.pids: set[int] = set()
        """The model's processes that live as long as this call works."""
        self._out: Callable[[bytes], object] = self.stdout.extend if out is None else out
        self._err: Callable[[bytes], object] = self.stderr.extend if err is None else err

    def out(self, text: str | bytes) -> None:
        """Write to standard output."""
        self._out(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))

    def err(self, text: str | bytes) -> None:
        """Write to standard error."""
        self._err(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))

    def feed(self, data: bytes) -> None:
        """More standard input has come."""
        self.stdin += data
        if self.listener is not None:
            self.listener()

    def end_input(self) -> None:
        """That was all of it."""
        self.eof = True
        if self.listener is not None:
            self.listener()

    def called(self, argv: tuple[str, ...]) -> Ctx:
        """A program that this one starts: same output, other words; drive it with :func:`tracked`."""
        inner = Ctx(self.node, argv, stdin=self.stdin, env=self.env, out=self._out, err=self._err)
        inner.claim = self.claim
        return inner


Tool: TypeAlias = Callable[[Ctx], Steps]


def tracked(tool: Tool, ctx: Ctx) -> Steps:
    """``tool`` with its changes recorded as its own, and its exit status when it ends. Drivers start tools through this."""
    node = ctx.node
    node.show_call(ctx)
    steps = tool(ctx)
    answer: Any = None  # Any: whatever the driver answers a wait with
    thrown: Interrupted | None = None
    while True:
        outer, node.current = node.current, ctx
        try:
            wait = steps.throw(thrown) if thrown is not None else steps.send(answer)
        except StopIteration as end:
            status: int = end.value
            node.finished(ctx, status)
            return status
        except Interrupted:
            node.finished(ctx, 143)
            raise
        else:
            node.stepped(ctx)
        finally:
            node.current = outer
        try:
            answer, thrown = (yield wait), None
        except Interrupted as error:
            thrown = error
