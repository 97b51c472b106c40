"""Layers are judged by their bytes alone, in whatever pieces they come: what is made to do harm is refused, what images hold is not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import InvalidImage, InvalidInput
from nexcage._core.archive import BadArchive, Entry, Reader
from nexcage._core.layers import Bounds, Layer, Tally


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(data: bytes, pieces: Iterable[int] = ()) -> list[Entry]:
    reader, found, at = Reader(), [], 0
    for piece in pieces:
        found += reader.feed(data[at : at + piece])
        at += piece
    found += reader.feed(data[at:])
    reader.end()
    return found


def judge(data: bytes, bounds: Bounds | None = None) -> Tally:
    tally = Tally(bounds or Bounds())
    layer = Layer(tally, "layer 1 of 1")
    layer.feed(data)
    layer.end()
    return tally


USUAL = [
    member("./", tarfile.DIRTYPE),
    member("bin/busybox", data=b"x" * 1000, mode=0o4755),
    member("bin/sh", tarfile.SYMTYPE, linkname="/bin/busybox"),
    member("bin/ls", tarfile.LNKTYPE, linkname="bin/busybox"),
    member("etc/mtab", tarfile.SYMTYPE, linkname="../proc/self/mounts"),
    member("var/run", tarfile.SYMTYPE, linkname="/run"),
    member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    member("run/initctl", tarfile.FIFOTYPE),
    member("etc/.wh.motd"),
    member("srv/.wh..wh..opq"),
    member("usr/share/..data", data=b"."),
    member("e\N{COMBINING ACUTE ACCENT}/" + "long/" * 60 + "name", data=b"1"),
]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_images_hold_is_read_as_other_programs_read_it(format: int) -> None:
    data = archive(*USUAL, format=format)

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        known = [(info.name, info.size, info.offset_data) for info in tar]
    assert [(one.name.decode().rstrip("/") or ".", one.size, one.at) for one in read(data)] == known
    assert judge(data).entries == len(USUAL)


@given(st.lists(st.integers(1, 3000), max_size=30))
def test_the_pieces_in_which_it_comes_do_not_matter(pieces: list[int]) -> None:
    data = archive(*USUAL)
    assert read(data, pieces) == read(data)


@pytest.mark.parametrize("left", [1000, 1001, 1023, 1024, 1536])
def test_what_stands_behind_the_last_entry_may_be_missing(left: int) -> None:
    assert [one.name for one in read(archive(member("x", data=b"y" * 1000))[: 512 + left])] == [b"x"]


HARM = {
    "../../etc/cron.d/x": member("../../etc/cron.d/x", data=b"x"),
    "inner ..": member("a/../../x", data=b"x"),
    "absolute": member("/etc/passwd", data=b"x"),
    "hard link out": member("x", tarfile.LNKTYPE, linkname="../../etc/shadow"),
    "absolute hard link": member("x", tarfile.LNKTYPE, linkname="/etc/shadow"),
    "symbolic link out": member("x", tarfile.SYMTYPE, linkname="../etc"),
    "deep symbolic link out": member("a/b/x", tarfile.SYMTYPE, linkname="../../../etc"),
    "block device": member("dev/sda", tarfile.BLKTYPE, devmajor=8, devminor=0),
    "memory": member("dev/mem", tarfile.CHRTYPE, devmajor=1, devminor=1),
    "null elsewhere": member("etc/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "mem as null": member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=1),
    "bare whiteout": member("a/.wh."),
    "whiteout of itself": member("a/.wh.."),
    "whiteout of the parent": member("a/.wh..."),
    "long component": member("a/" + "b" * 256),
    "long path": member("/".join(["d" * 200] * 21)),
    "deep path": member("d/" * 600 + "x"),
    "unknown kind": member("x", b"Z"),
}


@pytest.mark.parametrize("name", HARM)
def test_what_is_made_to_do_harm_is_refused_with_the_layer_and_the_entry(name: str) -> None:
    with pytest.raises(InvalidImage, match=r"^invalid image: layer 1 of 1: ") as refused:
        judge(archive(member("fine", data=b"1"), HARM[name]))
    assert refused.value.where == "layer 1 of 1"


def test_an_entry_behind_a_link_of_the_same_layer_is_refused() -> None:
    with pytest.raises(InvalidImage, match="behind a symbolic link of the same layer"):
        judge(archive(member("x", tarfile.SYMTYPE, linkname="/etc"), member("x/y/passwd", data=b"x")))


def test_a_link_in_a_lower_layer_is_no_harm() -> None:
    tally = Tally(Bounds())
    for data in (
        archive(member("var/run", tarfile.SYMTYPE, linkname="/run")),
        archive(member("var/run/lock", tarfile.DIRTYPE)),
    ):
        Layer(tally, "layer").feed(data)
    assert tally.entries == 2


def test_bombs_are_refused_by_size_by_holes_and_by_number() -> None:
    with pytest.raises(InvalidImage, match=r"more than 0\.000977 GiB"):
        judge(archive(member("zeros", data=bytes(3 << 20))), Bounds(size=1 << 20))
    hole = member("hole", pax_headers={"GNU.sparse.realsize": str(1 << 40), "GNU.sparse.major": "1"})
    with pytest.raises(InvalidImage, match="more than 64 GiB"):
        judge(archive(hole))
    with pytest.raises(InvalidImage, match="more than 10 entries"):
        judge(archive(*(member(f"f{n}") for n in range(11))), Bounds(entries=10))


def test_what_goes_on_behind_the_end_counts_too() -> None:
    tally = Tally(Bounds(size=1 << 20))
    layer = Layer(tally, "layer")
    layer.feed(archive(member("x")))
    with pytest.raises(InvalidImage, match="GiB when unpacked"):
        for _ in range(4):
            layer.feed(bytes(1 << 20))


def test_headers_cannot_make_us_read_without_end() -> None:
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(BadArchive, match="larger than anything needs"):
        read(huge.tobuf(tarfile.GNU_FORMAT))
    many = tarfile.TarInfo("x")
    many.type, many.size = tarfile.GNUTYPE_LONGNAME, 512
    with pytest.raises(BadArchive, match="larger than anything needs"):
        read((many.tobuf() + b"n" * 512) * 20)


@pytest.mark.parametrize("cut", [100, 511, 513, 700, 1511, 1540, 3000])
def test_a_cut_archive_is_told(cut: int) -> None:
    with pytest.raises(BadArchive):
        read(archive(member("x", data=b"y" * 1000), member("z", data=b"y" * 1000))[:cut])


@given(st.binary(max_size=2000), st.integers(0, 1500), st.binary(min_size=1, max_size=8))
def test_random_bytes_raise_nothing_but_our_errors(noise: bytes, at: int, change: bytes) -> None:
    whole = archive(*USUAL)
    for data in (noise, whole[:at] + change + whole[at + len(change) :]):
        try:
            judge(data)
        except InvalidInput:
            continue
