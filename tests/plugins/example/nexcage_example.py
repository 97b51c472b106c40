"""A plugin of every kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nexcage
from nexcage import Command, text
from nexcage.abc import Asked, Candidate, Hooks
from nexcage.tools.health import Check


class Quota(Hooks):
    """No create beyond so much memory for one container, in MiB."""

    policy = "abort"

    def __init__(self, memory: int = 8192) -> None:
        self.memory: int = memory

    def pre_create(self, intent: nexcage.Create, machine: nexcage.Machine) -> None:
        if (intent.spec.memory or 0) > self.memory:
            raise nexcage.InvalidSpec("memory", intent.spec.memory, f"at most {self.memory} MiB here")


class Lines:
    """Every event as a line of a file; without a path they go nowhere."""

    def __init__(self, path: str = "") -> None:
        self._path = path

    async def put(self, event: nexcage.Event) -> None:
        if self._path:
            with Path(self._path).open("a", encoding="utf-8") as file:
                file.write(f"{nexcage.text_line(event)}\n")

    async def aclose(self) -> None: ...


class First:
    """The first node by name."""

    def place(self, id: str, spec: nexcage.Spec, nodes: Sequence[Candidate]) -> str:
        return min(node.node for node in nodes)


class Census:
    """``nexcage census [--state STATE]``: how many containers each node has."""

    summary = "how many containers each node has"
    usage = "[--state STATE]"
    options: Mapping[str, str] = {"-s, --state STATE": "count only those in this state"}

    async def run(
        self, fleet: nexcage.Fleet, words: Sequence[str], options: Mapping[str, str | bool], say: Callable[[str], None]
    ) -> Sequence[Mapping[str, object]]:
        wanted = options.get("state")
        found = Counter(one.machine.node for one in fleet if wanted in (None, str(one.machine.state)))
        return [{"node": key, "containers": found[key]} for key in fleet.nodes]


class Kernel:
    """Whether a node tells what kernel it runs."""

    async def check(self, node: Asked) -> Sequence[Check]:
        said = await node.run(Command(("uname", "-r"), text, safe=True))
        return [Check("kernel", "PASS" if said.strip() else "WARN", said.strip())]
