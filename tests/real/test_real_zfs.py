"""The words of ``nexcage.tools.zfs`` to real ZFS, and containers on real pools (zfs-fuse)."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import nexcage
from nexcage import AlreadyExists, Blocked, Busy, InvalidName, NodeNotUsable, NotFound, NotOurs
from nexcage._core.command import Command, Result
from nexcage._core.config import ZfsConfig
from nexcage._core.seen import Mark
from nexcage.testing.executables import bin_dir
from nexcage.testing.real_zfs import RealZfs, missing
from nexcage.tools import datasets, zfs

T = TypeVar("T")
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
MARK = Mark("f1", "web-1", 100, "op-1")
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealZfs]:
    with RealZfs(tmp_path_factory.mktemp("zfs")) as running:
        yield running


_numbers = itertools.count()


def new_name() -> str:
    return f"nexcage{os.getpid()}n{next(_numbers)}"


@pytest.fixture
def tank(real: RealZfs, tmp_path: Path) -> Iterator[str]:
    name = real.pool(new_name(), tmp_path / "mnt")
    yield name
    real.destroy(name)


def do(command: Command[T]) -> T:
    """Run it here; its answer, or the error that its words mean."""
    try:
        done = subprocess.run(command.argv, capture_output=True, timeout=200, check=False)
        result = Result(done.returncode, done.stdout, done.stderr)
    except FileNotFoundError as error:
        result = Result(127, b"", str(error).encode())
    if result.exit != 0:
        raise command.classify(command, result, "here")
    return command.parse(result)


def do_once_free(command: Command[T], seconds: float = 20.0) -> T:
    """The same, as soon as it is not busy: an unmount through FUSE takes its time, and other tests copy our mounts."""
    until = time.monotonic() + seconds
    while True:
        try:
            return do(command)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def names(root: str) -> list[str]:
    return [one.name for one in do(zfs.datasets(root, depth=9)) if one.type == "filesystem"]


# ---- words ---------------------------------------------------------------------------------------------------------------------


def test_a_pool_and_its_datasets_are_read_with_exact_sizes(tank: str, tmp_path: Path) -> None:
    assert zfs.Pool(tank, "ONLINE") in do(zfs.pools())
    (root,) = do(zfs.datasets(tank))

    assert (root.type, root.mountpoint, root.mounted) == ("filesystem", str(tmp_path / "mnt"), True)
    assert 1 << 20 < root.available < 128 << 20


def test_parents_are_made_only_when_asked(tank: str) -> None:
    with pytest.raises(NotFound, match=f"dataset '{tank}/a/b' does not exist"):
        do(zfs.create(f"{tank}/a/b/c"))
    do(zfs.create(f"{tank}/a/b/c", {"compression": "on"}, parents=True))

    assert names(tank) == [tank, f"{tank}/a", f"{tank}/a/b", f"{tank}/a/b/c"]
    with pytest.raises(AlreadyExists):
        do(zfs.create(f"{tank}/a"))


def test_a_mark_is_a_datasets_own_and_its_children_do_not_carry_it(tank: str) -> None:
    do(zfs.create(f"{tank}/a", {"org.nexcage:mark": str(MARK)}))
    do(zfs.create(f"{tank}/a/child"))

    assert do(datasets.marked(tank)) == ((f"{tank}/a", MARK),)
    found = do(datasets.survey(f"{tank}/a", f"{tank}/a/child")).found
    assert (found[f"{tank}/a"].mark, found[f"{tank}/a/child"].mark) == (str(MARK), "")
    with pytest.raises(NotOurs):
        do(datasets.guarded(f"{tank}/a/child", MARK, zfs.destroy(f"{tank}/a/child")))
    do_once_free(datasets.guarded(f"{tank}/a", MARK, zfs.destroy(f"{tank}/a", recursive=True)))
    with pytest.raises(NotFound):
        do(datasets.guarded(f"{tank}/a", MARK, zfs.destroy(f"{tank}/a")))


def test_properties_are_set_read_and_given_back(tank: str) -> None:
    do(zfs.set_(tank, "org.nexcage:note", "it's a note"))
    asked = zfs.get(("org.nexcage:note", "atime"), tank)

    assert do(asked)[0] == zfs.Property(tank, "org.nexcage:note", "it's a note", "local")
    do(zfs.inherit(tank, "org.nexcage:note"))
    assert do(asked)[0] == zfs.Property(tank, "org.nexcage:note", "-", "-")


def test_a_rollback_needs_the_newest_snapshot_or_leave_to_remove_newer_ones(tank: str, tmp_path: Path) -> None:
    file = tmp_path / "mnt" / "a" / "file"
    do(zfs.create(f"{tank}/a"))
    file.write_text("one")
    do(zfs.snapshot(f"{tank}/a@one"))
    file.write_text("two")
    do(zfs.snapshot(f"{tank}/a@two"))

    assert do(zfs.snapshots(f"{tank}/a")) == ("one", "two")
    with pytest.raises(AlreadyExists, match="snapshot"):
        do(zfs.snapshot(f"{tank}/a@two"))
    with pytest.raises(Blocked, match=f"newer snapshots: {tank}/a@two"):
        do(zfs.rollback(f"{tank}/a@one"))
    do_once_free(zfs.rollback(f"{tank}/a@one", newer=True))
    assert file.read_text() == "one"
    assert do(zfs.snapshots(f"{tank}/a")) == ("one",)


def test_what_depends_on_a_dataset_blocks_its_end_and_is_named(tank: str) -> None:
    do(zfs.create(f"{tank}/a"))
    do(zfs.snapshot(f"{tank}/a@s"))
    do(zfs.clone(f"{tank}/a@s", f"{tank}/copy"))

    with pytest.raises(Blocked, match=f"{tank}/a@s"):
        do(zfs.destroy(f"{tank}/a"))
    with pytest.raises(Blocked, match=f"its clones {tank}/copy"):
        do(zfs.destroy(f"{tank}/a", recursive=True))
    do(zfs.promote(f"{tank}/copy"))
    do_once_free(zfs.destroy(f"{tank}/a"))
    assert names(tank) == [tank, f"{tank}/copy"]


def test_a_dataset_in_use_is_busy_and_its_holder_is_found(tank: str, tmp_path: Path) -> None:
    do(zfs.create(f"{tank}/a"))
    place = tmp_path / "mnt" / "a"
    assert do(datasets.holders(str(place))) == ()
    with subprocess.Popen(["cat"], cwd=place, stdin=subprocess.PIPE) as holder:
        assert f"{holder.pid} cat file" in do(datasets.holders(str(place)))
        with pytest.raises(Busy, match=f"{tank}/a"):
            do(zfs.destroy(f"{tank}/a"))
        holder.kill()
    do_once_free(zfs.destroy(f"{tank}/a"))


def test_a_stream_makes_the_same_dataset_elsewhere(tank: str, tmp_path: Path) -> None:
    do(zfs.create(f"{tank}/a"))
    (tmp_path / "mnt" / "a" / "file").write_bytes(bytes(range(256)))
    do(zfs.snapshot(f"{tank}/a@s"))

    sent = subprocess.run(zfs.send(f"{tank}/a@s"), capture_output=True, check=True).stdout
    subprocess.run(zfs.receive(f"{tank}/b", mounted=True), input=sent, check=True)

    assert (tmp_path / "mnt" / "b" / "file").read_bytes() == bytes(range(256))


def test_out_of_space_is_said(tank: str, tmp_path: Path) -> None:
    do(zfs.create(f"{tank}/a", {"reservation": "40M"}))

    with pytest.raises(Blocked, match="a lack of room"):
        do(zfs.create(f"{tank}/b", {"reservation": "80M"}))


def test_what_is_missing_is_named(tank: str) -> None:
    asked: list[tuple[Command[Any], str]] = [
        (zfs.datasets("nosuchpool"), "dataset 'nosuchpool'"),
        (zfs.create("nosuchpool/x"), "pool 'nosuchpool'"),
        (zfs.destroy(f"{tank}/nope"), f"dataset '{tank}/nope'"),
        (zfs.destroy(f"{tank}@nope"), "snapshot"),
    ]
    for command, word in asked:
        with pytest.raises(NotFound, match=word):
            do(command)


def test_zfs_and_we_agree_about_names(tank: str) -> None:
    with pytest.raises(InvalidName):
        zfs.create(f"{tank}/a%b")
    with pytest.raises(InvalidName):
        do(Command(("zfs", "create", f"{tank}/a%b"), lambda _: None, classify=zfs.classify))


# ---- containers ----------------------------------------------------------------------------------------------------------------


class Ground:
    """One simulated node behind a real sshd whose ``zfs`` is real."""

    def __init__(self, site: Any, real: RealZfs, pool: str) -> None:
        self.site: Any = site  # Any: the fixture's own class
        self.pool: str = pool
        self.real: RealZfs = real
        (name,) = site.sim.hosts
        self.root: Path = site.dir / "sim" / "nodes" / name / "root"
        real.install(bin_dir(site.dir / "sim", name), self.root)

    def fleet(self, **settings: Any) -> Any:
        config = nexcage.Config(ssh_config="none", zfs=ZfsConfig(**{"pool": self.pool, **settings}))
        hosts = [server.host for server in self.site.servers.values()]
        return nexcage.open_fleet(
            hosts, config=config, state_dir=self.site.dir / "state", run_dir=self.site.dir / "run"
        )

    def datasets(self) -> list[str]:
        listed = self.real.run("zfs", "list", "-H", "-o", "name", "-t", "filesystem,snapshot", "-r", self.pool)
        return listed.stdout.decode().split()


async def deleted(container: nexcage.Container) -> nexcage.Done:
    """Its delete. Whoever made a mount namespace meanwhile holds a copy of our mounts, which FUSE takes for use."""
    try:
        return await container.delete()
    except Blocked as blocked:
        if "another mount namespace" in blocked.holder:
            pytest.skip(f"not alone on this machine: {blocked.holder}")
        raise


@pytest.fixture
def ground(site: Any, real: RealZfs) -> Iterator[Ground]:
    made = site()
    (name,) = made.sim.hosts
    pool = new_name()
    real.pool(pool, made.dir / "sim" / "nodes" / name / "root" / "tank")
    yield Ground(made, real, pool)
    real.destroy(pool)


@pytest.mark.parametrize("mount", ["", "/srv/data"])
async def test_a_container_lives_in_a_real_dataset_and_takes_it_along(ground: Ground, mount: str) -> None:
    async with ground.fleet(mount=mount, properties={"atime": "off"}) as fleet:
        web = fleet["web-1"]
        vmid = (await web.create(nexcage.Spec(DEBIAN))).vmid
        name = f"{ground.pool}/containers/web-1-{vmid}"
        place = ground.root / "tank" / "containers" / (f"web-1-{vmid}" if mount else f"images/{vmid}")

        assert ground.datasets() == [ground.pool, f"{ground.pool}/containers", name]
        assert os.path.ismount(place)
        assert mount or (place / f"subvol-{vmid}-disk-0.subvol").exists()
        await web.start()
        await web.stop()
        await deleted(web)

        assert ground.datasets() == [ground.pool, f"{ground.pool}/containers"]
        assert not os.path.ismount(place)


@pytest.mark.parametrize("policy", ["keep", "rename"])
async def test_what_a_deleted_container_had_is_kept(ground: Ground, policy: str) -> None:
    async with ground.fleet(on_delete=policy) as fleet:
        made = await fleet["web-1"].create(nexcage.Spec(DEBIAN))
        place = ground.root / "tank" / "containers" / "images" / str(made.vmid)
        (place / "file").write_text("kept")
        done = await deleted(fleet["web-1"])

    name = f"{ground.pool}/containers/web-1-{made.vmid}" + (f"-deleted-{made.op_id[:16]}" if policy == "rename" else "")
    assert ground.datasets() == [ground.pool, f"{ground.pool}/containers", name, f"{name}@nexcage-deleted"]
    assert name in done.notes[0]
    ground.real.run("zfs", "rollback", f"{name}@nexcage-deleted")
    ground.real.run("zfs", "set", f"mountpoint={place}", name)
    assert (place / "file").read_text() == "kept"


async def test_somebody_in_the_dataset_blocks_the_delete_until_they_leave(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexcage._backends.zfs.PATIENCE", 0.5)
    async with ground.fleet() as fleet:
        web = fleet["web-1"]
        vmid = (await web.create(nexcage.Spec(DEBIAN))).vmid
        place = ground.root / "tank" / "containers" / "images" / str(vmid)
        with subprocess.Popen(["cat"], cwd=place, stdin=subprocess.PIPE) as holder:
            with pytest.raises(Blocked, match=rf"cat \(pid {holder.pid}\)"):
                await web.delete()
            assert (await web.start()).changed  # nothing of it was touched
            await web.stop()
            holder.kill()
        monkeypatch.undo()
        await deleted(web)

    assert ground.datasets() == [ground.pool, f"{ground.pool}/containers"]


async def test_a_full_pool_takes_no_container(ground: Ground) -> None:
    ground.real.run("zfs", "create", "-o", "reservation=80M", f"{ground.pool}/other")
    async with ground.fleet() as fleet:
        with pytest.raises(Blocked, match="a lack of room"):
            await fleet["web-1"].create(nexcage.Spec(DEBIAN))

    assert ground.datasets() == [ground.pool, f"{ground.pool}/other"]


async def test_without_the_pool_it_goes_on_or_not(ground: Ground) -> None:
    async with ground.fleet(pool=ground.pool[:-1]) as fleet:
        done = await fleet["web-1"].create(nexcage.Spec(DEBIAN))
        assert "no pool" in done.notes[0]
    async with ground.fleet(pool=ground.pool[:-1], required=True) as fleet:
        with pytest.raises(NodeNotUsable, match="no pool"):
            await fleet["web-2"].create(nexcage.Spec(DEBIAN))


# ---- last: without the daemon ----------------------------------------------------------------------------------------------------


def test_a_daemon_that_is_down_is_said_with_what_to_do(real: RealZfs) -> None:
    if not real.own:
        pytest.skip("the ZFS daemon here was running already and is not ours to end")
    real.end()  # and stays so: this is the last one of this module

    with pytest.raises(NodeNotUsable, match="start it"):
        do(zfs.pools())
    assert "daemon" in do(datasets.survey("tank/containers", "tank/containers/web-1-100")).why
