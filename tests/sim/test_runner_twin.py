"""The runner of simulated nodes, seen through SSH as drivers see the real one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random

import anyio
import msgspec
import pytest

from nexcage import Command
from nexcage._core.command import Claim, nothing
from nexcage._transports.ssh import SshSettings, SshTransport
from nexcage.errors import Fenced, NodeUnreachable
from nexcage.testing import SimCluster
from nexcage.tools import claims, lxc

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
CREATE = Command(("pct", "create", "100", DEBIAN), nothing, cancel="term")
CLAIM = Claim(fleet="f", op="op-1", step=1, id="web-1", epoch=1, seq=7)


@pytest.fixture
def cluster():
    with SimCluster(nodes=1, seed=5) as made:
        yield made


@asynccontextmanager
async def reached(cluster, *, runner="always", perl=True, **settings):
    async with cluster.serve(perl=perl) as served:
        settings = SshSettings(ssh_config="none", runner=runner, **settings)
        ssh = SshTransport(served.hosts[0], settings=settings, random=Random(1))
        try:
            yield ssh
        finally:
            await ssh.aclose()


async def until(true):
    with anyio.fail_after(30):
        while not true():
            await anyio.sleep(0.005)


def claimed(command, **changes):
    return msgspec.structs.replace(command, claim=msgspec.structs.replace(CLAIM, **changes))


async def test_commands_answer_and_fail_as_on_the_node(cluster):
    async with reached(cluster) as ssh:
        assert (await ssh.run(CREATE)).exit == 0
        again = await ssh.run(CREATE)
        missing = await ssh.run(Command(("no-such-tool",), nothing))
        listed = await ssh.run(Command(("pct", "list"), nothing))
        seen = await ssh.run(lxc.look("pve-01"))

        assert again.exit not in (0, None)
        assert b"already" in again.stderr
        assert (missing.exit, missing.stderr) == (127, b"no-such-tool: not found\n")
        assert listed.stdout.split()[-3:-1] == [b"100", b"stopped"]
        assert seen.stdout.endswith(b"@nexcage end\n")
        assert (ssh.mode, ssh.claims, ssh.fencing) == ("runner", True, True)


async def test_without_perl_there_is_a_channel_for_each_command(cluster):
    async with reached(cluster, runner="auto", perl=False) as ssh:
        assert (await ssh.run(claimed(CREATE))).exit == 0
        assert (await ssh.run(claimed(CREATE))).exit == 0

        assert "perl: not found" in ssh.mode
    assert len([effect for effect in cluster.effects() if effect["argv"][:2] == ["pct", "create"]]) == 1


@pytest.mark.parametrize("kind", ["drop-before", "drop-during", "drop-after"])
async def test_a_claimed_command_runs_once_however_its_link_is_lost(cluster, kind):
    cluster["pve-01"].fault(kind, on="pct create")
    async with reached(cluster) as ssh:
        first = await ssh.run(claimed(CREATE))
        answer = await ssh.run(claimed(CREATE))

    assert (first.exit, first.lost) == (None, "link")
    assert answer.exit == 0
    assert len([effect for effect in cluster.effects() if effect["argv"][:2] == ["pct", "create"]]) == 1


async def test_a_step_that_was_called_off_never_begins(cluster):
    async with reached(cluster) as ssh:
        settled = await ssh.run(claims.settle(CLAIM))
        with pytest.raises(NodeUnreachable, match="called it off"):
            await ssh.run(claimed(CREATE))

    assert b"claim void" in settled.stdout
    assert cluster["pve-01"].model.containers() == []


async def test_a_fence_refuses_what_is_older(cluster):
    async with reached(cluster) as ssh:
        assert (await ssh.run(claimed(CREATE, epoch=2))).exit == 0
        with pytest.raises(Fenced) as caught:
            await ssh.run(claimed(CREATE, epoch=1, op="op-2"))

    assert caught.value.epoch == 2


async def test_a_step_of_another_boot_is_refused(cluster):
    async with reached(cluster) as ssh:
        with pytest.raises(NodeUnreachable, match="rebooted"):
            await ssh.run(claimed(CREATE, boot_id="another"))


@pytest.mark.parametrize("cancel, exit", [("kill", None), ("term", 0)])
async def test_the_node_itself_ends_what_is_late(cluster, cancel, exit):
    async with reached(cluster) as ssh:
        await ssh.run(
            Command(("pct", "list"), nothing)
        )  # the link and its runner are there: opening them takes time as well
        cluster["pve-01"].fault("stall", on="pct list")
        result = await ssh.run(Command(("pct", "list"), nothing, cancel=cancel, timeout=0.2))

        assert result.lost == "deadline"
        assert cancel == "term" or result.exit is exit
        await until(lambda: not cluster["pve-01"].calls)


async def test_a_cancelled_command_is_over_when_its_caller_goes_on(cluster):
    cluster["pve-01"].fault("stall", on="pct create")
    async with reached(cluster) as ssh:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ssh.run, CREATE)
            await until(lambda: cluster["pve-01"].calls)
            tasks.cancel_scope.cancel()

        assert not cluster["pve-01"].calls
        assert cluster["pve-01"].model.config(100) is None


async def test_what_nobody_claimed_ends_with_its_session(cluster):
    cluster["pve-01"].fault("stall", on="pct create")
    async with reached(cluster) as ssh:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ssh.run, CREATE)
            await until(lambda: cluster["pve-01"].calls)
            for link in list(cluster["pve-01"].links):
                link.cut()
        await until(lambda: not cluster["pve-01"].calls)


async def test_a_partition_holds_the_answer_and_healing_gives_it(cluster):
    node = cluster["pve-01"]
    async with reached(cluster) as ssh:
        node.fault("partition", on="pct create")
        results = []

        async def create():
            results.append(await ssh.run(CREATE))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            await until(lambda: node.partitioned and not node.calls)
            assert results == []
            node.heal()

    assert [result.exit for result in results] == [0]


async def test_a_link_that_is_lost_one_way_is_noticed(cluster):
    cluster["pve-01"].fault("half-open", on="pct create")
    async with reached(cluster, keepalive=0.2) as ssh:
        with anyio.fail_after(30):
            first = answer = await ssh.run(claimed(CREATE))
            while answer.lost:  # such a heartbeat may take a busy machine for a lost link
                answer = await ssh.run(claimed(CREATE))

    assert (first.exit, first.lost, answer.exit) == (None, "link", 0)


async def test_a_stream_that_nobody_reads_makes_the_command_wait(cluster):
    cluster["pve-01"].fault("endless", on="pct list")
    async with reached(cluster) as ssh, ssh.stream(Command(("pct", "list"), nothing)) as stream:
        total = 0
        async for _, data in stream:
            total += len(data)
            if total > 1_000_000:
                break


async def test_words_that_are_no_frames_end_the_session_with_a_reason(cluster):
    async with reached(cluster) as ssh:
        assert (await ssh.run(Command(("pct", "list"), nothing))).exit == 0
        runner = ssh._link.runner

        runner.send(b"\x00\x00\x00\x09?\x00\x00\x00\x01what")
        await until(lambda: runner.over)

        assert "kind" in runner.reason
        assert (await ssh.run(Command(("pct", "list"), nothing))).exit == 0
