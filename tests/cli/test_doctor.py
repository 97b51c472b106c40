"""``nexcage doctor`` as people and programs see it: it changes nothing unless asked, and says what is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


@pytest.fixture
def one(run: Run, pve: PveNode, places: Path) -> str:
    """A running container and a created one; the fleet's id."""
    assert run("run", "web-1", "--image", IMAGE).status == 0
    assert run("create", "web-2", "--image", IMAGE).status == 0
    return (places / "state" / "fleet").read_text().strip()


def rows(ran: Ran) -> list[dict[str, object]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def verdicts(ran: Ran, *wanted: str) -> list[tuple[object, object]]:
    return [(row["verdict"], row["what"]) for row in rows(ran) if row["verdict"] in (wanted or ("error", "warning"))]


def files(places: Path) -> dict[str, bytes]:
    tops = [places / "state", places / "run"]
    return {str(path): path.read_bytes() for top in tops for path in top.rglob("*") if path.is_file()}


def test_everything_in_order_exits_0_and_changes_nothing(run: Run, one: str, places: Path) -> None:
    before = files(places)
    table = run("doctor")
    assert (table.status, table.err) == (0, "")
    assert table.out.splitlines()[0].split() == ["VERDICT", "WHAT", "WHERE", "WHY", "FIX"]
    assert verdicts(run("doctor", "--output", "jsonl")) == []
    assert run("doctor", "--output", "name").out == ""
    assert json.loads(run("doctor", "-o", "json").out)[0]["verdict"] == "ok"
    assert files(places) == before


def test_where_nothing_was_ever_done_there_is_nothing_wrong_and_nothing_is_made(
    run: Run, pve: PveNode, places: Path
) -> None:
    ran = run("doctor", "--repair", "--output", "jsonl")
    assert (ran.status, verdicts(ran)) == (0, [])
    assert not (places / "state").exists()


def test_damage_is_said_with_what_mends_it_and_mended_when_asked(run: Run, one: str, places: Path) -> None:
    (journal,) = (places / "state" / "journal").glob("*.jsonl")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b"\0" * 100)
    (places / "run" / "web-1" / "state.json").write_text("{")
    (places / "state" / "fleet").chmod(0o644)
    before = files(places)

    ran = run("doctor", "--output", "jsonl")
    assert ran.status == 1
    assert verdicts(ran) == [("error", "state file"), ("warning", "torn tail"), ("warning", "mode")]
    assert all(row["repairable"] and row["fix"] for row in rows(ran) if row["verdict"] in ("error", "warning"))
    assert len(run("doctor", "-o", "name").out.splitlines()) == 3
    assert files(places) == before

    mended = run("doctor", "--repair", "--output", "jsonl")
    assert (mended.status, verdicts(mended)) == (0, [])
    assert {what for _, what in verdicts(mended, "mended")} == {"state file", "torn tail", "mode"}
    assert run("doctor").status == 0
    assert json.loads((places / "run" / "web-1" / "state.json").read_text())["status"] == "running"


def test_a_damaged_record_sets_its_container_aside_until_the_doctor_believes_the_node(
    run: Run, one: str, places: Path
) -> None:
    (journal,) = (places / "state" / "journal").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"id":"web-1"' in line)
    lines[last] = lines[last].replace(b'"at":', b'"aT":', 1)
    journal.write_bytes(b"".join(lines))
    assert run("stop", "web-1", "--force").status == 1

    found = verdicts(run("doctor", "--output", "jsonl"))
    assert found == [("error", "set aside"), ("warning", "driver")]  # its end was in the damaged record
    mended = run("doctor", "--repair", "--output", "jsonl")
    assert (mended.status, verdicts(mended)) == (0, [])
    assert set(verdicts(mended, "mended")) >= {("mended", "set aside"), ("mended", "driver")}
    assert "driver" not in {row["what"] for row in rows(run("doctor", "--output", "jsonl"))}
    assert run("stop", "web-1", "--force").status == 0


def test_nothing_is_believed_while_another_driver_runs(run: Run, one: str, places: Path) -> None:
    import fcntl

    (journal,) = (places / "state" / "journal").glob("*.jsonl")
    journal.write_bytes(journal.read_bytes().replace(b'"at":', b'"aT":', 1))
    driver = places / "state" / "owners" / "somebody"
    driver.touch(mode=0o600)
    with driver.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = run("doctor", "--repair", "--output", "jsonl")
        assert waiting.status == 1
        assert {"set aside", "rebuild"} <= {str(what) for _, what in verdicts(waiting)}
        assert any("another driver runs" in str(row["why"]) for row in rows(waiting))
    assert run("doctor", "--repair").status == 0


