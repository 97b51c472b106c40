"""Containers of Proxmox VE from bundles, on simulated nodes: what is refused, what is kept, and what a later edit changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import nexcage
from nexcage import BundleRefused, Create, Fleet, InvalidBundle, Spec, State
from nexcage.testing import SimCluster
from nexcage.tools import config
from tests.sim.bundles import PackedAlready, bundle

CACHE = "/var/lib/vz/template/cache"


@pytest.fixture
async def fleet(sim: SimCluster, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with sim.fleet(contents=PackedAlready(tmp_path)) as fleet:
        yield fleet


def spec_of(path: str, **more: Any) -> Spec:  # Any: keywords of Spec
    return Spec(image=path, bundle=path, node="pve-01", **more)


def configured(sim: SimCluster, fleet: Fleet) -> config.Config:
    return config.parse(sim["pve-01"].model.config(fleet.machines["web-1"].vmid) or "")


def templates(sim: SimCluster) -> list[str]:
    return [name for name in sim["pve-01"].files.names(CACHE) if "nexcage-" in name]


@pytest.mark.sim(nodes=1)
async def test_a_bundle_becomes_a_container_with_its_limits_lines_and_files(
    sim: SimCluster, fleet: Fleet, tmp_path: Path
) -> None:
    limits = {"memory": {"limit": 256 << 20}, "cpu": {"quota": 50000, "period": 100000}}
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "user")]
    path = bundle(tmp_path, hostname="shop", linux={"namespaces": namespaces, "resources": limits})

    done = await fleet["web-1"].create(spec_of(path))

    made = configured(sim, fleet)
    assert (made.values["memory"], made.values["cpulimit"], made.values["hostname"]) == ("256", "0.5", "shop")
    assert (made.values["ostype"], made.values["unprivileged"], made.get("lock")) == ("unmanaged", "1", None)
    assert ("lxc.init.cmd", "/.nexcage/init") in made.raw
    state = await fleet["web-1"].state()
    assert (state.ociVersion, state.bundle, state.annotations["org.example.team"]) == ("1.2.0", path, "blue")
    assert done.state is State.CREATED
    assert templates(sim) == []
    kept = f"/var/lib/nexcage-lxc/{fleet.id}"
    assert "config.json" in sim["pve-01"].files.names(f"{kept}/web-1")
    await fleet["web-1"].delete(force=True)
    assert sim["pve-01"].files.names(kept) == []


@pytest.mark.sim(nodes=1)
async def test_what_is_edited_after_the_create_changes_nothing(sim: SimCluster, fleet: Fleet, tmp_path: Path) -> None:
    path = Path(bundle(tmp_path))
    before = (path / "config.json").read_text()
    await fleet["web-1"].create(spec_of(str(path)))
    text = sim["pve-01"].model.config(fleet.machines["web-1"].vmid)

    (path / "config.json").write_text(json.dumps({**json.loads(before), "annotations": {"org.example.team": "red"}}))
    await fleet["web-1"].start()

    assert sim["pve-01"].model.config(fleet.machines["web-1"].vmid) == text
    assert (await fleet["web-1"].state()).annotations["org.example.team"] == "blue"
    assert sim["pve-01"].files.read(f"/var/lib/nexcage-lxc/{fleet.id}/web-1/config.json") == before


@pytest.mark.sim(nodes=1)
async def test_what_cannot_be_had_is_refused_before_anything_runs_unless_it_is_allowed_to_go(
    sim: SimCluster, fleet: Fleet, tmp_path: Path
) -> None:
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
    path = bundle(tmp_path, linux={"namespaces": namespaces, "intelRdt": {"closID": "gold"}})

    with pytest.raises(BundleRefused) as refused:
        await fleet["web-1"].create(spec_of(path))

    assert all(pointer.startswith("/linux/intelRdt") for pointer in refused.value.refused)
    assert sim.effects() == []
    assert (await fleet["web-1"].create(spec_of(path, allow=("/linux/intelRdt",)))).changed


@pytest.mark.sim(nodes=1)
async def test_what_is_missing_on_the_node_is_named_and_nothing_is_left(
    sim: SimCluster, fleet: Fleet, tmp_path: Path
) -> None:
    mount = {"destination": "/data", "type": "bind", "source": "/srv/not-there", "options": ["bind"]}
    path = bundle(tmp_path, mounts=[mount])

    with pytest.raises(BundleRefused, match="/srv/not-there does not exist") as refused:
        await fleet["web-1"].create(spec_of(path))

    assert refused.value.where == "pve-01"
    assert (sim.effects(), templates(sim)) == ([], [])


@pytest.mark.sim(nodes=1)
async def test_an_invalid_document_is_refused_with_the_place_in_it(fleet: Fleet, tmp_path: Path) -> None:
    path = bundle(tmp_path, process={"cwd": "not-absolute", "args": ["x"]})

    with pytest.raises(InvalidBundle) as error:
        await fleet["web-1"].create(spec_of(path))

    assert error.value.pointer == "/process/cwd"


@pytest.mark.sim(nodes=1)
async def test_a_template_is_kept_on_request_and_used_again(sim: SimCluster, fleet: Fleet, tmp_path: Path) -> None:
    path = bundle(tmp_path)
    await fleet["web-1"].create(spec_of(path, keep_template=True))
    (name,) = templates(sim)

    await fleet["web-2"].create(spec_of(path))

    assert templates(sim) == [name]
    images = (await fleet.images("pve-01"))["pve-01"]
    assert not isinstance(images, nexcage.NexcageError)
    assert f"local:vztmpl/{name}" in {image.volume for image in images}


@pytest.mark.sim(nodes=1)
async def test_many_of_one_bundle_at_once_share_what_is_sent(sim: SimCluster, fleet: Fleet, tmp_path: Path) -> None:
    path = bundle(tmp_path)

    report = await fleet.run([Create(f"web-{n}", spec_of(path)) for n in range(12)])

    report.raise_for_failures()
    assert templates(sim) == []


@pytest.mark.sim(nodes=1)
async def test_a_rehearsal_shows_the_commands_and_changes_nothing(
    sim: SimCluster, fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, commands = await fleet.rehearse(Create("web-1", spec_of(bundle(tmp_path))))
    assert not caplog.records  # nothing came to a gate, and that is nothing to warn of

    words = [" ".join(command.typed[:2]) for command in commands]
    assert "pct create" in words
    assert (sim.effects(), templates(sim)) == ([], [])


@pytest.mark.sim(nodes=2)
async def test_it_stays_on_the_node_that_has_its_files(sim: SimCluster, fleet: Fleet, tmp_path: Path) -> None:
    await fleet["web-1"].create(spec_of(bundle(tmp_path)))
    before = len(sim.effects())

    with pytest.raises(nexcage.Unsupported, match="files of pve-01"):
        await fleet["web-1"].migrate("pve-02")

    assert (len(sim.effects()), fleet["web-1"].machine.node) == (before, "pve-01")
    assert (await fleet.moves_off("pve-01"), fleet.stay_on("pve-01")) == ([], ("web-1",))


@pytest.mark.sim(nodes=1)
async def test_a_copy_would_share_the_files_of_its_source_and_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    await fleet["web-1"].create(spec_of(bundle(tmp_path)))

    with pytest.raises(nexcage.Unsupported, match="made from a bundle"):
        await fleet.do(Create("web-2", Spec.from_container("web-1")))


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(
    ("annotations", "args", "signal"),
    [
        ({}, ["/bin/sh"], "15"),
        ({"org.opencontainers.image.stopSignal": "SIGQUIT"}, ["/bin/sh"], "3"),
        ({"org.opencontainers.image.stopSignal": "SIGFOO"}, ["/bin/sh"], "15"),
        ({}, ["/sbin/init"], None),
    ],
)
async def test_a_program_is_asked_to_stop_by_the_signal_of_its_image_and_a_system_by_that_of_lxc(
    sim: SimCluster, fleet: Fleet, tmp_path: Path, annotations: dict[str, str], args: list[str], signal: str | None
) -> None:
    path = bundle(tmp_path, annotations=annotations, process={"cwd": "/", "args": args, "env": ["PATH=/bin"]})

    await fleet["web-1"].create(spec_of(path))

    assert dict(configured(sim, fleet).raw).get("lxc.signal.halt") == signal


@pytest.mark.sim(nodes=1)
async def test_a_backup_has_not_the_files_beside_it_and_is_not_restored(
    sim: SimCluster, fleet: Fleet, tmp_path: Path
) -> None:
    web = fleet["web-1"]
    await web.create(spec_of(bundle(tmp_path)))
    volume = await web.backup()
    before = sim["pve-01"].files.names("/etc/pve/nodes/pve-01/lxc")

    with pytest.raises(nexcage.Unsupported, match="restore what was made from a bundle"):
        await fleet["web-2"].create(Spec(image=volume, node="pve-01"))

    assert sim["pve-01"].files.names("/etc/pve/nodes/pve-01/lxc") == before
    assert fleet["web-2"].machine.state is State.ABSENT
