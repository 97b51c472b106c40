"""A driver in a process of its own: `writer.py STATE_DIR OWNER COUNT`; creates web-0 … and says who won each."""

from __future__ import annotations

import sys

import anyio

from nexcage import Create, Machine, NexcageError, Op, Spec, State, Succeeded
from nexcage._sinks.journal import open_journal

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def main(state_dir: str, owner: str, count: int) -> None:
    async with open_journal(state_dir, owner=owner, run_dir=f"{state_dir}/run") as journal:
        say("ready")
        sys.stdin.readline()

        async def one(id: str) -> None:
            key = f"{owner}.{id}"
            try:
                await journal.append(
                    lambda machines: (machines.get(id) or Machine(id)).begin(Create(id, SPEC), op_id=key, owner=owner)
                )
                await journal.append(Succeeded(id=id, op=Op.CREATE, op_id=key, state=State.CREATED, vmid=104))
            except NexcageError as error:
                say(type(error).__name__, id)
            else:
                say("won", id)

        async with anyio.create_task_group() as tasks:
            for n in range(count):
                tasks.start_soon(one, f"web-{n}")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
