"""Links and nodes that fail around the gate and the hooks of containers from bundles: it is whole or gone, and no hook runs twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import nexcage
from nexcage import Fleet, State
from nexcage.testing import SimCluster
from tests.sim.bundles import PackedAlready, bundle

OF_CREATE = ("prestart", "createRuntime", "createContainer")
HOOKS = (*OF_CREATE, "poststart", "poststop")
ON_CREATE = ("pct create", "finish", "closed", "gate", "hook prestart/0", "hook createContainer/0")
ON_START = ("gate", "hook poststart/0")
ON_DELETE = ("pct destroy", "hook poststop/0", "pvesm")
CASES = [
    (fault, verb, on)
    for verb, places in (("create", ON_CREATE), ("start", ON_START), ("delete", ON_DELETE))
    for on in places
    for fault in ("drop-before", "drop-after", "kill-worker", "kill-supervisor", "restart")
]


def hooks(sim: SimCluster) -> dict[str, list[dict[str, str]]]:
    for kind in HOOKS:
        sim["pve-01"].files.write(f"/opt/{kind}", "#!/bin/sh\nexit 0\n")
    return {kind: [{"path": f"/opt/{kind}"}] for kind in HOOKS}


def hooks_run(sim: SimCluster) -> Iterator[tuple[str, str]]:
    for effect in sim.effects():
        for change in effect["changed"]:
            if change["kind"] == "hook":
                yield str(effect["op_id"]), change["change"]


def left(sim: SimCluster, fleet: Fleet) -> list[str]:
    """What is on the node of any container."""
    node = sim["pve-01"]
    kept = [name for name in node.files.names(f"/var/lib/nexcage-lxc/{fleet.id}") if not name.startswith(".")]
    templates = [name for name in node.files.names("/var/lib/vz/template/cache") if "nexcage-" in name]
    return [*node.files.names("/etc/pve/nodes/pve-01/lxc"), *kept, *templates, *map(str, node.model.running())]


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(("fault", "verb", "on"), CASES)
async def test_it_is_whole_or_gone_and_no_hook_runs_twice(
    sim: SimCluster, tmp_path: Path, fault: str, verb: str, on: str
) -> None:
    path = bundle(tmp_path, hooks=hooks(sim))
    spec = nexcage.Spec(image=path, bundle=path, node="pve-01")
    async with sim.fleet(contents=PackedAlready(tmp_path)) as fleet:
        web = fleet["web-1"]
        if verb != "create":
            await web.create(spec)
        if verb == "delete":
            await web.start()
        sim["pve-01"].fault(fault, on=on)
        acts = {"create": lambda: web.create(spec), "start": web.start, "delete": lambda: web.delete(force=True)}
        with suppress(nexcage.NexcageError):
            await acts[verb]()
        await fleet.reconcile()
        # Nothing but a lock, after a reboot: nobody can prove whose that was, so it is reported and stays.
        debris = [*left(sim, fleet)[:1]] if (fault, on) == ("restart", "pct create") else []

        times = Counter(hooks_run(sim))
        for (op, kind), many in times.items():  # what was removed with its hooks may be made anew
            assert many <= 1 + (verb == "create" and times[op, "poststop"]), (kind, times)
        if web.machine.state is State.ABSENT:
            assert left(sim, fleet) == debris
            return
        assert verb != "create" or {kind for _, kind in hooks_run(sim)} >= set(OF_CREATE)
        if web.machine.state is not State.RUNNING:
            await web.start()
        assert [kind for _, kind in hooks_run(sim)].count("poststart") >= 1
        before = Counter(kind for _, kind in hooks_run(sim))["poststop"]
        await web.delete(force=True)
        assert Counter(kind for _, kind in hooks_run(sim))["poststop"] == before + 1
        assert left(sim, fleet) == debris
