"""Who is alive, and whose journal it is."""

from __future__ import annotations

import pytest

from nexcage import InvalidName, JournalError
from nexcage._sinks.disk import Disk
from nexcage._sinks.journal import open_journal
from nexcage._sinks.owners import Ownership, owner_alive, sweep_owners


async def test_an_owner_lives_as_long_as_its_journal_is_open(tmp_path):
    async with open_journal(tmp_path, owner="one"):
        assert owner_alive(tmp_path, "one")
        assert owner_alive(tmp_path, "one"), "asking does not make anybody look alive or dead"
        assert not owner_alive(tmp_path, "two")
        assert (tmp_path / "owners" / "one").read_text().startswith("pid ")
    assert not owner_alive(tmp_path, "one")
    assert not (tmp_path / "owners" / "one").exists()


async def test_two_drivers_cannot_have_one_name(tmp_path):
    async with open_journal(tmp_path, owner="one"):
        with pytest.raises(JournalError, match="another running driver"):
            async with open_journal(tmp_path, owner="one"):
                pass
        assert owner_alive(tmp_path, "one")


def test_a_name_that_a_dead_driver_left_can_be_taken(tmp_path):
    (tmp_path / "owners").mkdir()
    (tmp_path / "owners" / "one").write_text("pid 1 since 1970\n")
    assert not owner_alive(tmp_path, "one")
    mine = Ownership(Disk(), str(tmp_path), "one", 0.0)
    assert owner_alive(tmp_path, "one")
    mine.release()


def test_files_of_the_dead_are_swept_unless_an_operation_names_them(tmp_path):
    alive = Ownership(Disk(), str(tmp_path), "alive", 0.0)
    for dead in ("dead", "named"):
        (tmp_path / "owners" / dead).write_text("")
    sweep_owners(Disk(), str(tmp_path), {"named"})
    assert sorted(path.name for path in (tmp_path / "owners").iterdir()) == ["alive", "named"]
    alive.release()


@pytest.mark.parametrize("owner", ["", "../x", "a/b", "a\n", ".hidden", "x" * 65, "ｏｎｅ"])
async def test_a_name_that_is_no_file_name_is_refused(tmp_path, owner):
    assert not owner_alive(tmp_path, owner)
    with pytest.raises(InvalidName):
        async with open_journal(tmp_path, owner=owner):
            pass


async def test_the_fleets_id_is_random_and_stays(tmp_path):
    async with open_journal(tmp_path / "a", owner="one") as a, open_journal(tmp_path / "b", owner="one") as b:
        assert a.fleet != b.fleet
        assert len(a.fleet) == 16
    async with open_journal(tmp_path / "a", owner="one") as again:
        assert again.fleet == a.fleet


async def test_a_configured_fleet_is_kept_and_another_refused(tmp_path):
    async with open_journal(tmp_path, owner="one", fleet="blue") as journal:
        assert journal.fleet == "blue"
    async with open_journal(tmp_path, owner="one") as journal:
        assert journal.fleet == "blue"
    with pytest.raises(JournalError, match="belongs to fleet blue, not green"):
        async with open_journal(tmp_path, owner="one", fleet="green"):
            pass
    assert not owner_alive(tmp_path, "one")


async def test_a_fleet_file_that_holds_no_id_is_not_replaced(tmp_path):
    (tmp_path / "fleet").write_text("\x1b[2J not an id\n")
    with pytest.raises(JournalError, match="does not hold a fleet id"):
        async with open_journal(tmp_path, owner="one"):
            pass
