"""The doctor finds every kind of damage, changes nothing while looking, and mends only what cannot go wrong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nexcage import JournalError, State
from nexcage._core.finding import Finding, wrong
from nexcage._sinks import doctor as doctor_module
from nexcage._sinks.disk import Disk
from nexcage._sinks.doctor import Examination, examine
from nexcage._sinks.mend import give_fleet, repair
from nexcage._sinks.owners import Ownership, fleet_id
from nexcage._sinks.statefile import StateFiles
from nexcage._sinks.store import Sizes, Store

Place = tuple[Path, Path]


@pytest.fixture
def place(tmp_path: Path, life) -> Place:
    """A state directory and a run directory in good order: three containers, one of them in a second segment."""
    state, run = tmp_path / "state", tmp_path / "run"
    with opened(state, run, segment_bytes=1) as store:
        write(store, life.create("web-1"), life.created("web-1"))
        write(store, life.create("web-2"), life.created("web-2", vmid=105), life.create("web-3"))
        write(store, life.created("web-3", vmid=106), life.start("web-3"), life.started("web-3"))
    return state, run


@contextmanager
def opened(state: Path, run: Path, **sizes: int) -> Iterator[Store]:
    store = Store(str(state / "journal"), disk=Disk(), clock=lambda: 1000.0, sizes=Sizes(**sizes))
    state.mkdir(mode=0o700, exist_ok=True)

    def begin() -> None:
        files = StateFiles(Disk(), str(run), fleet_id(Disk(), str(state), "f1"))
        store.project = files.project

    store.open(begin)
    yield store
    store.close()


def write(store: Store, *drafts: object) -> None:
    from nexcage._sinks.store import Call

    call = Call(drafts)  # type: ignore[arg-type]
    store.commit([call])
    assert call.error is None, call.error


def newest(state: Path) -> Path:
    return max((state / "journal").glob("*.jsonl"))


def oldest(state: Path) -> Path:
    return min((state / "journal").glob("*.jsonl"))


def snapshot(place: Place) -> dict[str, tuple[int, str]]:
    """Every path below both directories with its mode and what is in it."""
    found = {}
    for top in place:
        for path in [top, *top.rglob("*")]:
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (path.lstat().st_mode, hashlib.sha256(data).hexdigest())
    return found


def bad(examination: Examination) -> list[tuple[str, str]]:
    return [(finding.severity, finding.what) for finding in examination.findings if wrong(finding)]


def of(examination: Examination, what: str) -> Finding:
    (found,) = [finding for finding in examination.findings if finding.what == what]
    return found


def test_a_directory_in_good_order_has_nothing_wrong_and_is_not_changed(place: Place) -> None:
    before = snapshot(place)
    found = examine(*place, fleet="f1")
    assert bad(found) == []
    assert found.fleet == "f1"
    assert {id: machine.state for id, machine in found.machines.items()} == {
        "web-1": State.CREATED,
        "web-2": State.CREATED,
        "web-3": State.RUNNING,
    }
    assert snapshot(place) == before


def test_what_is_not_there_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    found = examine(tmp_path / "state", tmp_path / "run")
    assert bad(found) == []
    assert found.findings
    repair(tmp_path / "state", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# ---- the journal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "said"),
    [(b'{"event":"beg', "no whole record"), (b"\0" * 5000, "only zeros"), (b"\xff\xfe\n\n", "no whole")],
)
def test_a_torn_tail_is_found_and_cut_with_the_evidence_kept(place: Place, tail: bytes, said: str) -> None:
    state, _ = place
    whole = newest(state).read_bytes()
    newest(state).write_bytes(whole + tail)
    before = snapshot(place)

    assert bad(examine(*place)) == [("warning", "torn tail")]
    assert said in of(examine(*place), "torn tail").why
    assert snapshot(place) == before

    mended = repair(*place)
    assert bad(mended) == []
    assert [finding.what for finding in mended.findings if finding.mended] == ["torn tail"]
    assert newest(state).read_bytes() == whole
    assert [path.read_bytes() for path in (state / "journal").glob("*.torn-*")] == [tail]
    assert of(mended, "evidence").severity == "note"
    assert bad(repair(*place)) == []


def flip(path: Path, number: int) -> None:
    """A flipped bit in the middle of a line of a segment."""
    lines = path.read_bytes().splitlines(keepends=True)
    middle = lines[number].index(b'"at"') + 6
    lines[number] = lines[number][:middle] + bytes([lines[number][middle] ^ 1]) + lines[number][middle + 1 :]
    path.write_bytes(b"".join(lines))


def test_a_bad_checksum_names_the_container_that_it_sets_aside(place: Place) -> None:
    state, _ = place
    flip(newest(state), -1)
    found = examine(*place)
    assert ("error", "set aside") in bad(found)
    assert ("error", "damage") not in bad(found)
    assert "web-3" in of(found, "damage").why
    aside = of(found, "set aside")
    assert (aside.severity, aside.id, aside.repairable) == ("error", "web-3", True)
    assert "checksum" in aside.why
    assert set(found.aside) == {"web-3"}
    assert ("error", "set aside") in bad(repair(*place))  # files alone cannot tell what is so


def test_a_bad_record_of_nobody_knows_whom_is_an_error(place: Place) -> None:
    state, _ = place
    lines = newest(state).read_bytes().splitlines(keepends=True)
    newest(state).write_bytes(b"".join([*lines[:-1], b"garbage\n", lines[-1]]))
    assert bad(examine(*place)) == [("error", "damage")]


def test_damage_in_an_old_segment_has_cost_history_only(place: Place) -> None:
    state, _ = place
    flip(oldest(state), 1)
    found = examine(*place)
    assert bad(found) == []
    assert of(found, "damage").severity == "note"


def test_a_segment_that_is_missing_is_told(place: Place) -> None:
    state, _ = place
    names = sorted((state / "journal").glob("*.jsonl"))
    assert len(names) > 2
    names[1].unlink()
    assert "records" in of(examine(*place), "gap").why


def test_a_record_that_is_missing_in_the_newest_segment_is_an_error(place: Place) -> None:
    state, _ = place
    lines = newest(state).read_bytes().splitlines(keepends=True)
    newest(state).write_bytes(b"".join([*lines[:-2], lines[-1]]))
    assert ("error", "gap") in bad(examine(*place))


def test_a_checkpoint_that_forgets_or_changes_a_container_is_an_error(place: Place) -> None:
    from nexcage import Checkpointed
    from nexcage._sinks.segments import line_of, records

    state, _ = place
    data = newest(state).read_bytes()
    events = [record.event for record in records(lambda size, at: data[at : at + size])]
    kept = [event for event in events if not (isinstance(event, Checkpointed) and event.id == "web-1")]
    assert len(kept) == len(events) - 1
    newest(state).write_bytes(b"".join(line_of(event)[1] for event in kept if event is not None))
    assert ("error", "checkpoint") in bad(examine(*place))


def test_a_quarantine_that_cannot_be_read_is_an_error(place: Place) -> None:
    state, _ = place
    (state / "journal" / "quarantine.json").write_text("[")
    os.chmod(state / "journal" / "quarantine.json", 0o600)
    assert bad(examine(*place)) == [("error", "quarantine")]


def test_a_record_of_a_newer_version_is_a_note(place: Place) -> None:
    import zlib

    state, _ = place
    seq = examine(*place).machines["web-3"].seq
    body = b'{"event":"teleported","seq":%d,"at":1.0,"id":"web-3"}' % (seq + 1)
    with newest(state).open("ab") as file:
        file.write(b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body)))
    found = examine(*place)
    assert bad(found) == []
    assert of(found, "unknown record").severity == "note"


def test_a_lock_that_is_never_let_go_names_its_holder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(doctor_module, "PATIENCE", 0.05)
    with (place[0] / "journal" / "lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = examine(*place)
        assert str(os.getpid()) in of(found, "state directory").why
        assert not found.readable
        assert bad(repair(*place)) == bad(found)


# ---- whose it is -------------------------------------------------------------------------------------------------------------


def test_a_lost_fleet_id_is_an_error_and_is_never_made_up(place: Place) -> None:
    (place[0] / "fleet").unlink()
    assert bad(examine(*place)) == [("error", "fleet id")]
    assert ("error", "fleet id") in bad(repair(*place))
    assert not (place[0] / "fleet").exists()


@pytest.mark.parametrize(("text", "configured"), [("no id!\n", ""), ("", ""), ("f1\n", "f2")])
def test_a_fleet_id_that_is_none_or_another_is_an_error(place: Place, text: str, configured: str) -> None:
    (place[0] / "fleet").write_text(text)
    assert ("error", "fleet id") in bad(examine(*place, fleet=configured))


def test_drivers_are_alive_or_dead_and_the_dead_ones_operations_are_named(place: Place, life) -> None:
    state, run = place
    with opened(state, run) as store:
        write(store, life.start("web-1"))  # by "me", who has no file
        write(store, life.start("web-2", "s2"))
    alive = Ownership(Disk(), str(state), "living", 1000.0)
    gone = Ownership(Disk(), str(state), "gone", 1000.0)
    os.close(gone._fd)
    try:
        said = {Path(f.where).name: f for f in examine(*place).findings if f.what == "driver"}
        assert {name: finding.severity for name, finding in said.items()} == {
            "living": "ok",
            "gone": "note",
            "me": "warning",
        }
        assert "start of 'web-1', start of 'web-2'" in said["me"].why
        assert "nexcage reconcile web-1 web-2" in said["me"].fix

        repair(*place)
        assert [path.name for path in (state / "owners").iterdir()] == ["living"]
    finally:
        alive.release()


def test_a_lease_is_read_and_a_broken_one_told(place: Place) -> None:
    path = place[0] / "lease"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"fleet": "f1", "holder": "abc", "epoch": 3}))
    assert of(examine(*place), "lease").severity == "ok"
    for text in ("", "[]", '{"fleet":"f1"}', '{"fleet":"other","epoch":3}'):
        path.write_text(text)
        assert bad(examine(*place)) == [("error", "lease")]


# ---- premises ----------------------------------------------------------------------------------------------------------------


def test_what_others_may_read_is_closed(place: Place) -> None:
    state, run = place
    open_ones = [state / "fleet", state / "journal", newest(state), run / "web-1", run / "web-1" / "state.json"]
    for path in open_ones:
        path.chmod(0o755)
    assert [Path(f.where) for f in examine(*place).findings if f.what == "mode"] == open_ones
    mended = repair(*place)
    assert bad(mended) == []
    assert [path.stat().st_mode & 0o7777 for path in open_ones] == [0o600, 0o700, 0o600, 0o700, 0o600]


def test_a_directory_that_is_not_only_ours_keeps_its_mode(place: Place) -> None:
    (place[0] / "diary.txt").touch()
    place[0].chmod(0o777)
    assert not of(examine(*place), "mode").repairable
    repair(*place)
    assert place[0].stat().st_mode & 0o777 == 0o777


def test_a_link_in_place_of_a_file_is_told_and_not_followed(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("{}")
    target.chmod(0o644)
    (place[1] / "web-1" / "state.json").unlink()
    (place[1] / "web-1" / "state.json").symlink_to(target)
    assert ("error", "link") in bad(examine(*place))
    repair(*place)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("{}", 0o644)


def test_files_of_dead_writers_are_removed(place: Place) -> None:
    state, run = place
    left = [state / ".fleet.new", state / "journal" / ".quarantine.json.new", run / "web-1" / ".state.json.new"]
    left += [run / ".fleet.new", state / "owners" / ".somebody"]
    (state / "owners").mkdir(mode=0o700)
    for path in left:
        path.touch(mode=0o600)
    assert {f.where for f in examine(*place).findings if f.what == "temporary file"} == {str(path) for path in left}
    mended = repair(*place)
    assert not any(path.exists() for path in left)
    assert sum(finding.mended for finding in mended.findings) == len(left)


def unparsable(run: Path) -> None:
    (run / "web-1" / "state.json").write_text('{"ociVersion":')


def outdated(run: Path) -> None:
    (run / "web-1" / "state.json").write_bytes((run / "web-3" / "state.json").read_bytes())


def missing(run: Path) -> None:
    (run / "web-1" / "state.json").unlink()


def nobodys(run: Path) -> None:
    (run / "ghost").mkdir(mode=0o700)
    (run / "ghost" / "state.json").touch(mode=0o600)


@pytest.mark.parametrize("break_it", [unparsable, outdated, missing, nobodys])
def test_state_files_are_made_again(place: Place, break_it: Callable[[Path], None]) -> None:
    good = snapshot(place)
    break_it(place[1])
    assert [what for _, what in bad(examine(*place))] == ["state file"]
    assert bad(repair(*place)) == []
    assert snapshot(place) == good


def test_a_run_directory_of_another_fleet_is_left_alone(place: Place) -> None:
    (place[1] / ".fleet").write_text("other\n")
    (place[1] / "web-1" / "state.json").write_text("theirs")
    assert bad(examine(*place)) == [("error", "run directory")]
    repair(*place)
    assert (place[1] / "web-1" / "state.json").read_text() == "theirs"


def test_strangers_are_left_where_they_are(place: Place) -> None:
    (place[1] / "readme").touch(mode=0o600)
    (place[0] / "journal" / "backup.tar").touch(mode=0o600)
    assert bad(repair(*place)) == []
    assert (place[1] / "readme").exists()
    assert (place[0] / "journal" / "backup.tar").exists()


# ---- dying while mending -----------------------------------------------------------------------------------------------------


class Died(BaseException):
    pass


class Dying(Disk):
    """Dies before its n-th change, and stays dead."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __getattribute__(self, name: str):
        if name in ("write", "sync", "truncate", "rename", "unlink", "mkdir", "rmdir", "utime"):
            self.left -= 1
            if self.left < 0:
                raise Died
        return super().__getattribute__(name)


