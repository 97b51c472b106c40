"""Rotation, checkpoints, retention: opening reads the newest segment only, and no number is lost or given twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nexcage import Checkpointed, Op, State, Succeeded, read_journal
from nexcage._core.events import Began
from nexcage._core.intents import Delete


def filled(desk, life, count: int = 40, **sizes: int):
    store = desk.open(segment_bytes=4000, **sizes)
    for n in range(count):
        desk.append(store, life.create(f"web-{n % 7}-{n}"), life.created(f"web-{n % 7}-{n}"))
    return store


def test_numbers_go_on_through_segments_and_checkpoints(desk, life):
    filled(desk, life)
    assert len(desk.files()) > 2
    numbers = [event.seq for event in read_journal(desk.path, strict=True)]
    assert numbers == list(range(1, len(numbers) + 1))
    for path in desk.files():
        assert next(iter(read_journal(path, strict=True))).seq == int(path.name[:20])


def test_opening_folds_the_newest_segment_to_the_same_machines(desk, life):
    store = filled(desk, life)
    for path in desk.files()[:-1]:
        path.write_bytes(b"nobody reads this\n")
    again = desk.open()
    assert again.machines == store.machines
    assert again.seq == store.seq
    assert again.damage == []


def test_another_driver_follows_through_a_rotation(desk, life):
    other = desk.open()
    mine = filled(desk, life)
    (event,) = desk.append(other, life.create("last"))
    assert event.seq == mine.seq + 1
    desk.append(mine, life.created("last"))
    assert other.machines.keys() == mine.machines.keys()
    assert not other.damage


def test_a_segment_smaller_than_the_fleet_does_not_rotate_at_every_commit(desk, life):
    store = filled(desk, life, count=60)
    count = len(desk.files())
    for n in range(10):
        desk.append(store, life.start(f"web-{n % 7}-{n}"))
    assert len(desk.files()) <= count + 1


def test_old_segments_go_by_size_and_by_age_and_never_the_newest(desk, life):
    store = filled(desk, life, keep_bytes=1)
    assert len(desk.files()) == 1
    machines = dict(store.machines)
    store.close()
    assert desk.open().machines == machines


def test_old_segments_go_by_age(desk, life):
    store = filled(desk, life, keep_seconds=100)
    before = desk.files()
    desk.now += 1000
    n = 100
    while len(desk.files()) >= len(before):
        desk.append(store, life.create(f"web-{n}"))
        n += 1
    # The one that was closed just now is as old as the clock says: new.
    assert [path.name for path in desk.files()][:-2] == []


def test_a_deleted_container_is_remembered_for_an_hour(desk, life):
    store = desk.open(segment_bytes=4000)
    desk.append(store, life.create("gone"), life.created("gone"))
    delete = Delete("gone")
    desk.append(
        store,
        lambda machines: machines["gone"].begin(delete, op_id="d1"),
        Succeeded(id="gone", op=Op.DELETE, op_id="d1", state=State.ABSENT),
    )
    n = 0
    while len(desk.files()) < 2:
        desk.append(store, life.create(f"web-{n}"))
        n += 1
    assert store.machines["gone"].outcome("d1") is not None
    assert desk.open().machines["gone"] == store.machines["gone"]
    other = desk.open()

    desk.now += 3601
    while len(desk.files()) < 3:
        desk.append(store, life.create(f"web-{n}"))
        n += 1

    assert "gone" not in store.machines
    assert "gone" not in desk.open().machines
    desk.append(other, life.create("more"))
    assert "gone" not in other.machines


def test_dying_while_a_segment_is_made_leaves_the_old_one_in_charge(desk, life):
    store = desk.open()
    desk.append(store, life.create("web-1"))
    store.close()
    (desk.path / f".{2:020d}.jsonl.new").write_bytes(b'{"event":"checkp')
    store = desk.open()
    assert store.seq == 1
    assert not list(desk.path.glob(".*.new"))
    desk.append(store, life.created("web-1"))


@pytest.mark.parametrize("what, skip", [("write", 0), ("sync", 0), ("sync", 1)])
def test_when_no_new_segment_can_be_made_the_old_one_goes_on(desk, life, faulty, caplog, what, skip):
    store = desk.open(disk=faulty, segment_bytes=300)
    desk.append(store, life.create("web-1"), life.created("web-1"))
    faulty.fail[what], faulty.skip[what] = 1, skip
    desk.append(store, life.create("web-2"), life.created("web-2"))
    assert len(desk.files()) == 1
    assert "going on with the old one" in caplog.text
    assert [event.seq for event in read_journal(desk.path, strict=True)] == [1, 2, 3, 4]


def test_reading_from_a_number_opens_only_the_segments_it_needs(desk, life):
    store = filled(desk, life)
    desk.files()[0].write_bytes(b"nobody reads this\n")
    since = int(desk.files()[1].name[:20])
    assert [event.seq for event in read_journal(desk.path, since=since, strict=True)] == list(
        range(since + 1, store.seq + 1)
    )
    assert list(read_journal(desk.path, since=store.seq)) == []


def test_every_segment_begins_with_every_machine(desk, life):
    filled(desk, life, count=10)
    events = list(read_journal(desk.files()[-1]))
    first = [event for event in events if isinstance(event, Checkpointed)]
    assert events[: len(first)] == first
    assert {event.id for event in first} <= {event.machine.id for event in first}
    assert not any(isinstance(event, Began) for event in events[: len(first)])


def test_a_line_is_json_for_everyone(desk, life):
    store = desk.open()
    desk.append(store, life.create("web-1"))
    (line,) = desk.files()[0].read_text().splitlines()
    fields = json.loads(line)
    assert (fields["event"], fields["seq"], fields["id"], len(fields["crc"])) == ("began", 1, "web-1", 8)


def test_damage_far_back_costs_the_present_nothing(desk, life):
    store = filled(desk, life)
    path: Path = desk.files()[0]
    path.write_bytes(path.read_bytes()[:-50])
    assert desk.open().machines == store.machines
    assert [event.seq for event in read_journal(desk.path)][-1] == store.seq


@pytest.mark.parametrize("python", [sys.executable])
def test_the_journal_module_says_nothing_when_it_is_imported(python):
    code = "import nexcage._sinks.journal, logging; logging.getLogger('nexcage').warning('quiet')"
    done = subprocess.run([python, "-c", code], capture_output=True, check=True)
    assert done.stdout + done.stderr == b""
