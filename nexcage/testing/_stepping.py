"""One command, or two at once, on a node of the model: to its end in virtual time and without an event loop."""

from __future__ import annotations

from collections.abc import Sequence

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Flock, Sleep, Steps, Unlock, tracked

__all__ = ["Clock", "run"]


class Clock:
    """Seconds that pass when somebody waits."""

    def __init__(self) -> None:
        self.now: float = 1.8e9

    def __call__(self) -> float:
        return self.now


class _Beside:
    """A command that works at the same time on the same node, and the flocks that it holds."""

    def __init__(self, node: Node, clock: Clock, argv: Sequence[str]) -> None:
        self.node, self.clock = node, clock
        self.steps: Steps = tracked(TOOLS[argv[0]], Ctx(node, tuple(argv)))
        self.held: set[str] = set()
        self.due: float | None = clock.now
        self.advance(clock.now + 5.0)

    def advance(self, until: float, path: str = "") -> None:
        """Let it work until then, or until it gives ``path`` back."""
        while self.due is not None and self.due <= until and not (path and path not in self.held):
            self.clock.now = max(self.clock.now, self.due)
            self._step()
        if not path or path in self.held:
            self.clock.now = max(self.clock.now, until)

    def _step(self) -> None:
        self.node.settle()
        answer: object = None
        while True:
            try:
                wait = self.steps.send(answer)
            except StopIteration:
                self.due = None
                self.held.clear()
                return
            if isinstance(wait, Sleep):
                self.due = self.clock.now + wait.seconds
                return
            if isinstance(wait, Flock):
                self.held.add(wait.path)
            elif isinstance(wait, Unlock):
                self.held.discard(wait.path)
            answer = isinstance(wait, Flock)


def run(
    node: Node,
    clock: Clock,
    argv: Sequence[str],
    stdin: str = "",
    *,
    flock: bool = True,
    beside: Sequence[str] = (),
) -> tuple[int, str, str]:
    """Run one command to its end in virtual time. ``flock`` says whether flocks are free, ``beside`` what works meanwhile."""
    other = _Beside(node, clock, beside) if beside else None
    ctx = Ctx(node, tuple(argv), stdin=stdin.encode())
    steps = tracked(TOOLS[argv[0]], ctx)
    answer: object = None
    while True:
        node.settle()
        try:
            wait = steps.send(answer)
        except StopIteration as end:
            return end.value, ctx.stdout.decode(), ctx.stderr.decode()
        answer = flock and isinstance(wait, Flock)
        if isinstance(wait, Flock) and other is not None and wait.path in other.held:
            other.advance(clock.now + wait.timeout, wait.path)
            answer = wait.path not in other.held
        elif isinstance(wait, Sleep) and other is not None:
            other.advance(clock.now + wait.seconds)
        elif isinstance(wait, Sleep):
            clock.now += wait.seconds
