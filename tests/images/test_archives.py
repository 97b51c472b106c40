"""Proxmox VE 9.1 is handed images as they are: one plain oci-archive by exact names, only where it keeps what the image says."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import nexcage
from nexcage import Config, Create, Fleet, Spec, State
from nexcage.testing import SimCluster
from nexcage.testing._model.pve import DPKG
from nexcage.tools import config
from nexcage.tools.shipping import RECEIVE
from tests.images.layouts import ROOT, Layout, platform, saved, simple, tagged
from tests.images.test_unpacking import AMD64, Ground

pytestmark = [
    pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo (apt install skopeo)"),
    pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci (apt install umoci)"),
]
CACHE = "/var/lib/vz/template/cache"
SAID = {
    "Entrypoint": ["/bin/hello"],
    "Cmd": ["two words"],
    "Env": ["PATH=/bin", "A=b c"],
    "User": "ada",
    "WorkingDir": "/srv",
    "StopSignal": "SIGQUIT",
    "Volumes": {"/data": {}},
    "Labels": {"org.example.team": "blue"},
}


def templates(sim: SimCluster, node: str = "pve-01") -> list[str]:
    return [name for name in sim[node].files.names(CACHE) if "nexcage-" in name]


def configured(sim: SimCluster, fleet: Fleet, id: str = "web-1") -> config.Config:
    return config.parse(sim["pve-01"].model.config(fleet.machines[id].vmid) or "")


def create(layout: Path, **more: Any) -> Spec:  # Any: keywords of Spec
    return Spec(str(layout), backend="lxc", node="pve-01", **more)


# ---- the archive -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gzip", "zstd", "plain"])
async def test_an_archive_has_exactly_the_names_that_proxmox_ve_looks_for(tmp_path: Path, how: str) -> None:
    layout, ground = Layout(tmp_path / "layout"), Ground(tmp_path)
    layout.add(layout.image(ROOT, how=how, **tagged("1")), layout.image(b"\0" * 1024, how=how, **tagged("2")))
    (layout.path / "README").write_text("not of the image")

    made, packed = await ground.unpacker.archived(layout.path, "1", AMD64)
    again, _ = await Ground(tmp_path / "other").unpacker.archived(layout.archive(tmp_path / "a.tar"), "1", AMD64)

    with tarfile.open(packed.path, "r:") as archive:
        files = {info.name: info for info in archive}
        (image,) = json.loads(archive.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
    assert {name for name in files if not name.startswith("blobs/sha256/")} == {
        "oci-layout",
        "index.json",
        "blobs",
        "blobs/sha256",
    }
    assert len([name for name in files if name.startswith("blobs/sha256/")]) == 3
    assert {info.type for name, info in files.items() if "sha256/" in name} == {tarfile.REGTYPE}
    assert image["digest"] == made.digest == layout.index[0]["digest"]
    assert (again, packed.template) == (made, f"nexcage-{packed.digest[7:27]}.tar")
    assert ground.left() == []


async def test_a_saved_image_becomes_one_too(tmp_path: Path) -> None:
    layout = simple(tmp_path / "layout", config=SAID)
    _, packed = await Ground(tmp_path).unpacker.archived(saved(layout, tmp_path / "s.tar", "demo:1"), "demo:1", AMD64)

    with tarfile.open(packed.path, "r:") as archive:
        names = archive.getnames()
    assert ("oci-layout" in names, "manifest.json" in names) == (True, False)


async def test_a_hostile_layer_is_not_handed_over(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.add(layout.image(ROOT, diff_ids=["sha256:" + "0" * 64]))
    ground = Ground(tmp_path)
    with pytest.raises(nexcage.InvalidImage, match="diff_id"):
        await ground.unpacker.archived(layout.path, "", AMD64)
    assert ground.left() == []


# ---- creates -----------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1, real_time=True)
async def test_an_image_is_made_a_container_by_proxmox_ve_itself(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(tmp_path / "web", config=SAID)
    async with sim.fleet(config=Config(images={"web": str(layout)})) as fleet:
        web = fleet["web-1"]
        done = await web.create(Spec("web", backend="lxc", node="pve-01", memory=256))
        made, state = configured(sim, fleet), await web.state()
        assert (done.state, done.pid, state.bundle.endswith("/web-1")) == (State.CREATED, 0, True)
        assert (await web.start()).state is State.RUNNING
        await web.stop(force=True)
        await web.delete()

    assert (made.values["entrypoint"], made.values["cmode"], made.values["memory"]) == (
        "/bin/hello 'two words'",
        "console",
        "256",
    )
    assert "host-managed=1" in made.values["net0"]
    assert made.values["rootfs"].endswith("size=1G")
    assert dict(made.raw) | {"lxc.environment.runtime": ""} == {
        "lxc.environment.runtime": "",
        "lxc.init.uid": "1000",
        "lxc.init.gid": "1001",
        "lxc.init.groups": "10",
        "lxc.init.cwd": "/srv",
        "lxc.signal.halt": "SIGQUIT",
    }
    assert [value for key, value in made.raw if key == "lxc.environment.runtime"] == ["PATH=/bin", "A=b c"]
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    noted = state.annotations
    assert (noted["org.nexcage.image.source"], noted["org.nexcage.image.digest"]) == (str(layout), manifest)
    assert (noted["org.nexcage.image.requested"], noted["org.example.team"]) == ("web", "blue")
    assert templates(sim) == []
    assert sim["pve-01"].files.names(f"/var/lib/nexcage-lxc/{fleet.id}") in ([], [".templates"])


@pytest.mark.sim(nodes=1, real_time=True)
@pytest.mark.parametrize(
    ("said", "more"),
    [({}, {"gate": True}), ({"Cmd": ["it's"]}, {}), ({}, {"old": True}), ({}, {"strict": True})],
    ids=["gate", "words", "old", "strict"],
)
async def test_where_it_would_not_be_the_same_it_is_made_as_a_bundle(
    sim: SimCluster, tmp_path: Path, said: dict[str, Any], more: dict[str, bool]
) -> None:
    layout = simple(tmp_path / "web", config={**SAID, **said})
    if more.get("old"):
        sim["pve-01"].files.write(DPKG, "Package: pve-container\nVersion: 6.0.14\n")
    async with sim.fleet(config=Config(strict_oci=more.get("strict", False))) as fleet:
        done = await fleet["web-1"].create(create(layout, gate=more.get("gate", False)))
        made = configured(sim, fleet)
        state = await fleet["web-1"].state()
        await fleet["web-1"].delete(force=True)
    assert ("lxc.init.cmd", "/.nexcage/init") in made.raw
    assert "entrypoint" not in made.values
    assert done.pid > 0
    assert state.annotations["org.nexcage.image.digest"].startswith("sha256:")
    assert templates(sim) == []


class Sending:
    """Links that count what is sent over them."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.files: list[str] = []

    def connect(self, host: nexcage.Host) -> Any:
        return _Link(self, self.sim.connect(host))


