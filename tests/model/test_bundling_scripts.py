"""The scripts that complete a container from a bundle, in real shells and as twins: they leave the same on a node."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from nexcage import Command, Mark, Result
from nexcage._core.bundle_plan.model import Need
from nexcage.testing import SimCluster, SimNode
from nexcage.tools import bundling, config

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
WAYS = [*SHELLS, "twin"]
MARK = Mark("f1", "web-1", 104, "made-1")
CONF = "/etc/pve/nodes/pve-01/lxc/104.conf"
CACHE = "/var/lib/vz/template/cache"
HELD = """\
#making nexcage fleet=f1 id=web-1 vmid=104 op=made-1
#by hand
arch: amd64
lock: create
rootfs: local:104/vm-104-disk-0.raw,size=4G
"""
LINES = (("lxc.cap.drop", ""), ("lxc.mount.entry", "tmpfs tmp tmpfs nosuid,create=dir 0 0"))

Run: TypeAlias = Callable[[Command[Any]], Awaitable[Result]]  # Any: whatever answer


class Disk:
    """A simulated node on disk, reached by a real shell or by the twin in this process."""

    def __init__(self, sim: SimCluster, directory: Path, way: str) -> None:
        self.node: SimNode = sim["pve-01"]
        self.root = directory / "nodes" / "pve-01" / "root"
        self.way = way

    async def run(self, command: Command[Any]) -> Result:
        if self.way == "twin":
            return await self.node.run(command.argv, stdin=command.stdin, env=dict(command.env))
        environ = {**os.environ, "NEXCAGE_NODE_ROOT": str(self.root)}
        done = await anyio.run_process([self.way, *command.argv[1:]], input=command.stdin, env=environ, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    async def answer(self, command: Command[Any]) -> Any:  # Any: whatever answer
        result = await self.run(command)
        assert result.exit == 0, result
        return command.parse(result)

    def read(self, path: str) -> str | None:
        return self.node.files.read(path)

    def write(self, path: str, text: str) -> None:
        self.node.files.write(path, text)
        self.node.files.commit()  # type: ignore[attr-defined]  # it is on disk

    def templates(self) -> list[str]:
        return sorted(name for name in self.node.files.names(CACHE) if "nexcage-" in name)


@pytest.fixture(params=WAYS)
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    with SimCluster(1, seed=3, dir=tmp_path / "sim", pace=0) as sim:
        yield Disk(sim, tmp_path / "sim", request.param)


async def test_what_was_held_becomes_complete_in_one_step(disk: Disk) -> None:
    disk.write(CONF, HELD)

    await disk.answer(
        bundling.finish(
            MARK,
            LINES,
            [("include", 0o600, b"lxc.no_new_privs = 1\n"), ("inside/launch", 0o400, b"\0x")],
            readonly=True,
        )
    )

    assert disk.read(CONF) == (
        "#nexcage fleet=f1 id=web-1 vmid=104 op=made-1\n#by hand\narch: amd64\n"
        "rootfs: local:104/vm-104-disk-0.raw,size=4G,ro=1\n"
        "lxc.cap.drop: \nlxc.mount.entry: tmpfs tmp tmpfs nosuid,create=dir 0 0\n"
    )
    assert config.parse(disk.read(CONF) or "").raw == LINES
    assert disk.read("/var/lib/nexcage-lxc/f1/web-1/include") == "lxc.no_new_privs = 1\n"
    assert disk.read("/var/lib/nexcage-lxc/f1/web-1/inside/launch") == "\0x"
    assert disk.read("/var/lib/nexcage-lxc/f1/web-1/mark") == f"{MARK}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (HELD.replace("web-1", "web-2"), "does not carry our mark"),
        (HELD.replace("lock: create\n", ""), "changed it since"),
        (HELD + "\n[s1]\narch: amd64\n", "changed it since"),
    ],
)
async def test_what_somebody_has_changed_meanwhile_is_left_alone(disk: Disk, text: str, why: str) -> None:
    disk.write(CONF, text)

    result = await disk.run(bundling.finish(MARK, LINES, (), readonly=False))

    assert (result.exit, why in result.stderr.decode()) == (9, True)
    assert disk.read(CONF) == text


async def test_a_create_works_from_a_link_of_its_own_and_the_last_one_takes_the_template_away(disk: Disk) -> None:
    other = Mark("f1", "web-2", 105, "made-2")
    disk.write(f"{CACHE}/.nexcage-0a.tar.gz", "content")
    sources = f"{CACHE}/nexcage-0a.tar.gz", f"{CACHE}/.nexcage-0a.tar.gz"
    for mark in (MARK, other):
        await disk.answer(bundling.link(mark, f"{CACHE}/nexcage-0a-{mark.op}.tar.gz", *sources))
    assert len(disk.templates()) == 3

    await disk.answer(bundling.tidy(MARK))
    assert disk.templates() == [".nexcage-0a.tar.gz", "nexcage-0a-made-2.tar.gz"]
    await disk.answer(bundling.tidy(MARK))
    await disk.answer(bundling.tidy(other))

    assert disk.templates() == []
    assert (await disk.run(bundling.link(MARK, f"{CACHE}/nexcage-0a-x.tar.gz", *sources))).exit == 66


async def test_one_whose_lock_pct_did_not_keep_is_locked_until_it_is_complete(disk: Disk) -> None:
    disk.write(CONF, HELD.replace("lock: create\n", ""))

    await disk.answer(bundling.finish(MARK, LINES, [], readonly=False, held=True))

    text = disk.read(CONF) or ""
    assert text.splitlines().count("lock: create") == 1
    assert "#making nexcage fleet=f1" in text
    assert text.endswith("lxc.mount.entry: tmpfs tmp tmpfs nosuid,create=dir 0 0\n")


async def test_what_was_sent_to_a_create_that_never_began_goes_after_a_day(disk: Disk) -> None:
    if disk.way == "twin":
        pytest.skip("files of the model have no age")
    old, fresh = f"{CACHE}/.nexcage-0123.tar.zst", f"{CACHE}/.nexcage-4567.tar.zst"
    for path in (old, fresh):
        disk.write(path, "content")
    os.utime(f"{disk.root}{old}", (1, 1))

    await disk.answer(bundling.link(MARK, f"{CACHE}/nexcage-4567-made-1.tar.zst", fresh))

    left = [name for name in os.listdir(f"{disk.root}{CACHE}") if "nexcage-" in name]
    assert sorted(left) == [".nexcage-4567.tar.zst", "nexcage-4567-made-1.tar.zst"]


async def test_a_template_that_is_kept_stays(disk: Disk) -> None:
    disk.write(f"{CACHE}/nexcage-0a.tar.gz", "content")
    await disk.answer(bundling.link(MARK, f"{CACHE}/nexcage-0a-made-1.tar.gz", f"{CACHE}/nexcage-0a.tar.gz"))
    disk.write(CONF, HELD)

    await disk.answer(bundling.finish(MARK, (), (), readonly=False))

    assert disk.templates() == ["nexcage-0a.tar.gz"]


async def test_what_belongs_to_another_create_of_the_same_id_stays(disk: Disk) -> None:
    disk.write(CONF, HELD)
    await disk.answer(bundling.finish(MARK, LINES, (), readonly=False))

    await disk.answer(bundling.tidy(Mark("f1", "web-1", 104, "later")))
    assert disk.read("/var/lib/nexcage-lxc/f1/web-1/lines") is not None
    await disk.answer(bundling.tidy(MARK))

    assert disk.read("/var/lib/nexcage-lxc/f1/web-1/lines") is None


async def test_what_a_node_lacks_is_named(disk: Disk) -> None:
    disk.write("/srv/data/x", "")
    disk.write("/etc/subuid", "alice:1:5\nroot:100000:65536\n")
    disk.write("/sys/kernel/security/apparmor/profiles", "web (enforce)\n")
    needs = [
        Need("/mounts/0/source", "path", "/srv/data/x"),
        Need("/mounts/1/source", "path", "/srv/no such"),
        Need("/mounts/2/source", "directory", "/srv/data"),
        Need("/mounts/3/source", "directory", "/srv/data/x"),
        Need("/linux/devices/0", "device", "c /dev/fuse 10 229"),
        Need("/process/apparmorProfile", "apparmor", "web"),
        Need("/process/apparmorProfile", "apparmor", "mail"),
        Need("/linux/netDevices/eth7", "interface", "eth7"),
        Need("/linux/uidMappings/0", "subuid", "100000 65536"),
        Need("/linux/uidMappings/0", "subuid", "100000 65537"),
    ]

    found = await disk.answer(bundling.lacking(needs))

    assert [(need.pointer, why) for need, why in found] == [
        ("/mounts/1/source", "/srv/no such does not exist"),
        ("/mounts/3/source", "/srv/data/x is no directory"),
        ("/linux/devices/0", "/dev/fuse does not exist"),
        ("/process/apparmorProfile", "the AppArmor profile mail is not loaded"),
        ("/linux/netDevices/eth7", "there is no interface eth7"),
        ("/linux/uidMappings/0", "/etc/subuid does not let root map 100000 65537"),
    ]
