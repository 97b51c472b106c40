"""Files go in and come out whole, with their mode and owner, or not at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import nexcage
from tests.inside.conftest import Inside

WAYS = ("memory", "asyncssh", "runner", "sshd-exec", "lxc")
DATA = random.Random(7).randbytes(5 << 20)


async def test_a_file_goes_in_and_comes_out_the_same(inside: Inside, tmp_path: Path) -> None:
    local = tmp_path / "local file"
    local.write_bytes(DATA)
    local.chmod(0o640)

    pushed = await inside.web.push(local, "/etc/a file", owner="1000:1000")
    pulled = await inside.web.pull("/etc/a file", tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == DATA
    assert (pushed.size, pushed.sha256) == (pulled.size, pulled.sha256)
    assert (pulled.mode, pulled.uid, pulled.gid) == (0o640, 1000, 1000)
    assert (tmp_path / "back").stat().st_mode & 0o7777 == 0o640


async def test_bytes_take_the_place_of_what_was_there(inside: Inside) -> None:
    await inside.web.push(b"one\n", "/etc/motd", mode=0o600)
    await inside.web.push(b"two\n", "/etc/motd", mode=0o4755)

    assert (await inside.web.exec(["cat", "/etc/motd"])).stdout == b"two\n"
    assert (await inside.web.exec(["stat", "-c", "%a %u %g", "/etc/motd"])).stdout == b"4755 0 0\n"


@pytest.mark.parametrize("path", ["/no/such/directory/x", "/etc"])
async def test_what_cannot_be_written_is_an_error_and_leaves_nothing(inside: Inside, path: str) -> None:
    before = inside.fleet.seq
    with pytest.raises(nexcage.NexcageError) as error:
        await inside.web.push(b"x", path)

    assert not error.value.uncertain
    assert inside.web.machine.beside == ()
    began, failed = inside.since(before)
    assert isinstance(began, nexcage.Began)
    assert isinstance(failed, nexcage.Failed)
    assert failed.op is nexcage.Op.PUSH


async def test_a_file_that_is_not_there_is_said_so_and_none_is_made(inside: Inside, tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()

    for path in ("/etc/no-such-file", "/etc"):
        with pytest.raises(nexcage.InvalidPath, match=path):
            await inside.web.pull(path, folder / "x")

    assert list(folder.iterdir()) == []


async def test_a_pull_replaces_the_local_file_only_when_it_is_whole(inside: Inside, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_bytes(b"before")
    with pytest.raises(nexcage.InvalidPath):
        await inside.web.pull("/etc/no-such-file", target)
    assert target.read_bytes() == b"before"

    await inside.web.push(b"after", "/etc/x")
    await inside.web.pull("/etc/x", target, mode=0o600)

    assert target.read_bytes() == b"after"
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["etc/x", "/etc/", "/x\0y", ""])
async def test_paths_are_checked_before_anything_runs(inside: Inside, path: str, tmp_path: Path) -> None:
    before = inside.fleet.seq
    with pytest.raises(nexcage.InvalidPath):
        await inside.web.push(b"x", path)
    with pytest.raises(nexcage.InvalidPath):
        await inside.web.pull(path, tmp_path / "x")
    assert inside.fleet.seq == before


async def test_a_pulled_file_makes_nobody_here_another_user(inside: Inside, tmp_path: Path) -> None:
    await inside.web.push(b"#!/bin/sh\n", "/root/tool", mode=0o6755)

    pulled = await inside.web.pull("/root/tool", tmp_path / "tool")
    await inside.web.pull("/root/tool", tmp_path / "asked", mode=0o4755)

    assert pulled.mode == 0o6755
    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "asked").stat().st_mode & 0o7777 == 0o4755
