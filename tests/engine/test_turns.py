"""One operation at a time per container: nobody passes, nobody is forgotten, and who gives up leaves no trace."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from nexcage import Start
from nexcage._engine.operation import Operation
from nexcage._engine.turns import Turns


def operation(name: str, id: str = "web-1") -> Operation:
    return Operation(Start(id), name)


async def use(turns: Turns, op: Operation, seconds: float, order: list[str]) -> None:
    await turns.take(op)
    order.append(op.op_id)
    try:
        await anyio.sleep(seconds)
        assert turns.holder(op.intent.id) is op
    finally:
        turns.leave(op)


async def test_turns_come_in_the_order_in_which_they_were_asked_for(virtual_time: object) -> None:
    turns = Turns()
    order: list[str] = []
    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(use, turns, operation(str(n)), 1.0, order)
            await anyio.sleep(0.1)
        tasks.start_soon(use, turns, operation("other", "web-2"), 0.1, order)
    assert order == ["0", "other", "1", "2", "3", "4"]
    assert turns.holder("web-1") is None


@pytest.mark.parametrize("patience", [0.5, 1.0])  # while it waits; in the moment in which its turn has come
async def test_who_gives_up_waiting_costs_nobody_a_turn(virtual_time: object, patience: float) -> None:
    turns = Turns()
    order: list[str] = []

    async def impatient() -> None:
        with anyio.move_on_after(patience):
            await use(turns, operation("gone"), 1.0, order)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, turns, operation("first"), 1.0, order)
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(impatient)
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(use, turns, operation("last"), 1.0, order)
    assert order[0] == "first"
    assert order[-1] == "last"
    assert turns.holder("web-1") is None
