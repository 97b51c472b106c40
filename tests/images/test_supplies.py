"""What creates are made from reaches its node once, whole, and before the create begins; a lost link or a full node is told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec
import pytest

import nexcage
from nexcage import Command, CommandFailed, Config, InvalidPath, NodeNotUsable, NodeUnreachable, Result, Spec
from nexcage._engine.contents import Contents
from nexcage._engine.node import FleetNode
from nexcage._engine.store import Store
from nexcage._transports.local import LocalTransport
from nexcage.testing import SimCluster
from nexcage.testing._model.oci.crun import Crun
from nexcage.testing._model.oci.runc import Runc
from nexcage.tools import shipping
from tests.images.layouts import Layout, simple

PRETEND = {"crun": Crun, "runc": Runc}
DATA = os.urandom(100_000) * 30
SUM = hashlib.sha256(DATA).hexdigest()
DEST = shipping.cached(f"sha256:{SUM}")


def contents(where: Path) -> Contents:
    return Contents(Store(where / "contents"), LocalTransport(), Random(1))


class Link:
    """A link to a node on this machine that counts its streams and breaks where it is told."""

    def __init__(self, root: Path, *, lost_after: int | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.inner = LocalTransport(env={"NEXCAGE_NODE_ROOT": str(root)})
        self.lost_after = lost_after
        self.streams = self.most = 0
        self.key = "pve-01"

    async def run(self, command: Command[Any]) -> Any:
        result = await self.inner.run(command)
        if result.exit != 0:
            raise command.classify(command, result, self.key)
        return command.parse(result)

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncIterator[Any]:
        self.streams += 1
        async with self.inner.stream(command) as stream:
            yield _Stream(self, stream)


class _Stream:
    def __init__(self, link: Link, inner: Any) -> None:
        self._link, self._inner, self._sent = link, inner, 0

    async def send(self, data: bytes) -> None:
        self._sent += len(data)
        if self._link.lost_after is not None and self._sent > self._link.lost_after:
            raise NodeUnreachable("pve-01", "the link was lost")
        await self._inner.send(data)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def wait(self) -> Result:
        result: Result = await self._inner.wait()
        return result


def node(link: Link) -> FleetNode:
    return link  # type: ignore[return-value]


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


async def test_a_file_is_sent_once_and_found_the_next_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    link = Link(tmp_path / "node")
    here = contents(tmp_path)

    assert await here.ship(node(link), source, SUM, len(DATA), DEST)
    assert not await here.ship(node(link), source, SUM, len(DATA), DEST)

    assert link.streams == 1
    assert (tmp_path / f"node{DEST}").read_bytes() == DATA


async def test_who_wants_it_at_the_same_time_shares_one_transfer(tmp_path: Path) -> None:
    link, here = Link(tmp_path / "node"), contents(tmp_path)

    async def bytes_() -> AsyncIterator[bytes]:
        for at in range(0, len(DATA), 65536):
            yield DATA[at : at + 65536]

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(here.ship, node(link), bytes_, SUM, len(DATA), DEST)
    assert link.streams == 1
    assert left(tmp_path / "node") == [Path(DEST).name]


async def test_a_link_that_is_lost_half_way_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    here = contents(tmp_path)
    with pytest.raises((NodeUnreachable, CommandFailed)):
        with anyio.fail_after(20):
            await here.ship(node(Link(tmp_path / "node", lost_after=1 << 20)), source, SUM, len(DATA), DEST)
    assert left(tmp_path / "node") == []


async def test_other_bytes_than_were_meant_are_refused_on_arrival(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(CommandFailed, match="is not what was sent"):
        await contents(tmp_path).ship(node(Link(tmp_path / "node")), source, SUM, len(DATA), DEST)
    assert left(tmp_path / "node") == []


async def test_a_node_without_room_says_so_before_it_is_sent(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    with pytest.raises(NodeNotUsable, match="there is no room for /var/lib/nexcage-oci"):
        await contents(tmp_path).ship(node(Link(tmp_path / "node")), source, SUM, 1 << 60, DEST)
    assert left(tmp_path / "node") == []


async def test_a_source_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidPath), anyio.fail_after(20):
        await contents(tmp_path).ship(node(Link(tmp_path / "node")), tmp_path / "nosuch", SUM, 5, DEST)
    assert left(tmp_path / "node") == []


async def test_cancelling_a_transfer_leaves_nothing(tmp_path: Path) -> None:
    link, here, going = Link(tmp_path / "node"), contents(tmp_path), anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            going.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.ship, node(link), endless, SUM, len(DATA), DEST)
        await going.wait()
        tasks.cancel_scope.cancel()
    assert left(tmp_path / "node") == []


# ---- creates -----------------------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(
    not (shutil.which("umoci") and shutil.which("skopeo")), reason="needs umoci and skopeo (apt install umoci skopeo)"
)


@real
@pytest.mark.sim(nodes=1, real_time=True)
async def test_an_image_is_on_its_node_before_the_create_and_the_journal_names_it(
    sim: SimCluster, tmp_path: Path
) -> None:
    layout = simple(tmp_path / "nginx", annotations={"org.opencontainers.image.ref.name": "1.29"})
    config = Config(images={"nginx": f"{layout}:1.29"})
    async with sim.fleet(config=config) as fleet:
        done = await fleet["web-1"].create(Spec("nginx", backend="crun", memory=64, swap=512))
        await fleet["web-2"].create(Spec("nginx", backend="crun"))
        state = (await fleet.states("web-1"))["web-1"]
        spec = fleet.machines["web-1"].spec
    assert done.changed
    assert spec is not None
    assert spec.content is not None
    files = sim["pve-01"].files
    names = files.names(shipping.CACHE)
    assert len([name for name in names if name.endswith(".tar")]) == 1
    assert len([name for name in names if name.endswith(".json")]) == 2
    kept = json.loads(files.read(shipping.cached(spec.content.rootfs)) or "")
    assert kept["sha256"] == spec.content.rootfs[7:]
    document = json.loads(files.read(shipping.cached(spec.content.config, ".json")) or "")
    assert document["process"]["args"] == ["/bin/hello"]
    assert document["linux"]["resources"]["memory"]["limit"] == 64 << 20
    assert state.annotations["org.nexcage.image.source"] == f"{layout}:1.29"
    assert state.annotations["org.nexcage.image.requested"] == "nginx"
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    assert state.annotations["org.nexcage.image.digest"] == manifest


@real
@pytest.mark.sim(nodes=1, real_time=True)
async def test_what_is_wrong_with_an_image_ends_the_create_before_it_begins(sim: SimCluster, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "arm")
    layout.add(layout.image(b"", arch="arm64"))
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.UnsupportedImage, match="a platform that the image is made for: linux/arm64"):
            await fleet["web-1"].create(Spec(str(layout.path), backend="runc"))
        assert fleet.machines.get("web-1") is None
    assert sim.effects() == []


@pytest.mark.sim(nodes=1, real_time=True)
async def test_a_bundle_goes_to_a_node_elsewhere_with_its_root_file_system(sim: SimCluster, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "fs").mkdir(parents=True)
    (bundle / "fs/hello").write_text("hello")
    said = {
        "ociVersion": "1.0.2",
        "root": {"path": "fs"},
        "process": {"cwd": "/", "args": ["/hello"]},
        "x": {"unknown": 1},
    }
    (bundle / "config.json").write_text(json.dumps({**said, "annotations": {"mine": "1"}}))
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(Spec(str(bundle), backend="runc", bundle=str(bundle)))
        state = (await fleet.states("web-1"))["web-1"]
        spec = fleet.machines["web-1"].spec
    assert spec is not None
    assert spec.content is not None
    document = json.loads(sim["pve-01"].files.read(shipping.cached(spec.content.config, ".json")) or "")
    assert document == {**said, "root": {"path": "rootfs"}, "annotations": {"mine": "1"}}
    assert (state.bundle, state.annotations["mine"]) == (str(bundle), "1")
    assert json.loads((bundle / "config.json").read_text())["root"]["path"] == "fs"


@pytest.mark.sim(nodes=1, real_time=True)
async def test_neither_a_bundle_nor_an_image_can_forge_what_state_says_of_us(sim: SimCluster, tmp_path: Path) -> None:
    forged = {"org.nexcage.vmid": "104", "org.nexcage.stale": "true", "org.example.team": "blue"}
    layout = simple(tmp_path / "web", config={"Cmd": ["/bin/hello"], "Labels": forged})
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    config = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["/hello"]}}
    (bundle / "config.json").write_text(json.dumps({**config, "annotations": forged}))
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(Spec(bundle=str(bundle), backend="runc"))
        await fleet["web-2"].create(Spec(str(layout), backend="runc"))
        states = await fleet.states()
    for state in states.values():
        assert state.annotations["org.example.team"] == "blue"
        assert {"org.nexcage.vmid", "org.nexcage.stale"}.isdisjoint(state.annotations)


@pytest.mark.sim(nodes=1, real_time=True)
@pytest.mark.parametrize(("program", "said"), [("crun", "1.8.1"), ("runc", "2.0.0")])
async def test_what_a_runtime_would_drop_of_a_bundle_without_a_word_is_refused_unless_its_version_has_it(
    sim: SimCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    extra: dict[str, dict[str, Any]] = {
        "crun": {"linux": {"resources": {"cpu": {"burst": 1000}}}},
        "runc": {"domainname": "lan"},
    }
    pointer = {"crun": "/linux/resources/cpu", "runc": "/domainname"}[program]
    bundle = tmp_path / "bundle"
    (bundle / "fs").mkdir(parents=True)
    process = {"cwd": "/", "args": ["/hello"], "user": {"uid": 0, "gid": 0}}
    (bundle / "config.json").write_text(
        json.dumps({"ociVersion": "1.0.2", "root": {"path": "fs"}, "process": process, **extra[program]})
    )
    wanted = Spec(str(bundle), backend=program, bundle=str(bundle))
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.BundleRefused) as refused:
            await fleet["web-1"].create(wanted)
        assert (refused.value.refused, "web-1" in fleet.machines) == ((pointer,), False)
        assert any(f"--allow {pointer}" in note for note in refused.value.__notes__)
        await fleet["web-1"].create(msgspec.structs.replace(wanted, allow=(pointer,)))
        monkeypatch.setattr(PRETEND[program], "version", f"{program} version {said}\nspec: 1.2.0\n")
        if said == "2.0.0":
            await fleet["web-2"].create(wanted)
        else:
            with pytest.raises(nexcage.BundleRefused):
                await fleet["web-2"].create(wanted)


# ---- on the shelves ----------------------------------------------------------------------------------------------------------


@real
@pytest.mark.sim(nodes=2, real_time=True)
async def test_an_image_is_pushed_to_the_template_storage_of_nodes_and_removed(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(tmp_path / "nginx")
    async with sim.fleet(config=Config(images={"nginx": str(layout)})) as fleet:
        pushed = await fleet.push_image("nginx", "pve-01")
        again = await fleet.push_image(str(layout), "pve-01")
        image = pushed["pve-01"]
        assert isinstance(image, nexcage.Image)
        assert again == pushed
        assert image.volume.startswith("local:vztmpl/nexcage-")
        assert image.volume.endswith(".tar")
        assert sim["pve-02"].files.read(f"/var/lib/vz/template/cache/{image.name}") is None
        assert await fleet.rmi(image.volume, "pve-01") == {"pve-01": True}
    assert sim["pve-01"].files.read(f"/var/lib/vz/template/cache/{image.name}") is None


@real
@pytest.mark.sim(nodes=1, real_time=True)
async def test_content_is_listed_and_removed_by_its_digest(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(tmp_path / "nginx")
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(Spec(str(layout), backend="crun"))
        spec = fleet.machines["web-1"].spec
        assert spec is not None
        assert spec.content is not None
        digest = spec.content.rootfs
        (seen,) = [image for image in (await fleet.images())["pve-01"] if image.kind == "content"]  # type: ignore[union-attr]
        assert (seen.volume, seen.size > 1000) == (digest, True)
        assert await fleet.rmi(digest) == {"pve-01": True}
        assert await fleet.rmi(digest) == {"pve-01": False}
        await fleet["web-2"].create(Spec(str(layout), backend="crun"))


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("image", ["nginx:1.29", "local:iso/x.iso", "debian-12.tar.zst"])
async def test_only_what_lies_on_this_machine_is_pushed(sim: SimCluster, image: str) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.UnsupportedImage, match="of this machine"):
            await fleet.push_image(image)


@real
@pytest.mark.sim(nodes=1, real_time=True)
async def test_an_image_becomes_a_container_of_proxmox_ve_with_its_own_program(sim: SimCluster, tmp_path: Path) -> None:
    layout = simple(
        tmp_path / "nginx", config={"Entrypoint": ["/bin/hello"], "Cmd": ["a b", ""], "Env": ["A=1"], "User": "ada"}
    )
    async with sim.fleet(config=Config(images={"nginx": str(layout)})) as fleet:
        done = await fleet["web-1"].create(Spec("nginx", backend="lxc", memory=256))
        state = (await fleet.states("web-1"))["web-1"]
        text = sim["pve-01"].model.config(done.vmid) or ""
        await fleet["web-1"].delete(force=True)
    assert "memory: 256" in text
    assert "unprivileged: 1" in text
    assert "lxc.init.cmd" in text
    assert state.annotations["org.nexcage.image.requested"] == "nginx"
    assert state.annotations["org.nexcage.image.digest"].startswith("sha256:")
    assert not [name for name in sim["pve-01"].files.names("/var/lib/vz/template/cache") if "nexcage-" in name]
