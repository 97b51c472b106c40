"""state.json: a projection that always parses, or is absent."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat

import msgspec
import pytest

import nexcage
from nexcage import Attempted, JournalError, Machine, Op, State, Succeeded
from nexcage._core.intents import Delete
from nexcage._sinks.disk import Disk
from nexcage._sinks.journal import open_journal
from nexcage._sinks.statefile import StateFiles, read_state


@pytest.fixture
def files(tmp_path, quick):
    made = StateFiles(quick, str(tmp_path / "run"), "blue")
    yield made
    made.close()


def machine(id: str = "web-1", state: State = State.RUNNING, **more: object) -> Machine:
    return Machine(id, state=state, was=state, seq=7, pid=4194400, node="pve-01", vmid=104, **more)  # type: ignore[arg-type]


async def test_every_change_is_in_the_file_when_append_returns(tmp_path, life):
    run = tmp_path / "run"
    async with open_journal(tmp_path / "state", owner="one", run_dir=run) as journal:
        await journal.append(life.create("web-1"))
        assert read_state(run, "web-1").status == "creating"
        await journal.append(life.created("web-1"), life.start("web-1"), life.started("web-1"))
        document = json.loads((run / "web-1" / "state.json").read_text())
        assert (document["status"], document["pid"], document["bundle"]) == ("running", 4194400, str(run / "web-1"))
        assert document["annotations"]["org.nexcage.op"] == journal.machines["web-1"].done[-1].op_id


async def test_what_does_not_show_in_the_file_does_not_write_it_again(tmp_path, life):
    run = tmp_path / "run"
    async with open_journal(tmp_path / "state", owner="one", run_dir=run) as journal:
        begun, *_ = await journal.append(life.create("web-1"))
        written = (run / "web-1" / "state.json").stat()
        await journal.append(Attempted(id="web-1", op=Op.CREATE, op_id=begun.op_id, step=1, tool="pct"))
        assert (run / "web-1" / "state.json").stat().st_ino == written.st_ino
        await journal.append(
            Attempted(id="web-1", op=Op.CREATE, op_id=begun.op_id, step=2, tool="pct", tries={"vmid": 104})
        )
        assert read_state(run, "web-1").annotations["org.nexcage.vmid"] == "104"


async def test_a_deleted_container_takes_its_directory_along(tmp_path, life):
    run = tmp_path / "run"
    async with open_journal(tmp_path / "state", owner="one", run_dir=run) as journal:
        await journal.append(life.create("web-1"), life.created("web-1"))
        await journal.append(
            lambda machines: machines["web-1"].begin(Delete("web-1"), op_id="d"),
            Succeeded(id="web-1", op=Op.DELETE, op_id="d", state=State.ABSENT),
        )
    assert read_state(run, "web-1") is None
    assert os.listdir(run) == [".fleet"]


async def test_what_was_deleted_damaged_or_left_over_is_made_right_by_the_next_opening(tmp_path, life):
    run = tmp_path / "run"
    async with open_journal(tmp_path / "state", owner="one", run_dir=run) as journal:
        for n in range(4):
            await journal.append(life.create(f"web-{n}"))
    before = {n: (run / f"web-{n}" / "state.json").read_bytes() for n in range(4)}
    shutil.rmtree(run / "web-0")
    (run / "web-1" / "state.json").write_bytes(b"")
    (run / "web-2" / "state.json").write_bytes(b'{"id": "web-2", "status": "stopped"}')
    (run / "left-over").mkdir()
    (run / "left-over" / "state.json").write_text("{}")
    untouched = (run / "web-3" / "state.json").stat().st_ino

    async with open_journal(tmp_path / "state", owner="one", run_dir=run):
        pass

    assert {n: (run / f"web-{n}" / "state.json").read_bytes() for n in range(4)} == before
    assert (run / "web-3" / "state.json").stat().st_ino == untouched
    assert not (run / "left-over").exists()


async def test_a_run_directory_that_vanishes_is_made_again(tmp_path, life):
    run = tmp_path / "run"
    async with open_journal(tmp_path / "state", owner="one", run_dir=run) as journal:
        await journal.append(life.create("web-1"))
        shutil.rmtree(run)
        await journal.append(life.created("web-1"))
        assert read_state(run, "web-1").status == "created"


async def test_a_state_file_that_cannot_be_written_changes_no_operation_and_is_told_once(tmp_path, life, caplog):
    run = tmp_path / "run"
    run.mkdir()
    (run / "web-1").write_text("in the way")
    with caplog.at_level(logging.WARNING, "nexcage"):
        async with open_journal(tmp_path / "state", owner="one", run_dir=run) as journal:
            await journal.append(life.create("web-1"))
            await journal.append(life.created("web-1"))
            await journal.append(life.create("web-2"))
            assert journal.machines["web-1"].state is State.CREATED
    assert read_state(run, "web-2").status == "creating"
    assert caplog.text.count("not up to date") == 1


def test_a_run_directory_belongs_to_one_fleet(files, tmp_path, quick):
    with pytest.raises(
        JournalError, match=r"of fleet 'blue', not green: use another run_dir, or remove .*/run/\.fleet"
    ):
        StateFiles(quick, str(tmp_path / "run"), "green")
    StateFiles(quick, str(tmp_path / "run"), "blue").close()


@pytest.mark.parametrize("umask", [0, 0o777])
def test_modes_hold_whatever_the_umask(files, tmp_path, umask):
    before = os.umask(umask)
    try:
        files.project([machine()])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run" / "web-1").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run" / "web-1" / "state.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("where", ["web-1", "web-1/state.json", "web-1/.state.json.new"])
def test_links_are_not_followed(files, tmp_path, where):
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("precious")
    link = tmp_path / "run" / where
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target if where == "web-1" else target / "precious")

    files.project([machine()])

    assert os.listdir(target) == ["precious"]
    assert (target / "precious").read_text() == "precious"


def test_readers_find_the_old_or_the_new_document_never_a_half(tmp_path):
    run = tmp_path / "run"

    class Looking(Disk):
        def write(self, fd: int, data: bytes) -> None:
            for half in (data[:20], data[20:]):
                super().write(fd, half)
                if (found := read_state(run, "web-1")) is not None:
                    seen.append(found.pid)

    seen: list[int] = []
    files = StateFiles(Looking(), str(run), "blue")
    files.project([machine(), msgspec.structs.replace(machine(), pid=5000000)])
    files.close()
    assert read_state(run, "web-1").pid == 5000000
    assert seen == [4194400, 4194400]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"id": 5}'])
def test_a_file_that_is_no_document_is_our_error(tmp_path, content):
    (tmp_path / "web-1").mkdir()
    (tmp_path / "web-1" / "state.json").write_bytes(content)
    with pytest.raises(JournalError, match="not a state document"):
        read_state(tmp_path, "web-1")


def test_a_name_that_leads_elsewhere_is_refused(tmp_path):
    for id in ("../x", "", ".", "a/b"):
        with pytest.raises(nexcage.InvalidName):
            read_state(tmp_path, id)
    assert read_state(tmp_path / "nothing", "web-1") is None


@pytest.mark.parametrize("state", [state for state in State if state is not State.ABSENT])
def test_every_state_gives_a_document_that_the_schema_takes(files, tmp_path, state):
    was = State.RUNNING if state is State.UNKNOWN else state
    files.project([msgspec.structs.replace(machine(state=state), was=was)])
    document = json.loads((tmp_path / "run" / "web-1" / "state.json").read_text())
    assert set(document) == {"ociVersion", "id", "status", "pid", "bundle", "annotations"}
    assert document["status"] in {"creating", "created", "running", "paused", "stopped"}
    assert os.path.isabs(document["bundle"])
