"""Simulated nodes behind SSH servers of this process."""

from __future__ import annotations

import anyio
import asyncssh
import pytest

import nexcage
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


@pytest.fixture
async def served():
    with SimCluster(nodes=2, seed=5) as sim:
        async with sim.serve() as servers:
            yield servers


async def connected(served, **options):
    host = served.hosts[0]
    return await asyncssh.connect(
        host.address,
        host.port,
        username="root",
        client_keys=[host.identity_file],
        known_hosts=host.known_hosts,
        config=None,
        **options,
    )


async def test_a_person_may_log_in_and_type(served):
    async with await connected(served) as connection:
        ran = await connection.run("pct create 100 " + DEBIAN + " && pct start 100; pct list")
        assert ran.exit_status == 0
        assert "100        running" in ran.stdout
        ran = await connection.run("false || pct status 100")
        assert ran.stdout == "status: running\n"
        ran = await connection.run("pct list | wc -l")
        assert (ran.exit_status, ran.stdout) == (2, "")
        assert "simple commands" in ran.stderr


async def test_only_the_key_of_the_cluster_opens(served):
    host = served.hosts[0]
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            host.address, host.port, username="root", client_keys=[stranger], known_hosts=host.known_hosts, config=None
        )


async def test_signals_reach_the_command(served):
    sim = served.cluster
    sim["pve-01"].fault("stall", on="pct create")
    async with await connected(served) as connection:
        process = await connection.create_process(f"pct create 100 {DEBIAN}")
        with anyio.fail_after(30):
            while not sim["pve-01"].calls:
                await anyio.sleep(0.01)
        process.send_signal("TERM")
        await process.wait_closed()
    assert not sim["pve-01"].calls
    assert sim["pve-01"].model.config(100) is None


async def test_a_closed_channel_leaves_a_silent_command_running(served):
    sim = served.cluster
    await sim["pve-01"].run(["pct", "create", "100", DEBIAN])
    sim["pve-01"].fault("slow", on="pct start", seconds=0.5)
    connection = await connected(served)
    await connection.create_process("pct start 100")
    with anyio.fail_after(30):
        while not sim["pve-01"].calls:
            await anyio.sleep(0.01)
        connection.abort()
        while not sim["pve-01"].model.is_running(100):
            await anyio.sleep(0.01)


async def test_sessions_beyond_the_limit_are_refused():
    with SimCluster(nodes=1) as sim:
        async with sim.serve(max_sessions=2) as served, await connected(served) as connection:
            sim["pve-01"].fault("stall", times=2)
            for _ in range(2):
                await connection.create_process("pct list")
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process("pct list")


async def test_the_whole_life_of_containers_over_ssh(served, tmp_path):
    async with nexcage.open_fleet(config=served.config(tmp_path)) as fleet:
        ids = [f"web-{n}" for n in range(6)]
        spec = nexcage.Spec(image=DEBIAN, ssh_public_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ somebody",))
        for intents in (
            [nexcage.Create(id, spec) for id in ids],
            [nexcage.Start(id) for id in ids],
            [nexcage.Kill(id, "HUP") for id in ids],
            [nexcage.Pause(id) for id in ids],
            [nexcage.Resume(id) for id in ids],
            [nexcage.Stop(id, timeout=10) for id in ids],
            [nexcage.Delete(id) for id in ids],
        ):
            (await fleet.run(intents)).raise_for_failures()
    assert all(node.model.containers() == [] for node in served.cluster)


@pytest.mark.timeout(900)
async def test_fifty_nodes_and_a_thousand_containers(tmp_path):
    with SimCluster(nodes=50, seed=2) as sim:
        async with sim.serve() as served, nexcage.open_fleet(config=served.config(tmp_path)) as fleet:
            ids = [f"web-{n:04}" for n in range(1000)]
            spec = nexcage.Spec(image=DEBIAN)
            (await fleet.run([nexcage.Create(id, spec) for id in ids])).raise_for_failures()
            (await fleet.run([nexcage.Start(id) for id in ids])).raise_for_failures()
            looks = await fleet.look()
        seen = [guest.mark.id for look in looks.values() for guest in look.guests.values() if guest.running]
        assert sorted(seen) == ids
        assert max(len(node.model.running()) for node in sim) <= 40
