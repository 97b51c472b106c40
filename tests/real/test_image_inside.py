"""An image on its way through skopeo, umoci and GNU tar into containers of the real runtimes: what its layers hold is what is there."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexcage import Container, Create, Fleet, Spec, State
from tests.images.layouts import GROUP, PASSWD, Layout, member, saved, tar
from tests.real.oci_bundle import missing
from tests.real.test_runtimes import WEB, opened, places, program, said, until_said

__all__ = ["emptied", "places", "program"]

pytestmark = [
    pytest.mark.skipif(
        bool(missing("runc", "crun", "skopeo", "umoci", "zstd")),
        reason=missing("runc", "crun", "skopeo", "umoci", "zstd"),
    ),
]
MAY_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""``security.capability`` as setcap cap_net_bind_service=ep writes it."""
HOLE = 8 << 20
CACHE = Path("/var/lib/nexcage-oci/cache")
SERVE = "trap 'echo quit; exit 0' QUIT; trap '' TERM; id; pwd; echo \"$A|$1\"; echo up; while :; do sleep 0.05; done"
SAID = {
    "Entrypoint": ["/bin/sh", "-c", SERVE, "sh"],
    "Cmd": ["two  words\n'\""],
    "Env": ["PATH=/bin", "A=b 'c'"],
    "User": "ada",
    "WorkingDir": "/data",
    "StopSignal": "SIGQUIT",
    "Volumes": {"/volume": {}},
}


def lower(root: Path) -> bytes:
    """The first layer, as GNU tar writes a tree with everything that a file can be."""
    for name in ("bin", "etc", "data", "dev", "opaque", "tmp", "volume"):
        (root / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin/busybox")
    for applet in ("sh", "id", "sleep", "cat", "echo", "ls", "stat", "mknod"):
        (root / "bin" / applet).symlink_to("/bin/busybox")
    (root / "etc/passwd").write_bytes(PASSWD)
    (root / "etc/group").write_bytes(GROUP)
    (root / "data/one").write_text("linked")
    os.link(root / "data/one", root / "data/two")
    (root / "data/setuid").write_text("s")
    os.chown(root / "data/setuid", 12, 34)
    (root / "data/setuid").chmod(0o6751)
    (root / "data/tool").write_text("t")
    os.setxattr(root / "data/tool", "security.capability", MAY_BIND)
    os.setxattr(root / "data/tool", "user.note", b"kept \0\xff")
    with (root / "data/sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"end")
    os.mkfifo(root / "data/fifo")
    os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name in ("data/gone", "opaque/old", "opaque/old2"):
        (root / name).write_text("of the lower layer")
    (root / "tmp").chmod(0o1777)
    argv = ["tar", "-C", root, "--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "-cf", "-", "."]
    return subprocess.run(argv, check=True, capture_output=True).stdout


UPPER = tar(
    member("data/.wh.gone"), member("opaque/.wh..wh..opq"), member("opaque/new", b"1", mode=0o640, uid=1000, gid=1001)
)


def layout(where: Path, how: str) -> Path:
    made = Layout(where / "layout")
    image = made.image(lower(where / "tree"), UPPER, how=how, config=SAID)
    made.add(image)
    return made.path


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    """What tests have put into the cache of this machine goes."""
    before = set(CACHE.glob("sha256-*"))
    yield
    for path in set(CACHE.glob("sha256-*")) - before:
        path.unlink()


def root_of(fleet: Fleet, id: str, pid: int) -> Path:
    """Its root as the kernel shows it to whoever is inside."""
    assert fleet.machines[id].state is State.RUNNING
    return Path(f"/proc/{pid}/root")


async def running(web: Container, source: Path) -> int:
    await web.create(Spec(str(source), memory=64))
    pid = (await web.start()).pid
    await until_said(web, b"uid=1000(ada) gid=1001(ada) groups=10(wheel)", b"/data", b"b 'c'|two  words", b"'\"", b"up")
    return pid


@pytest.mark.parametrize("how", ["zstd", "gzip"])
async def test_what_is_in_layers_is_in_the_container(places: Path, program: str, how: str) -> None:
    source = layout(places, how)
    async with opened(places, program) as fleet:
        web = fleet[WEB]
        root = root_of(fleet, WEB, await running(web, source))

        one, two = (root / "data/one").stat(), (root / "data/two").stat()
        assert (one.st_ino, one.st_nlink) == (two.st_ino, 2)
        setuid = (root / "data/setuid").stat()
        assert (setuid.st_mode & 0o7777, setuid.st_uid, setuid.st_gid) == (0o6751, 12, 34)
        assert os.getxattr(root / "data/tool", "security.capability") == MAY_BIND
        assert os.getxattr(root / "data/tool", "user.note") == b"kept \0\xff"
        assert (root / "data/sparse").read_bytes() == b"\0" * HOLE + b"end"  # umoci fills the hole
        assert stat.S_ISFIFO((root / "data/fifo").stat().st_mode)
        assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
        assert os.readlink(root / "bin/sh") == "/bin/busybox"
        assert (await web.exec(["ls", "/data"])).stdout.split() == [
            b"fifo",
            b"one",
            b"setuid",
            b"sparse",
            b"tool",
            b"two",
        ]
        assert (await web.exec(["ls", "/opaque"])).stdout == b"new\n"
        kept = Path(f"/var/lib/nexcage-oci/{fleet.id}/{WEB}/bundle/rootfs/dev/null").stat()
        assert (stat.S_ISCHR(kept.st_mode), kept.st_rdev) == (True, os.makedev(1, 3))

        assert (await web.stop(timeout=20)).state is State.STOPPED
        assert (await said(web))[-1] == b"quit"


async def test_one_of_docker_save_is_the_same(places: Path, program: str) -> None:
    source = saved(layout(places, "gzip"), places / "web.tar", "web:1")
    async with opened(places, program) as fleet:
        root = root_of(fleet, WEB, await running(fleet[WEB], source))
        assert os.getxattr(root / "data/tool", "security.capability") == MAY_BIND
        assert (root / "data/sparse").stat().st_size == HOLE + 3


async def test_many_of_an_alias_have_a_root_of_their_own_each(places: Path, program: str) -> None:
    images = {"web": str(layout(places, "zstd"))}
    async with opened(places, program, images=images) as fleet:
        report = await fleet.run([Create(f"{WEB}-{n}", Spec("web", backend=program)) for n in range(3)])
        report.raise_for_failures()
        for n in range(3):
            await fleet[f"{WEB}-{n}"].start()
        roots = [root_of(fleet, f"{WEB}-{n}", fleet.machines[f"{WEB}-{n}"].pid) for n in range(3)]
        (roots[0] / "data/mine").write_text("0")
        assert [(root / "data/mine").exists() for root in roots] == [True, False, False]
        contents = {spec.content for m in fleet.machines.values() if (spec := m.spec) is not None}
        (digest,) = {content.rootfs for content in contents if content is not None}
        assert (CACHE / f"sha256-{digest[7:]}.tar").is_file()
        assert await fleet.rmi(digest) == {fleet.machines[f"{WEB}-0"].node: True}
        assert not (CACHE / f"sha256-{digest[7:]}.tar").exists()
