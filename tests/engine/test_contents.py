"""Trees become archives once, and the same tree the same archive; what a store begins and cannot finish is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random

import anyio
import anyio.lowlevel
import pytest

from nexcage import CommandFailed, InvalidPath
from nexcage._engine.contents import Contents
from nexcage._engine.store import Store
from nexcage._transports.local import LocalTransport

pytestmark = pytest.mark.both_loops
ROOT = os.geteuid() == 0


def contents(where: Path, **more: int) -> Contents:
    return Contents(Store(where / "contents", **more), LocalTransport(), Random(1))


def tree(where: Path) -> Path:
    root = where / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(b"\x7fELF" * 1000)
    (root / "bin/busybox").chmod(0o4755)
    (root / "bin/sh").symlink_to("busybox")
    os.link(root / "bin/busybox", root / "bin/ls")
    (root / "odd name\n").write_text("x")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    if ROOT:
        os.chown(root / "bin/busybox", 1234, 5678)
        (root / "bin/busybox").chmod(0o4755)
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
        os.setxattr(root / "bin/busybox", "user.note", b"kept")
    return root


def left(store: Store) -> list[str]:
    return sorted(os.listdir(store.directory)) if store.directory.exists() else []


async def test_an_archive_keeps_what_a_tree_has(tmp_path: Path) -> None:
    packed = await contents(tmp_path).pack(tree(tmp_path))

    target = tmp_path / "again"
    target.mkdir()
    subprocess.run(
        ["tar", "-xpf", packed.path, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", target], check=True
    )
    busybox = (target / "bin/busybox").stat()
    assert busybox.st_ino == (target / "bin/ls").stat().st_ino
    assert os.readlink(target / "bin/sh") == "busybox"
    assert (target / "odd name\n").read_text() == "x"
    sparse = (target / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks) == (64 << 20, 0)
    assert packed.size < 1 << 20
    if ROOT:
        assert (busybox.st_mode & 0o7777, busybox.st_uid, busybox.st_gid) == (0o4755, 1234, 5678)
        assert os.getxattr(target / "bin/busybox", "user.note") == b"kept"
        assert (target / "null").stat().st_rdev == os.makedev(1, 3)


async def test_the_same_tree_is_the_same_content_wherever_and_whenever(tmp_path: Path) -> None:
    here = contents(tmp_path)
    root = tree(tmp_path)
    first = await here.pack(root)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            about = path.stat()
            os.utime(path, ns=(about.st_atime_ns + 10**10, about.st_mtime_ns))  # read meanwhile
    second = await here.pack(root)
    (root / "bin/busybox").write_bytes(b"other")
    third = await here.pack(root)

    assert first == second
    assert third.digest != first.digest
    assert left(here.store) == sorted({first.path.name, third.path.name})


@pytest.mark.parametrize("kind", ["zst", "gz"])
async def test_a_template_is_named_by_its_tree_and_compressed_only_once(tmp_path: Path, kind: str) -> None:
    here = contents(tmp_path)
    root = tree(tmp_path)
    plain = await here.pack(root)
    packed = await here.pack(root, compress=kind)
    before = packed.path.stat().st_ino
    again = await here.pack(root, compress=kind)

    assert packed == again
    assert packed.path.stat().st_ino == before
    assert packed.digest == plain.digest
    assert packed.template == f"nexcage-{plain.sha256[:20]}.tar.{kind}"
    program = {"zst": "zstd", "gz": "gzip"}[kind]
    assert (
        subprocess.run([program, "-dc", packed.path], capture_output=True, check=True).stdout == plain.path.read_bytes()
    )


async def test_cancelling_leaves_neither_a_file_nor_a_process(tmp_path: Path) -> None:
    here = contents(tmp_path)
    root = tmp_path / "big"
    root.mkdir()
    with (root / "zeros").open("wb") as file:
        for _ in range(64):
            file.write(b"\0" * (1 << 20) + b"1")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.pack, root)
        with anyio.fail_after(20):
            while not any(name.startswith("part-") for name in left(here.store)):
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    assert left(here.store) == []


async def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPath, match="an existing directory"):
        await contents(tmp_path).pack(tmp_path / "nosuch")


async def test_a_tree_that_cannot_be_read_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    here = Contents(Store(tmp_path / "contents"), LocalTransport(env={"PATH": str(tmp_path / "bin")}), Random(1))
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/tar"
    fake.write_text("#!/bin/sh\necho 'tar: ./x: file changed as we read it' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(CommandFailed, match="file changed as we read it"):
        await here.pack(tree(tmp_path))

    assert left(here.store) == []


async def test_a_store_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    here = contents(tmp_path, most=300_000)
    root = tmp_path / "rootfs"
    root.mkdir()
    packed = []
    for number in range(4):
        (root / "file").write_bytes(bytes([number]) * 100_000)
        packed.append(await here.pack(root))
        os.utime(packed[-1].path, (1000 + number, 1000 + number))

    assert left(here.store) == sorted(one.path.name for one in packed[2:])


async def test_what_died_at_work_is_swept_and_what_works_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "contents")
    async with store.scratch() as other, store.room() as begun:
        dead = store.directory / "part-dead"
        dead.mkdir()
        (dead / "x").write_text("x")
        for path in (other, begun, dead):
            os.utime(path, (1000, 1000))
        async with store.room():
            assert not dead.exists()
            assert other.exists()
            assert begun.exists()
    assert left(store) == []


async def test_a_scratch_directory_goes_however_deep_and_closed_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "contents")
    async with store.scratch() as scratch:
        subprocess.run(
            [
                "sh",
                "-c",
                'cd "$1"; n=0; while [ $n -lt 1500 ]; do mkdir d && cd -P d; n=$((n+1)); done; chmod 0 .',
                "x",
                scratch,
            ]
        )
    assert left(store) == []
