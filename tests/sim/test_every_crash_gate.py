"""A driver dies at every point around the gate and the hooks of containers from bundles, and everything is right afterwards.

`--all-crashes` dies at all of them; without, each scenario dies at some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from nexcage import CommandFailed, Fleet, NotFound, Op, Spec, State, Succeeded
from nexcage.testing import Aftermath, SimCluster, every_crash
from nexcage.testing.crashes import INVARIANTS
from tests.sim.bundles import PackedAlready, bundle
from tests.sim.deaths import Life

SOME = 20
OF_CREATE = ("prestart", "createRuntime", "createContainer")
HOOKS = (*OF_CREATE, "poststart", "poststop")


def cluster(failing: str = "") -> SimCluster:
    sim = SimCluster(2)
    for node in sim:
        for kind in HOOKS:
            node.files.write(f"/opt/{kind}", f"#!/bin/sh\nexit {int(kind == failing)}\n")
    return sim


def hooks_run(now: Aftermath) -> Iterator[tuple[str, str]]:
    """The operation and the kind of each hook that was run."""
    for effect in now.sim.effects():
        for change in effect["changed"]:
            if change["kind"] == "hook":
                yield str(effect["op_id"]), change["change"]


def no_hook_runs_twice(now: Aftermath) -> Iterable[str]:
    """For one operation each hook runs once at most."""
    for (op, kind), times in Counter(hooks_run(now)).items():
        if times > 1:
            yield f"{kind} ran {times} times for {op}"


def who_exists_has_had_its_hooks(now: Aftermath) -> Iterable[str]:
    """All hooks of its create have run, whoever finished that."""
    ran = set(hooks_run(now))
    for id, machine in now.fleet.machines.items():
        if machine.state is not State.ABSENT and machine.mark:
            lacking = [kind for kind in OF_CREATE if (machine.mark, kind) not in ran]
            if lacking:
                yield f"'{id}' is {machine.state} without {lacking}"


def who_runs_has_had_its_hooks(now: Aftermath) -> Iterable[str]:
    """Those of its start, whoever finished that."""
    started = [op for op, kind in hooks_run(now) if kind == "poststart"]
    for id, machine in now.fleet.machines.items():
        ops = [end.op_id for end in machine.done if end.op is Op.START and isinstance(end, Succeeded) and end.changed]
        if lacking := [op for op in ops if op not in started]:
            yield f"'{id}' is {machine.state} without the poststart hook of {lacking}"


def a_start_whose_hook_fails_never_succeeds(now: Aftermath) -> Iterable[str]:
    """It leaves nothing that runs, and removes what was only created."""
    for id, machine in now.fleet.machines.items():
        if machine.state is State.RUNNING:
            yield f"'{id}' is running although its poststart hook fails"
        if machine.state is State.ABSENT and [*now.sim["pve-01"].files.names(f"/var/lib/nexcage-lxc/{now.fleet.id}")]:
            yield f"'{id}' is gone and has left its files"
    ran = [kind for _, kind in hooks_run(now)]
    if "poststart" in ran and "poststop" not in ran:
        yield "there were no poststop hooks"


@pytest.mark.timeout(3600)
def test_a_driver_may_die_at_any_point_of_a_start_whose_hook_fails(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    hooks = {kind: [{"path": f"/opt/{kind}"}] for kind in HOOKS}
    web = Life("web-1", Spec(image=(path := bundle(tmp_path, hooks=hooks)), bundle=path, node="pve-01"))

    async def start(fleet: Fleet) -> None:
        with suppress(CommandFailed, NotFound):
            await web.start(fleet)

    swept = every_crash(
        start,
        before=web.create,
        cluster=partial(cluster, "poststart"),
        invariants=[*INVARIANTS, no_hook_runs_twice, a_start_whose_hook_fails_never_succeeds],
        contents=PackedAlready(tmp_path),
        most=None if pytestconfig.getoption("--all-crashes", default=False) else SOME,
    )

    assert swept.points


def what_is_created_waits(now: Aftermath) -> Iterable[str]:
    """Nobody's program runs before its start."""
    for id, machine in now.fleet.machines.items():
        if machine.state is State.CREATED and machine.pid == 0:
            yield f"'{id}' is created without a process"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["create", "start", "stop-created", "delete-created", "delete", "restart"])
def test_a_driver_may_die_at_any_point_around_gate_and_hooks(
    name: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    hooks = {kind: [{"path": f"/opt/{kind}"}] for kind in HOOKS}
    web = Life("web-1", Spec(image=(path := bundle(tmp_path, hooks=hooks)), bundle=path, node="pve-01"))
    scenario, before = {
        "create": (web.create, None),
        "start": (web.start, web.create),
        "stop-created": (web.stop, web.create),
        "delete-created": (web.delete, web.create),
        "delete": (web.delete, web.running),
        "restart": (web.start, web.stopped),
    }[name]
    everything = pytestconfig.getoption("--all-crashes", default=False)

    swept = every_crash(
        scenario,
        before=before,
        cluster=cluster,
        invariants=[
            *INVARIANTS,
            no_hook_runs_twice,
            who_exists_has_had_its_hooks,
            who_runs_has_had_its_hooks,
            what_is_created_waits,
        ],
        contents=PackedAlready(tmp_path),
        most=None if everything else SOME,
    )

    assert swept.points
