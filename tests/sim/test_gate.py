"""Containers from bundles at their gate: created with a process, started by opening it, with the hooks of the bundle around."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import nexcage
from nexcage import State
from nexcage.testing import SimCluster

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def bundle(directory: Path, **more: Any) -> str:  # Any: JSON
    where = directory / "bundle"
    (where / "rootfs/bin").mkdir(parents=True)
    (where / "rootfs/bin/program").write_text("a program")
    config = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/program", "a b", ""], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "annotations": {"com.example.key": "value"},
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }
    (where / "config.json").write_text(json.dumps(config | more))
    return str(where)


def hooks(sim: SimCluster, failing: Mapping[str, int] | None = None) -> dict[str, list[dict[str, str]]]:
    """One of each kind on the node; those that are named fail."""
    for kind in HOOKS:
        sim["pve-01"].files.write(f"/opt/{kind}", f"#!/bin/sh\nexit {(failing or {}).get(kind, 0)}\n")
    return {kind: [{"path": f"/opt/{kind}"}] for kind in HOOKS}


def spec(path: str) -> nexcage.Spec:
    return nexcage.Spec(image=path, bundle=path, backend="lxc")


@pytest.mark.sim(nodes=1, real_time=True)
async def test_what_is_created_has_a_process_that_start_lets_run(sim: SimCluster, tmp_path: Path) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        created = await web.create(spec(bundle(tmp_path)))
        assert (created.state, created.pid > 0) == (State.CREATED, True)
        state = await web.state()
        assert (state.status, state.pid) == ("created", created.pid)

        started = await web.start()

        assert (started.state, started.pid) == (State.RUNNING, created.pid)
        await web.stop(force=True)
        assert (await web.start()).pid not in (0, created.pid)


def gone(sim: SimCluster) -> bool:
    """Whether nothing is left of any container."""
    node = sim["pve-01"]
    left = [*node.files.names("/etc/pve/nodes/pve-01/lxc"), *node.files.names("/var/lib/nexcage-lxc")]
    return not left and not node.model.running()


def ran(sim: SimCluster) -> list[str]:
    """The hooks that were run, in their order, by their kinds."""
    changed = (change for effect in sim.effects() for change in effect["changed"])
    return [change["change"] for change in changed if change["kind"] == "hook"]


@pytest.mark.sim(nodes=1, real_time=True)
async def test_hooks_run_in_order_around_the_life_of_a_container(sim: SimCluster, tmp_path: Path) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(spec(bundle(tmp_path, hooks=hooks(sim))))
        assert ran(sim) == ["prestart", "createRuntime", "createContainer"]
        await web.start()
        assert ran(sim)[3:] == ["poststart"]  # startContainer runs inside
        (Path(str(web.machine.spec.bundle)) / "config.json").write_text("{}")  # which changes nothing any more
        await web.delete(force=True)
        assert ran(sim)[4:] == ["poststop"]
        assert gone(sim)


@pytest.mark.sim(nodes=1, real_time=True)
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
async def test_a_hook_of_the_create_that_fails_leaves_no_container(sim: SimCluster, tmp_path: Path, kind: str) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.CommandFailed, match="exit status 3"):
            await fleet["web-1"].create(spec(bundle(tmp_path, hooks=hooks(sim, {kind: 3}))))
        assert fleet["web-1"].machine.state is State.ABSENT
        assert ran(sim) == [*HOOKS[: HOOKS.index(kind) + 1], "poststop"]
        assert gone(sim)


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_poststart_hook_that_fails_undoes_the_create(sim: SimCluster, tmp_path: Path) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(spec(bundle(tmp_path, hooks=hooks(sim, {"poststart": 3}))))
        with pytest.raises(nexcage.CommandFailed, match="exit status 3"):
            await web.start()
        assert web.machine.state is State.ABSENT
        assert ran(sim)[3:] == ["poststart", "poststop"]
        assert gone(sim)


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_poststart_hook_that_fails_when_it_is_started_once_more_only_stops_it(
    sim: SimCluster, tmp_path: Path
) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(spec(bundle(tmp_path, hooks=hooks(sim))))
        await web.start()
        await web.stop(force=True)
        hooks(sim, {"poststart": 3})
        with pytest.raises(nexcage.CommandFailed, match="exit status 3"):
            await web.start()
        assert web.machine.state is State.STOPPED
        await web.delete()
        assert gone(sim)


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_poststop_hook_that_fails_is_a_warning(
    sim: SimCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(spec(bundle(tmp_path, hooks=hooks(sim, {"poststop": 3}))))
        assert (await web.delete()).state is State.ABSENT
        assert "exit status 3" in caplog.text
        assert gone(sim)


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_created_one_is_killed_stopped_and_deleted_with_its_process(sim: SimCluster, tmp_path: Path) -> None:
    path = bundle(tmp_path)
    async with sim.fleet() as fleet:
        one, two, three = (fleet[id] for id in ("web-1", "web-2", "web-3"))
        for each in (one, two, three):
            await each.create(spec(path))
        pid = one.machine.pid

        await one.kill("KILL")
        await one.reconcile()
        assert (one.machine.state, one.machine.pid) == (State.STOPPED, 0)
        assert (await one.start()).pid not in (0, pid)  # started again, up to its gate and through it

        assert (await two.stop()).changed
        assert two.machine.state is State.STOPPED
        assert (await three.delete()).state is State.ABSENT
        assert sim["pve-01"].model.running() == [one.machine.vmid]


@pytest.mark.sim(nodes=1, real_time=True)
async def test_after_its_first_start_it_does_not_wait_when_somebody_else_starts_it(
    sim: SimCluster, tmp_path: Path
) -> None:
    node = sim["pve-01"]
    async with sim.fleet() as fleet:
        web, never = fleet["web-1"], fleet["web-2"]
        path = bundle(tmp_path)
        await web.create(spec(path))
        await never.create(spec(path))
        await web.start()
        node.crash()
        node.restart()
        await fleet.reconcile()
        assert [web.machine.state, never.machine.state] == [State.STOPPED, State.STOPPED]

        for each in (web, never):
            assert (await node.run(("pct", "start", str(each.machine.vmid)))).exit == 0
        await fleet.reconcile()

        assert [web.machine.state, never.machine.state] == [State.RUNNING, State.CREATED]
        assert (await never.start()).state is State.RUNNING


@pytest.mark.sim(nodes=1, real_time=True)
async def test_where_it_does_not_come_to_its_gate_it_is_created_without_a_process_and_says_why(
    sim: SimCluster, tmp_path: Path
) -> None:
    sim.inits("broken")
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        done = await web.create(spec(bundle(tmp_path)))
        assert (done.state, done.pid) == (State.CREATED, 0)
        state = await web.state()
        assert "failed" in state.annotations["org.nexcage.gate"]
        with pytest.raises(nexcage.IllegalTransition):
            await web.kill("TERM")

        sim.inits("systemd")
        assert (await web.start()).state is State.RUNNING


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_poststart_hook_that_fails_may_be_a_warning_only(
    sim: SimCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sim.fleet(config=nexcage.Config(poststart="warn")) as fleet:
        web = fleet["web-1"]
        await web.create(spec(bundle(tmp_path, hooks=hooks(sim, {"poststart": 3}))))
        assert (await web.start()).state is State.RUNNING
        assert "exit status 3" in caplog.text