def test_dying_anywhere_while_mending_leaves_what_is_mended_next_time(place: Place) -> None:
    state, run = place
    good = snapshot(place)
    died = 0
    for point in range(200):
        with newest(state).open("ab") as file:
            file.write(b'{"event":"beg')
        (run / "web-2" / "state.json").write_text("{")
        (state / ".fleet.new").touch(mode=0o600)
        nobodys(run)
        try:
            repair(*place, disk=Dying(point))
        except Died:
            died += 1
        assert bad(repair(*place)) == []
        for evidence in (state / "journal").glob("*.torn-*"):
            evidence.unlink()
        assert snapshot(place) == good
        nobodys_dir = run / "ghost"
        assert not nobodys_dir.exists()
        if died != point + 1:
            break
    assert 5 < died < 200


# ---- another fleet's id ------------------------------------------------------------------------------------------------------


def test_an_id_is_given_only_to_a_directory_that_knows_no_containers(place: Place, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="knows 3 containers"):
        give_fleet(*place, "f2")
    fresh, run = tmp_path / "fresh", tmp_path / "fresh-run"
    with opened(fresh, run):
        pass
    living = Ownership(Disk(), str(fresh), "living", 1000.0)
    try:
        with pytest.raises(JournalError, match="driver"):
            give_fleet(fresh, run, "f2")
    finally:
        living.release()
    for _ in range(2):
        give_fleet(fresh, run, "f2")
        assert (fresh / "fleet").read_text() == "f2\n"
        assert not (run / ".fleet").exists()