def test_a_lost_state_directory_is_found_out_and_rebuilt(run: Run, one: str, places: Path) -> None:
    shutil.rmtree(places / "state")
    shutil.rmtree(places / "run")
    ran = run("doctor", "--output", "jsonl")
    (note,) = [row for row in rows(ran) if row["what"] == "other fleet"]
    assert f"nexcage doctor --rebuild --fleet {one}" in str(note["fix"])
    assert not (places / "state").exists()

    rebuilt = run("doctor", "--rebuild", "--output", "jsonl")
    assert (rebuilt.status, rebuilt.err) == (0, "")
    assert verdicts(rebuilt, "mended") == [("mended", "orphan"), ("mended", "orphan")]
    assert (places / "state" / "fleet").read_text().strip() == one
    again = run("doctor", "--rebuild", "--output", "jsonl")
    assert (again.status, verdicts(again, "mended")) == (0, [])

    assert run("create", "web-1", "--image", IMAGE).status == 1
    assert run("stop", "web-1", "--force").status == 0
    assert run("start", "web-2").status == 0
    assert run("delete", "--force", "web-1", "web-2").status == 0


def test_an_id_that_a_new_directory_made_up_gives_way(run: Run, one: str, places: Path) -> None:
    shutil.rmtree(places / "state")
    shutil.rmtree(places / "run")
    assert run("list").out.splitlines()[1:] == []
    assert (places / "state" / "fleet").read_text().strip() != one
    assert run("doctor", "--rebuild").status == 0
    assert run("list", "--quiet").out == "web-1\nweb-2\n"


def test_which_fleet_is_asked_for_when_the_nodes_have_several(
    run: Run, one: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXCAGE_STATE_DIR", str(places / "state2"))
    monkeypatch.setenv("NEXCAGE_RUN_DIR", str(places / "run2"))
    assert run("create", "db-1", "--image", IMAGE).status == 0
    other = (places / "state2" / "fleet").read_text().strip()
    shutil.rmtree(places / "state2")
    shutil.rmtree(places / "run2")

    ran = run("doctor", "--rebuild")
    assert ran.status == 2
    assert f"{one} (2 containers), {other} (1 containers)" in ran.err
    assert not (places / "state2").exists()
    assert run("doctor", "--rebuild", "--fleet", other).status == 0
    assert run("list", "--quiet").out == "db-1\n"


def test_a_directory_that_knows_containers_keeps_its_id(run: Run, one: str, places: Path) -> None:
    before = files(places)
    ran = run("doctor", "--rebuild", "--fleet", "other")
    assert (ran.status, ran.out) == (1, "")
    assert "knows 2 containers" in ran.err
    assert files(places) == before


def test_a_lost_fleet_id_is_said_and_no_new_one_is_made_up(run: Run, one: str, places: Path) -> None:
    (places / "state" / "fleet").unlink()
    for options in ((), ("--repair",)):
        ran = run("doctor", *options, "--output", "jsonl")
        assert ran.status == 1
        assert ("error", "fleet id") in verdicts(ran)
        assert not (places / "state" / "fleet").exists()
    assert run("doctor", "--rebuild").status == 0
    assert (places / "state" / "fleet").read_text().strip() == one


def test_a_container_that_is_gone_is_recorded_as_gone(run: Run, one: str, pve: PveNode) -> None:
    (web,) = json.loads(run("list", "-l", "id=web-2", "--output", "json").out)
    pve.tool("pct", "destroy", str(web["vmid"]))
    assert verdicts(run("doctor", "--output", "jsonl")) == [("error", "gone")]
    mended = run("doctor", "--repair", "--output", "jsonl")
    assert (mended.status, verdicts(mended, "mended")) == (0, [("mended", "gone")])
    assert run("list", "--quiet").out == "web-1\n"


def test_a_node_that_cannot_be_asked_exits_3(run: Run, one: str, pve: PveNode) -> None:
    pve.script("sh", 'echo "sh: cannot run" >&2; exit 126')
    ran = run("doctor", "--output", "jsonl")
    assert ran.status == 3
    assert verdicts(ran) == [("error", "node")]


def test_what_cannot_be_understood_is_usage(run: Run, pve: PveNode, places: Path) -> None:
    assert run("doctor", "web-1").status == 2
    assert run("doctor", "--fleet", "f1").status == 2
    assert run("doctor", "--rebuild", "--fleet", "no id!").status == 2
    assert run("doctor", "--rebuild").status == 2  # nothing on the nodes
    assert list(places.glob("state*")) == []
