"""Cordoned nodes are files of the state directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nexcage import JournalError
from nexcage._sinks.cordons import Cordons
from nexcage._sinks.disk import Disk


class FullDisk(Disk):
    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        raise OSError(28, "No space left on device", name)


@pytest.mark.parametrize("key", ["pve-01", "root@pve-01.lan:2222", "[fe80::1%eth0]:22", "..", ".hidden", "we/ird", "ä"])
def test_any_key_comes_back_as_it_was(tmp_path: Path, key: str) -> None:
    one, other = Cordons(tmp_path), Cordons(tmp_path)
    assert other.nodes() == frozenset()
    assert (one.add(key), one.add(key)) == (True, False)
    assert other.nodes() == {key}
    assert (other.remove(key), other.remove(key)) == (True, False)
    assert one.nodes() == frozenset()
    assert os.listdir(tmp_path / "cordoned") == []


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    Cordons(tmp_path).add("pve-01")
    for path in (tmp_path / "cordoned", next((tmp_path / "cordoned").iterdir())):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_disk_that_takes_nothing_cordons_nothing_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot cordon pve-01: .*No space left"):
        Cordons(tmp_path, FullDisk()).add("pve-01")
    assert Cordons(tmp_path).nodes() == frozenset()


def test_what_cannot_be_read_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "cordoned").write_text("")
    with pytest.raises(JournalError, match="cannot tell which nodes are cordoned"):
        Cordons(tmp_path).nodes()