class _Link:
    def __init__(self, sending: Sending, inner: Any) -> None:
        self._sending, self._inner = sending, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def stream(self, command: nexcage.Command[Any]) -> Any:
        if RECEIVE in command.argv:
            self._sending.files.append(command.argv[4].rpartition("/")[2])
        return self._inner.stream(command)


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_kept_archive_is_sent_once_and_goes_by_its_name(sim: SimCluster, tmp_path: Path) -> None:
    layout, sending = simple(tmp_path / "web", config=SAID), Sending(sim)
    async with sim.fleet(connect=sending.connect) as fleet:
        await fleet["web-1"].create(create(layout, keep_template=True))
        (name,) = templates(sim)
        await fleet["web-2"].create(create(layout))
        (image,) = (await fleet.push_image(str(layout), "pve-01")).values()
        assert isinstance(image, nexcage.Image)
        assert image.volume == f"local:vztmpl/{name}"
        assert (sending.files, templates(sim)) == ([name], [name])
        assert await fleet.rmi(image.volume, "pve-01") == {"pve-01": True}
        await fleet["web-3"].create(create(layout))
    assert (sending.files, templates(sim)) == ([name, f".{name}"], [])


@pytest.mark.sim(nodes=1, real_time=True)
async def test_many_of_one_image_at_once_share_what_is_sent(sim: SimCluster, tmp_path: Path) -> None:
    layout, sending = simple(tmp_path / "web", config=SAID), Sending(sim)
    async with sim.fleet(connect=sending.connect) as fleet:
        report = await fleet.run([Create(f"web-{n}", create(layout)) for n in range(8)])
    report.raise_for_failures()
    assert len(sending.files) < 8  # one waits for all, and goes with the last that works from it
    assert templates(sim) == []


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_create_that_proxmox_ve_refuses_leaves_no_archive(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(tmp_path / "web", config={**SAID, "User": "nobody-there"})
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.CommandFailed, match="cannot resolve user"):
            await fleet["web-1"].create(create(layout))
    assert templates(sim) == []


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_rehearsal_sends_nothing(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(tmp_path / "web", config=SAID)
    async with sim.fleet() as fleet:
        _, commands = await fleet.rehearse(Create("web-1", create(layout)))
    assert [" ".join(command.typed[:2]) for command in commands if command.typed[0] == "pct"] == ["pct create"]
    assert (sim.effects(), templates(sim)) == ([], [])


@pytest.mark.sim(nodes=1, real_time=True)
async def test_the_platform_of_the_node_is_chosen(sim: SimCluster, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "web")
    arm = layout.image(ROOT, arch="arm64", config={"Cmd": ["/bin/arm"]}, **platform("arm64"))
    layout.add(layout.nested(arm, layout.image(ROOT, config={"Cmd": ["/bin/amd"]}, **platform("amd64"))))
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(create(layout.path))
        assert configured(sim, fleet).values["entrypoint"] == "/bin/amd"
        with pytest.raises(nexcage.UnsupportedImage, match=r"linux/arm64, linux/amd64|amd64"):
            await fleet["web-2"].create(create(layout.path, arch="riscv64"))


@pytest.mark.sim(nodes=2, real_time=True)
async def test_it_is_copied_and_moved_like_any_container_of_proxmox_ve(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(tmp_path / "web", config=SAID)
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(create(layout))
        await fleet["web-2"].create(Spec.from_container("web-1"))
        assert configured(sim, fleet, "web-2").values["entrypoint"] == "/bin/hello 'two words'"
        moved = await fleet["web-2"].migrate("pve-02")
        assert (moved.node, (await fleet["web-2"].start()).state) == ("pve-02", State.RUNNING)
        await fleet["web-1"].delete()
    assert templates(sim) == []
