"""What damage costs: itself, at most its container."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nexcage import JournalError, NexcageError, State, read_journal
from nexcage._sinks.disk import Disk
from nexcage._sinks.segments import LONGEST, line_of
from nexcage._sinks.store import Call, Sizes, Store


def three(desk, life) -> bytes:
    """A journal of three containers; its bytes."""
    store = desk.open()
    desk.append(store, life.create("web-1"), life.create("web-2"), life.create("web-3"))
    desk.append(store, life.created("web-1"), life.created("web-2"))
    store.close()
    return desk.files()[0].read_bytes()


def test_a_record_torn_at_any_byte_is_cut_and_kept_beside(desk, life):
    whole = three(desk, life)
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path = desk.files()[0]

    for end in range(last + 1, len(whole) - 1):
        for old in desk.path.glob("*.torn-*"):
            old.unlink()
        path.write_bytes(whole[:end])

        store = desk.open()

        assert path.read_bytes() == whole[:last]
        assert store.machines["web-2"].state is State.CREATING
        assert store.machines["web-1"].state is State.CREATED
        assert store.quarantined == {}
        assert [kept.read_bytes() for kept in desk.path.glob("*.torn-*")] == [whole[last:end]]
        assert store.seq == 4
        (event,) = desk.append(store, life.created("web-2"))
        assert event.seq == 5
        store.close()
        path.write_bytes(whole)


def test_a_record_that_lacks_only_its_newline_is_whole(desk, life):
    whole = three(desk, life)
    desk.files()[0].write_bytes(whole[:-1])

    store = desk.open()
    assert store.machines["web-2"].state is State.CREATED
    desk.append(store, life.created("web-3"))

    assert [event.seq for event in read_journal(desk.path, strict=True)] == [1, 2, 3, 4, 5, 6]
    assert desk.files()[0].read_bytes().startswith(whole)


def test_evidence_of_two_accidents_in_one_second_is_kept_twice(desk, life):
    whole = three(desk, life)
    for _ in range(2):
        desk.files()[0].write_bytes(whole + b'{"event":"beg')
        desk.open().close()
    assert len(list(desk.path.glob("*.torn-*"))) == 2


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, b"\0" * 100 + b"\n", b"garbage\nmore", b"{}\n", b"\xff\xfe\n\n\n", b"[1]\n"]
)
def test_a_tail_that_is_no_record_is_cut(desk, life, tail):
    whole = three(desk, life)
    desk.files()[0].write_bytes(whole + tail)
    store = desk.open()
    assert store.seq == 5
    assert store.quarantined == {}
    desk.append(store, life.created("web-3"))
    assert [event.seq for event in read_journal(desk.path, strict=True)] == [1, 2, 3, 4, 5, 6]


def test_a_flipped_bit_sets_its_container_aside_and_no_other(desk, life):
    whole = three(desk, life)
    lines = whole.splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"owner":"me"', b'"owner":"mf"')  # the Began of web-2
    desk.files()[0].write_bytes(b"".join(lines))

    store = desk.open()

    assert set(store.quarantined) == {"web-2"}
    assert store.machines["web-1"].state is State.CREATED
    assert store.seq == 5
    desk.append(store, life.created("web-3"))
    with pytest.raises(JournalError, match=r"'web-2'.*nexcage doctor"):
        desk.append(store, life.start("web-2"))


def test_a_flipped_bit_in_the_last_record_does_not_forget_it(desk, life):
    whole = three(desk, life)
    desk.files()[0].write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    store = desk.open()
    assert set(store.quarantined) == {"web-2"}
    assert store.seq == 5
    assert not list(desk.path.glob("*.torn-*"))


def test_a_record_that_cannot_follow_sets_its_container_aside(desk, life):
    whole = three(desk, life)
    _, line = line_of(msgspec.structs.replace(life.started("web-1"), seq=6))
    desk.files()[0].write_bytes(whole + line)
    store = desk.open()
    assert set(store.quarantined) == {"web-1"}
    assert store.machines["web-1"].state is State.CREATED
    desk.append(store, life.created("web-3"))


def test_a_bad_record_of_nobody_is_reported_and_costs_nobody_anything(desk, life):
    lines = three(desk, life).splitlines(keepends=True)
    lines.insert(2, b'who wrote this, and "why"?\n')
    desk.files()[0].write_bytes(b"".join(lines))
    store = desk.open()
    assert store.quarantined == {}
    assert len(store.damage) == 1
    assert "byte" in store.damage[0]
    assert store.machines["web-2"].state is State.CREATED
    desk.append(store, life.created("web-3"))


def test_missing_records_are_named(desk, life):
    lines = three(desk, life).splitlines(keepends=True)
    desk.files()[0].write_bytes(b"".join(lines[:2] + lines[3:]))
    store = desk.open()
    assert store.damage[0].startswith("records 3 to 3 are missing")
    assert "web-3" not in store.machines
    with pytest.raises(JournalError, match="3 to 3 are missing"):
        list(read_journal(desk.path, strict=True))
    assert [event.seq for event in read_journal(desk.path)] == [1, 2, 4, 5]


def test_a_record_of_a_newer_version_is_skipped_and_reported(desk, life):
    whole = three(desk, life)
    path = desk.files()[0]
    path.write_bytes(whole + with_crc(b'{"event":"teleported","seq":6,"at":1.0,"id":"web-1","to":"mars"}'))
    store = desk.open()
    assert store.quarantined == {}
    assert "kind that this version does not know" in store.damage[0]
    assert store.seq == 6
    assert desk.append(store, life.created("web-3"))[0].seq == 7
    assert [event.seq for event in read_journal(desk.path)] == [1, 2, 3, 4, 5, 7]


def test_fields_of_a_newer_version_are_ignored(desk, life):
    lines = three(desk, life).splitlines()
    body = lines[-1][: lines[-1].rindex(b',"crc"')] + b',"colour":{"of":["sky"]}}'
    desk.files()[0].write_bytes(b"\n".join(lines[:-1]) + b"\n" + with_crc(body))
    store = desk.open()
    assert store.damage == []
    assert store.machines["web-2"].state is State.CREATED


def test_a_line_without_end_is_neither_loaded_nor_believed(desk, life):
    whole = three(desk, life)
    first, rest = whole.split(b"\n", 1)
    huge = b'{"event":"observed","id":"web-2","x":"' + b"x" * (LONGEST + 1000) + b"\n"
    desk.files()[0].write_bytes(first + b"\n" + huge + rest)
    store = desk.open()
    assert [note for note in store.damage if "longer than" in note]
    assert store.machines["web-2"].state is State.CREATED
    assert [event.seq for event in read_journal(desk.path)] == [1, 2, 3, 4, 5]


def test_an_empty_file_is_an_empty_journal(desk, life):
    desk.path.mkdir()
    (desk.path / "00000000000000000001.jsonl").touch()
    store = desk.open()
    assert store.seq == 0
    assert desk.append(store, life.create("web-1"))[0].seq == 1
    assert [event.seq for event in read_journal(desk.path, strict=True)] == [1]


def test_a_container_that_was_set_aside_stays_so_in_the_next_segment(desk, life):
    lines = three(desk, life).splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"owner":"me"', b'"owner":"mf"')
    desk.files()[0].write_bytes(b"".join(lines))
    store = desk.open(segment_bytes=100)
    desk.append(store, life.created("web-3"))
    store.close()
    assert len(desk.files()) == 2

    store = desk.open()

    assert "web-2" in store.quarantined
    assert "web-2" in store.machines
    with pytest.raises(JournalError, match="doctor"):
        desk.append(store, life.start("web-2"))


def test_what_cannot_be_read_is_named_as_ours(tmp_path):
    with pytest.raises(JournalError, match="cannot read the journal"):
        read_journal(tmp_path / "nothing")


def with_crc(body: bytes) -> bytes:
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


class Quick(Disk):
    def sync(self, fd: int) -> None:
        pass


def reopened(folder: Path) -> Store:
    store = Store(str(folder), disk=Quick(), clock=lambda: 5.0, sizes=Sizes())
    store.open()
    return store


PIECES = [b"{", b"}", b"\n", b'"seq":1', b"\0", b'"id":"a"', b',"crc":"00000000"}']


@given(data=st.binary(max_size=400) | st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join))
@example(b"\n")
@example(b'{"event":"began","seq":99999999999999999999}\n')
@example(b"[" * 5000 + b"\n")
@example(with_crc(b'{"event":"nodefound","seq":-5,"node":"x"}'))
@example(with_crc(b"{" + b'"a":{' * 3000 + b"}" * 3001))
@example(with_crc(b'{"event":"nodefound","seq":"1","node":"x"}'))
def test_no_bytes_make_reading_raise_anything_but_our_errors(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any") / "journal"
    folder.mkdir()
    (folder / "00000000000000000001.jsonl").write_bytes(data)
    list(read_journal(folder))
    with contextlib.suppress(NexcageError):
        list(read_journal(folder, strict=True))
    reopened(folder).close()
    shutil.rmtree(folder)


EDIT = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "drop"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=9)
)


def damaged(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for how, where, what in edits:
        at = where % (len(data) or 1)
        match how:
            case "flip":
                data = data[:at] + bytes([data[at] ^ (what[0] or 1)]) + data[at + 1 :] if data else data
            case "cut":
                data = data[:at]
            case "insert":
                data = data[:at] + what + data[at:]
            case _:
                data = data[:at] + data[at + len(what) :]
    return data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_after_any_damage_other_containers_go_on_and_every_opening_sees_the_same(life, tmp_path_factory, edits):
    folder = tmp_path_factory.mktemp("any") / "journal"
    store = reopened(folder)
    append(store, life.create("web-1"), life.created("web-1"), life.create("web-2"), life.created("web-2"))
    store.close()
    path = folder / "00000000000000000001.jsonl"
    path.write_bytes(damaged(path.read_bytes(), edits))

    store = reopened(folder)
    (event,) = append(store, life.create("new-1"))
    store.close()
    again = reopened(folder)

    assert again.machines == store.machines
    assert again.quarantined == store.quarantined
    assert again.seq == store.seq == event.seq
    assert list(read_journal(folder))[-1] == event
    again.close()
    shutil.rmtree(folder)


def append(store: Store, *drafts: object):
    call = Call(drafts)  # type: ignore[arg-type]
    store.commit([call])
    if call.error is not None:
        raise call.error
    return call.events
