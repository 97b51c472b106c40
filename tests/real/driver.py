"""A driver in a process of its own: `driver.py CONFIG FIRST COUNT WAIT`.

Says ready, waits for a line, makes and starts web-FIRST ..., and says how each ended: OP ID OUTCOME.
"""

from __future__ import annotations

import sys

import anyio

from nexcage import Create, Done, Outcome, Spec, Start, open_fleet

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def word(outcome: Outcome) -> str:
    if isinstance(outcome, Done):
        return "done" if outcome.changed else "already"
    return type(outcome.error).__name__


async def main(config: str, first: int, count: int, wait: bool) -> None:
    async with open_fleet(config=config) as fleet:
        say("ready")
        sys.stdin.readline()
        ids = [f"web-{n:03}" for n in range(first, first + count)]
        for intents in ([Create(id, SPEC) for id in ids], [Start(id) for id in ids]):
            for outcome in await fleet.run(intents, wait=wait):
                say(outcome.op, outcome.id, word(outcome))


anyio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "wait")
