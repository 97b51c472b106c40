"""Images of this machine become root file systems by skopeo and umoci, or typed errors with nothing left and nothing outside."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from nexcage import InvalidBundle, InvalidImage, InvalidPath, NexcageError, NodeNotUsable, UnsupportedImage
from nexcage._core.layers import Bounds
from nexcage._core.layout import Wanted, choose
from nexcage._engine.contents import Contents
from nexcage._engine.sources import located, open_source
from nexcage._engine.store import Store
from nexcage._engine.unpacking import Made, Unpacker
from nexcage._transports.local import LocalTransport
from tests.images.layouts import ROOT, Layout, member, platform, saved, simple, tagged, tar

pytestmark = [
    pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci (apt install umoci)"),
    pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo (apt install skopeo)"),
]
AMD64 = Wanted("amd64")


class Ground:
    """A store of its own, and everything that a hostile image could want to reach beside it."""

    def __init__(self, where: Path, bounds: Bounds | None = None, env: dict[str, str] | None = None) -> None:
        self.where = where
        self.store = Store(where / "state/contents")
        self.local = LocalTransport(env=env)
        self.contents = Contents(self.store, self.local, Random(1))
        self.unpacker = Unpacker(self.contents, bounds)

    async def made(self, path: Path, tag: str = "", wanted: Wanted = AMD64) -> Made:
        return (await self.unpacker.made(path, tag, wanted))[0]

    def names(self, made: Made) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(self.store.place(made.rootfs[7:], ".tar")) as archive:
            return {info.name.removeprefix("./"): info for info in archive}

    def left(self) -> list[str]:
        """What is in the store besides finished content."""
        known = os.listdir(self.store.directory) if self.store.directory.exists() else []
        return [name for name in known if not name.startswith("sha256-")]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


# ---- what it becomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gzip", "zstd", "plain"])
async def test_a_layout_becomes_a_root_file_system_however_its_layers_are_compressed(
    ground: Ground, tmp_path: Path, how: str
) -> None:
    upper = tar(member("etc/.wh.gone"), member("srv/.wh..wh..opq"), member("srv/new", b"2"))

    made = await ground.made(simple(tmp_path / "layout", ROOT, upper, how=how))

    names = ground.names(made)
    assert {"bin/hello", "etc/passwd", "srv/new"} <= names.keys()
    assert not [name for name in names if "gone" in name or ".wh." in name]
    hello, hard = names["bin/hello"], names["bin/hard"]
    assert {hello.type, hard.type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    assert names["bin/hi"].linkname == "/bin/hello"
    whole = hello if hello.isreg() else hard
    if os.geteuid() == 0:
        assert (whole.mode & 0o7777, whole.uid, whole.gid) == (0o4755, 12, 34)
    assert ground.left() == []


async def test_every_form_of_one_image_is_the_same_content(ground: Ground, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.add(layout.image(ROOT))
    plain = await ground.made(layout.path)
    archived = await ground.made(layout.archive(tmp_path / "what.ever"))
    docker = await ground.made(saved(layout.path, tmp_path / "saved", "demo:1"), "demo:1")

    assert archived == plain
    assert sorted(ground.names(docker)) == sorted(ground.names(plain))
    assert docker.image.config == plain.image.config


async def test_what_was_made_once_needs_no_program_again(tmp_path: Path) -> None:
    layout = simple(tmp_path / "layout")
    first = await Ground(tmp_path).made(layout)
    nothing = Ground(tmp_path, env={"PATH": "/nowhere"})

    assert await nothing.made(layout) == first


async def test_two_who_ask_at_once_share_the_work(ground: Ground, tmp_path: Path) -> None:
    layout, made = simple(tmp_path / "layout"), []

    async def ask() -> None:
        made.append(await ground.made(layout))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert made == [made[0]] * 3
    assert len(os.listdir(ground.store.directory)) == 2


# ---- which image -------------------------------------------------------------------------------------------------------------


def several(where: Path) -> Path:
    layout = Layout(where)
    inner = layout.nested(
        layout.image(ROOT, arch="amd64", **platform("amd64")),
        layout.image(tar(member("arm", b"1")), arch="arm64", variant="v8", **platform("arm64", "v8")),
        layout.image(tar(member("sbom", b"1")), arch="unknown", platform={"os": "unknown", "architecture": "unknown"}),
    )
    layout.add(layout.nested(inner, **tagged("1.0")))
    layout.add(layout.image(tar(member("two", b"2")), **tagged("2.0")))
    layout.add(
        {"mediaType": "application/vnd.example.unknown", "digest": "sha256:" + "0" * 64, "size": 1, **tagged("odd")}
    )
    return where


async def test_a_tag_and_a_platform_lead_through_nested_indexes(ground: Ground, tmp_path: Path) -> None:
    layout = several(tmp_path / "layout")
    archive = tmp_path / "archive.bin"
    subprocess.run(["tar", "-C", layout, "-cf", archive, "oci-layout", "index.json", "blobs"], check=True)
    for path in (layout, archive):
        assert "bin/hello" in ground.names(await ground.made(path, "1.0"))
        assert "arm" in ground.names(await ground.made(path, "1.0", Wanted("arm64")))
        assert "two" in ground.names(await ground.made(path, "2.0"))


@pytest.mark.parametrize(
    ("tag", "arch", "words"),
    [
        ("3.0", "amd64", "one of the tags that are there: 1.0, 2.0, odd"),
        ("", "amd64", "PATH:TAG, with one of the tags that are there: 1.0, 2.0"),
        ("1.0", "riscv64", "a platform that the image is made for: linux/amd64, linux/arm64/v8"),
        ("2.0", "arm64", "a platform that the image is made for: linux/amd64"),
        ("odd", "amd64", "there are only other artifacts"),
    ],
)
async def test_what_is_not_there_is_told_before_a_layer_is_read(
    ground: Ground, tmp_path: Path, tag: str, arch: str, words: str
) -> None:
    layout = several(tmp_path / "layout")
    for blob in (layout / "blobs/sha256").iterdir():
        if not blob.read_bytes().startswith(b"{"):
            blob.write_bytes(b"not read")
    with pytest.raises(UnsupportedImage, match=words):
        await ground.made(layout, tag, Wanted(arch))
    assert not ground.store.directory.exists()


def test_a_path_may_have_a_tag_behind_it(tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "odd:name").mkdir()

    assert located(f"{tmp_path}/layout") == (tmp_path / "layout", "")
    assert located(f"oci:{tmp_path}/layout:docker.io/library/x:1") == (tmp_path / "layout", "docker.io/library/x:1")
    assert located(f"{tmp_path}/odd:name") == (tmp_path / "odd:name", "")
    assert located(f"{tmp_path}/odd:name:1") == (tmp_path / "odd:name", "1")
    with pytest.raises(InvalidPath):
        located(f"{tmp_path}/nosuch:1")


@pytest.mark.parametrize("kind", ["empty", "text", "rootfs", "gzipped", "directory", "fifo"])
async def test_what_is_no_image_is_told_by_its_content(ground: Ground, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.tar"
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_bytes(b"hello" * 1000)
        case "rootfs":
            path.write_bytes(ROOT)
        case "gzipped":
            path.write_bytes(gzip.compress(ROOT))
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(path)
    with pytest.raises(UnsupportedImage):
        await ground.made(path)


# ---- damage ------------------------------------------------------------------------------------------------------------------


def broken(layout: Path, part: str) -> None:
    """One bit of a blob is another, or the blob is not there."""
    manifest = layout / "blobs/sha256" / json.loads((layout / "index.json").read_text())["manifests"][0]["digest"][7:]
    inner = json.loads(manifest.read_text())
    blob = {
        "manifest": manifest,
        "config": layout / "blobs/sha256" / inner["config"]["digest"][7:],
        "layer": layout / "blobs/sha256" / inner["layers"][0]["digest"][7:],
    }[part.partition(" ")[0]]
    data = bytearray(blob.read_bytes())
    match part.partition(" ")[2]:
        case "bit":
            data[len(data) // 2] ^= 1
        case "cut":
            del data[-1]
        case "gone":
            blob.unlink()
            return
        case "link":
            blob.unlink()
            blob.symlink_to("/etc/hostname")
            return
    blob.write_bytes(data)


@pytest.mark.parametrize("how", ["bit", "cut", "gone", "link"])
@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
async def test_a_blob_that_is_not_what_its_digest_says_is_refused(
    ground: Ground, tmp_path: Path, part: str, how: str
) -> None:
    layout = simple(tmp_path / "layout")
    broken(layout, f"{part} {how}")
    with pytest.raises(InvalidImage):
        await ground.made(layout)
    assert ground.left() == []


@pytest.mark.parametrize("how", ["gzip", "zstd", "plain"])
async def test_a_layer_that_is_not_what_the_config_says_is_refused(ground: Ground, tmp_path: Path, how: str) -> None:
    with pytest.raises(InvalidImage, match="another checksum than the config's diff_id"):
        await ground.made(simple(tmp_path / "layout", how=how, diff_ids=["sha256:" + "1" * 64]))
    assert ground.left() == []


@pytest.mark.parametrize(("tool", "part"), [("umoci", "layer")])
async def test_umoci_compares_digests_itself(tmp_path: Path, tool: str, part: str) -> None:
    layout = Layout(tmp_path / "layout")
    layout.add(layout.image(ROOT, **tagged("image")))
    broken(layout.path, f"{part} bit")
    done = subprocess.run(
        [tool, "raw", "unpack", "--image", f"{layout.path}:image", tmp_path / "out"], capture_output=True
    )
    assert done.returncode != 0


@pytest.mark.parametrize("cut", ["gzip", "zstd"])
async def test_a_compressed_stream_that_ends_early_is_refused(ground: Ground, tmp_path: Path, cut: str) -> None:
    layout = Layout(tmp_path / "layout")
    descriptor = layout.image(ROOT, how=cut)
    inner = json.loads((layout.path / "blobs/sha256" / descriptor["digest"][7:]).read_text())
    blob = layout.path / "blobs/sha256" / inner["layers"][0]["digest"][7:]
    inner["layers"] = [layout.blob(blob.read_bytes()[:-20], inner["layers"][0]["mediaType"])]
    layout.add(layout.blob(json.dumps(inner).encode(), descriptor["mediaType"]))
    with pytest.raises(InvalidImage):
        await ground.made(layout.path)
    assert ground.left() == []


DOCUMENTS: dict[str, Any] = {
    "no json": b"{",
    "wrong kind": b'{"schemaVersion": 2, "manifests": {}}',
    "bad digest": b'{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:../../x", "size": 1}]}',
    "negative size": b'{"manifests": [{"mediaType": "x", "digest": "sha256:' + b"0" * 64 + b'", "size": -1}]}',
    "deep": b"[" * 100_000,
    "bytes": b'{"manifests": "\xff"}',
    "large": b" " * (5 << 20),
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_an_index_that_cannot_be_read_is_refused(ground: Ground, tmp_path: Path, name: str) -> None:
    layout = simple(tmp_path / "layout")
    (layout / "index.json").write_bytes(DOCUMENTS[name])
    with pytest.raises((InvalidImage, InvalidBundle)):
        await ground.made(layout)


async def test_an_index_that_holds_itself_ends(ground: Ground, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    one = layout.image(ROOT)
    for _ in range(8):
        one = layout.nested(one)
    layout.add(one)
    with pytest.raises(InvalidImage, match="nested too deep"):
        await ground.made(layout.path)


@pytest.mark.parametrize(("width", "depth", "words"), [(300, 3, "more than 256 documents"), (2000, 1, "2000 entries")])
async def test_indexes_that_name_each_other_do_not_multiply(
    ground: Ground, tmp_path: Path, width: int, depth: int, words: str
) -> None:
    layout = Layout(tmp_path / "layout")
    one = layout.image(ROOT, arch="arm64")
    for _ in range(depth):
        one = layout.nested(*[one] * width)
    layout.add(one)

    with anyio.fail_after(30), pytest.raises(InvalidImage, match=words):
        await ground.made(layout.path)


async def test_no_document_of_an_image_stays_open(ground: Ground, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    for number in range(100):
        layout.add(layout.nested(layout.image(ROOT, arch="arm64", config={"Cmd": [str(number)]}), **platform("amd64")))
    before = len(os.listdir("/proc/self/fd"))
    most = 0

    source = open_source(layout.path)
    try:
        steps = choose(source.index(), "", AMD64)
        descriptor = next(steps)
        with suppress(StopIteration, UnsupportedImage):
            while True:
                descriptor = steps.send(source.document(descriptor))
                most = max(most, len(os.listdir("/proc/self/fd")) - before)
    finally:
        source.close()

    assert most < 10


# ---- harm --------------------------------------------------------------------------------------------------------------------

HARM = {
    "climbs": tar(member("../../outside", b"x")),
    "climbs late": tar(member("a/b/../../../../outside", b"x")),
    "absolute": tar(member("/outside", b"x")),
    "hard link out": tar(member("x", kind=tarfile.LNKTYPE, linkname="../../../secret")),
    "through a link": tar(member("x", kind=tarfile.SYMTYPE, linkname="/"), member("x/outside", b"x")),
    "link out": tar(member("x", kind=tarfile.SYMTYPE, linkname="../../..")),
    "block device": tar(member("sda", kind=tarfile.BLKTYPE, devmajor=8, devminor=0)),
    "whiteout of the parent": tar(member("a", kind=tarfile.DIRTYPE), member("a/.wh...")),
    "whiteout of nothing": tar(member("a/.wh.")),
    "long name": tar(member("n" * 300, b"x")),
    "very long name": tar(member("n/" * 40_000, b"x")),
    "no archive": b"MZ" * 5000,
}


@pytest.mark.parametrize("how", ["gzip", "zstd", "plain"])
@pytest.mark.parametrize("name", HARM)
async def test_a_hostile_layer_is_a_typed_error_and_nothing_is_written_outside(
    ground: Ground, tmp_path: Path, name: str, how: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    layout = simple(tmp_path / "layout", ROOT, HARM[name], how=how)
    before = {str(path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if path != tmp_path}

    with pytest.raises(InvalidImage):
        await ground.made(layout)

    after = {str(path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if "state" not in path.parts}
    assert after == {path: at for path, at in before.items() if "/state" not in path}
    assert os.listdir(ground.store.directory) == []


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(size=1 << 20), "when unpacked"),
        (Bounds(entries=5), "more than 5 entries"),
        (Bounds(layers=1), "more than 1"),
    ],
)
@pytest.mark.parametrize("how", ["gzip", "zstd"])
async def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, bounds: Bounds, words: str, how: str) -> None:
    ground = Ground(tmp_path, bounds)
    bomb = tar(*(member(f"zeros{n}", bytes(1 << 20)) for n in range(6)))
    with pytest.raises(InvalidImage, match=words):
        await ground.made(simple(tmp_path / "layout", bomb, tar(member("x")), how=how))
    assert os.listdir(ground.store.directory) == []


async def test_thousands_of_layers_are_refused_before_any_is_read(ground: Ground, tmp_path: Path) -> None:
    layers = [tar(member(f"f{n}")) for n in range(10)] * 200
    with pytest.raises(InvalidImage, match="there are 2000, more than 500"):
        await ground.made(simple(tmp_path / "layout", *layers))
    assert os.listdir(ground.store.directory) == []


async def test_links_of_lower_layers_are_followed_inside_only(ground: Ground, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layers = (
        tar(member("var", kind=tarfile.DIRTYPE), member("var/run", kind=tarfile.SYMTYPE, linkname=str(outside))),
        tar(member("var/run/x", b"1")),
    )
    await ground.made(simple(tmp_path / "layout", ROOT, *layers))

    assert os.listdir(outside) == []


# ---- programs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "how", "words"),
    [
        ("umoci", "gzip", "there is no umoci \\(apt install umoci\\)"),
        ("skopeo", "zstd", "there is no skopeo \\(apt install skopeo\\)"),
        ("zstd", "zstd", "there is no zstd \\(apt install zstd\\)"),
        ("tar", "gzip", "there is no tar \\(apt install tar\\)"),
    ],
)
async def test_a_missing_program_is_named_with_its_package(tmp_path: Path, missing: str, how: str, words: str) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    for program in {"umoci", "skopeo", "zstd", "tar", "prlimit", "rm"} - {missing}:
        (path / program).symlink_to(str(shutil.which(program)))
    ground = Ground(tmp_path, env={"PATH": str(path)})
    with pytest.raises(NodeNotUsable, match=words):
        await ground.made(simple(tmp_path / "layout", how=how))
    assert ground.left() == []


def alive(group: int) -> list[str]:
    """The processes of a group that have not ended; who reaps orphans is not our affair."""
    stats: list[list[str]] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stats.append(path.read_text().rpartition(") ")[2].split())
    return [fields[0] for fields in stats if int(fields[2]) == group and fields[0] not in "ZX"]


@pytest.mark.parametrize("program", ["umoci", "skopeo", "zstd", "tar"])
async def test_cancelling_leaves_neither_files_nor_programs(tmp_path: Path, program: str) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    began = tmp_path / "began"
    fake = path / program
    fake.write_text(f"#!/bin/sh\necho $$ > {began}.new; mv {began}.new {began}\nsleep 1000 &\nwait\n")
    fake.chmod(0o755)
    ground = Ground(tmp_path, env={"PATH": f"{path}:{os.environ['PATH']}"})
    layout = simple(tmp_path / "layout", how="zstd" if program in ("skopeo", "zstd") else "gzip")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ground.made, layout)
        with anyio.fail_after(20):
            while not began.exists():
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    assert os.listdir(ground.store.directory) == []
    with anyio.fail_after(20):
        while alive(int(began.read_text())):
            await anyio.lowlevel.checkpoint()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
@pytest.mark.parametrize("size", ["16k", "1m", "4m", "7m"])
@pytest.mark.parametrize("form", ["archive", "zstd"])
async def test_a_disk_that_is_full_is_told_at_every_step_and_nothing_stays(
    tmp_path: Path, size: str, form: str
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.add(layout.image(ROOT, tar(member("large", os.urandom(3 << 20))), how="zstd" if form == "zstd" else "gzip"))
    path = layout.archive(tmp_path / "image.tar") if form == "archive" else layout.path
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", small], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        ground = Ground(small)
        with pytest.raises((NodeNotUsable, InvalidPath), match="no room"):
            await ground.made(path)
        assert os.listdir(ground.store.directory) == []
    finally:
        with anyio.fail_after(20):  # what was ended there goes in its own time
            while subprocess.run(["umount", small], check=False, capture_output=True).returncode:
                await anyio.sleep(0.05)


async def test_a_program_that_fails_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/umoci"
    fake.write_text("#!/bin/sh\necho 'write /x: no space left on device' >&2\nexit 1\n")
    fake.chmod(0o755)
    ground = Ground(tmp_path, env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    with pytest.raises(NexcageError, match="there is no room to unpack the image"):
        await ground.made(simple(tmp_path / "layout"))
    assert ground.left() == []
