"""Looks: many callers, few commands; nobody gets an answer that is older than the question; each gets an error of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import pytest

from nexcage import (
    Command,
    CommandFailed,
    Host,
    Limits,
    Look,
    NexcageError,
    NodeTimeout,
    NodeUnreachable,
    NoRoute,
    Result,
)
from nexcage._engine.link import Link
from nexcage._engine.node import Families, FleetNode, answer
from nexcage.errors import AuthRejected
from nexcage.tools import pveam
from nexcage.tools.shelf import shelf


class Counting:
    """A transport that takes its time, and whose answers are numbered from 1 in the order in which they began."""

    def __init__(self, seconds: float = 1.0, answer: Callable[[int], Result] | None = None) -> None:
        self.begun = 0
        self.seconds = seconds
        self.answer = answer or (lambda n: Result(0, str(n).encode()))

    async def run(self, command: Command[Any]) -> Result:
        self.begun += 1
        result = self.answer(self.begun)
        await anyio.sleep(self.seconds)
        return result

    def stream(self, command: Command[Any]) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None: ...


class Seeing:
    """A backend as far as a node needs it."""

    def __init__(self, family: str) -> None:
        self.family = family

    def observe(self, key: str, ops: tuple[str, ...]) -> Command[Look]:
        words = ("look", self.family, *ops)
        return Command(words, lambda result: Look(key, self.family, str(int(result.stdout)), {}, {}), safe=True)


@asynccontextmanager
async def a_node(transport: Any, **limits: Any) -> AsyncIterator[FleetNode]:
    async with anyio.create_task_group() as tasks:
        link = Link(
            Host("pve-01"), transport, limits=Limits(**limits), tasks=tasks, random=Random(1), changed=lambda *_: None
        )
        families: Any = {"lxc": Seeing("pve"), "vm": Seeing("pve"), "crun": Seeing("oci")}
        yield FleetNode(link, Families(families, "lxc"), tasks=tasks, clock=lambda: 5.0)
        tasks.cancel_scope.cancel()


async def test_a_thousand_callers_at_once_cost_at_most_two_looks(virtual_time: object) -> None:
    transport = Counting()
    looks: list[Look] = []
    async with a_node(transport) as node, anyio.create_task_group() as tasks:
        for n in range(1000):
            tasks.start_soon(_keep, node, looks)
            if n % 100 == 99:
                await anyio.sleep(0.0999)  # while the first one runs
    assert len(looks) == 1000
    assert transport.begun <= 2


async def _keep(node: FleetNode, looks: list[Look]) -> None:
    looks.append(await node.look())


async def test_nobody_gets_a_look_that_began_before_they_asked(virtual_time: object) -> None:
    transport = Counting()
    async with a_node(transport) as node, anyio.create_task_group() as tasks:
        first: list[Look] = []
        tasks.start_soon(_keep, node, first)
        await anyio.sleep(0.5)
        assert transport.begun == 1

        assert (await node.look()).boot_id == "2"
        assert first[0].boot_id == "1"
        assert node.seen is not None
        assert (node.seen.boot_id, node.seen.at) == ("2", 5.0)


async def test_a_look_of_a_moment_ago_will_do_where_the_caller_says_so(virtual_time: object) -> None:
    transport = Counting(0.1)
    async with a_node(transport) as node:
        await node.look()
        await anyio.sleep(0.5)
        await node.look(within=1.0)
        assert transport.begun == 1
        await anyio.sleep(1.0)
        await node.look(within=1.0)
        assert transport.begun == 2


@pytest.mark.parametrize(("at_work", "looks"), [(1, 2), (2, 1)])
async def test_a_look_waits_a_moment_for_the_others_at_work_on_the_node(
    virtual_time: object, at_work: int, looks: int
) -> None:
    transport = Counting(0.1)
    async with a_node(transport) as node:
        node.at_work = at_work
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.look)
            await anyio.sleep(0.005)  # the other one's command takes a little longer
            tasks.start_soon(node.look)
        assert transport.begun == looks


async def test_where_commands_take_long_it_waits_longer_but_only_until_all_of_them_have_asked(
    virtual_time: object,
) -> None:
    transport = Counting(0.1)
    async with a_node(transport) as node:
        node.at_work, node.pace = 2, 1.0
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.look)
            await anyio.sleep(0.05)
            tasks.start_soon(node.look)
        assert transport.begun == 1
        assert anyio.current_time() - began == pytest.approx(0.15)


async def test_looks_for_an_operation_are_not_shared(virtual_time: object) -> None:
    transport = Counting()
    async with a_node(transport) as node, anyio.create_task_group() as tasks:
        tasks.start_soon(node.look, ("op-1",))
        tasks.start_soon(node.look, ("op-2",))
        await node.look()
        assert transport.begun == 3


async def test_a_slow_look_does_not_replace_a_newer_one(virtual_time: object) -> None:
    transport = Counting(10.0)
    async with a_node(transport) as node, anyio.create_task_group() as tasks:
        tasks.start_soon(node.look, ("op-1",))
        await anyio.sleep(1)
        transport.seconds = 0.1
        await node.look()
    assert node.seen is not None
    assert node.seen.boot_id == "2"


async def test_one_caller_that_gives_up_does_not_take_the_look_from_the_others(virtual_time: object) -> None:
    transport = Counting()
    looks: list[Look] = []
    async with a_node(transport) as node, anyio.create_task_group() as tasks:
        tasks.start_soon(_keep, node, looks)
        with anyio.move_on_after(0.2):
            await node.look()
    assert [look.boot_id for look in looks] == ["1"]
    assert transport.begun == 1


async def test_every_caller_gets_an_error_of_their_own(virtual_time: object) -> None:
    def refuse(_: int) -> Result:
        raise NodeUnreachable("pve-01", "refused")

    errors: list[NexcageError] = []

    async def one(node: FleetNode) -> None:
        try:
            await node.look()
        except NexcageError as error:
            error.noted(f"caller {len(errors)}")
            errors.append(error)

    async with a_node(Counting(answer=refuse)) as node, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one, node)
    assert len({id(error) for error in errors}) == 20
    assert [error.__notes__ for error in errors] == [[f"caller {n}"] for n in range(20)]
    assert {str(error) for error in errors} == {"cannot reach node pve-01: refused"}


async def test_who_asks_while_the_link_cannot_be_opened_does_not_wait_for_a_second_try(virtual_time: object) -> None:
    class Away(Counting):
        async def run(self, command: Command[Any]) -> Result:
            await super().run(command)
            raise NodeUnreachable("pve-01", "no connection")

    transport, errors = Away(15.0), []

    async def ask(after: float) -> None:
        await anyio.sleep(after)
        with pytest.raises(NodeUnreachable) as caught:
            await node.look()
        errors.append(caught.value)

    async with a_node(transport) as node, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, 0.0)
        tasks.start_soon(ask, 1.0)
    assert transport.begun == 1
    assert len({id(error) for error in errors}) == 2


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (Result(None, lost="link"), NodeUnreachable),
        (Result(None, lost="deadline"), NodeTimeout),
        (Result(0, b"rubbish"), CommandFailed),
        (Result(1, b"1"), CommandFailed),
        (Result(-9, b"1"), CommandFailed),
    ],
)
async def test_what_is_no_answer_is_never_a_look(
    virtual_time: object, result: Result, kind: type[NexcageError]
) -> None:
    async with a_node(Counting(answer=lambda _: result)) as node:
        with pytest.raises(kind) as refused:
            await node.look()
        assert not refused.value.uncertain
        assert node.seen is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (shelf("pve-01"), b"@nexcage end\n"),
        (pveam.list_("local"), b"local:vztmpl/x.tar.zst " + b"9" * 400 + b"GB\n"),
    ],
)
def test_what_breaks_a_parser_is_an_error_of_the_command(command: Command[Any], said: bytes) -> None:
    with pytest.raises(CommandFailed, match="cannot be read"):
        answer(command, Result(0, said), "pve-01")


async def test_a_node_that_does_not_answer_is_asked_less_and_less(virtual_time: object) -> None:
    def lost(_: int) -> Result:
        return Result(None, lost="link")

    transport = Counting(0.01, lost)
    async with a_node(transport, breaker_failures=3, breaker_seconds=10.0) as node:
        for _ in range(100):
            with pytest.raises(NodeUnreachable):
                await node.look()
            await anyio.sleep(0.1)
        assert node.lost
        assert transport.begun <= 5
        transport.answer = lambda _: Result(0, b"7")
        await anyio.sleep(13)
        assert (await node.look()).boot_id == "7"
        assert not node.lost


async def test_a_refused_login_is_asked_once_and_forgiven_by_hand(virtual_time: object) -> None:
    def refuse(_: int) -> Result:
        raise AuthRejected("pve-01", "publickey")

    transport = Counting(answer=refuse)
    async with a_node(transport) as node:
        for _ in range(3):
            with pytest.raises(AuthRejected):
                await node.look()
        assert transport.begun == 1
        transport.answer = lambda _: Result(0, b"1")
        node.forgive()
        assert (await node.look()).boot_id == "1"


async def test_closing_answers_everybody_who_waits(virtual_time: object) -> None:
    transport = Counting(1000.0)
    errors: list[NexcageError] = []

    async def one(node: FleetNode) -> None:
        try:
            await node.look()
        except NexcageError as error:
            errors.append(error)

    async with anyio.create_task_group() as callers, a_node(transport) as node:
        for _ in range(3):
            callers.start_soon(one, node)
        await anyio.sleep(1)
        callers.start_soon(one, node)
        await anyio.sleep(1)
        await node.aclose()
    assert [type(error) for error in errors] == [NodeUnreachable] * 4
    with pytest.raises(NodeUnreachable, match="closing"):
        await node.look()


async def test_what_one_family_of_backends_sees_is_no_look_of_another(virtual_time: object) -> None:
    transport = Counting()
    async with a_node(transport) as node:
        assert node.of("vm") is node.of("lxc") is node.of("") is node
        other = node.of("crun")
        assert other is not node
        assert other.of("lxc") is node
        seen = await node.look()
        assert other.seen is None
        assert (await other.look()).pve == "oci"
        assert node.seen is seen
        assert list(node.views()) == list(other.views()) == [node, other]


async def test_a_node_that_is_given_up_is_given_up_for_all_families(virtual_time: object) -> None:
    def refuse(n: int) -> Result:
        raise AuthRejected("pve-01", "no")

    async with a_node(Counting(answer=refuse)) as node:
        with pytest.raises(AuthRejected):
            await node.of("crun").look()
        assert node.lost
        node.of("crun").forgive()
        assert not node.lost


async def test_a_backend_that_is_not_installed_cannot_look(virtual_time: object) -> None:
    async with a_node(Counting()) as node:
        with pytest.raises(NoRoute, match="'nspawn' cannot be seen: it is not installed"):
            await node.of("nspawn").look()
