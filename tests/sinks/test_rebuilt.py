"""A record that says all about a container ends what damage did to it, for every reader and for good."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from nexcage import JournalError, Machine, Observed, State


def rebuilt(id: str, state: State = State.STOPPED, vmid: int = 104) -> Observed:
    return Observed(
        id=id, state=state, node="pve-01", vmid=vmid, backend="lxc", mark=f"c-{id}", adopted=True, rebuilt=True
    )


def damaged(desk, life) -> None:
    """A journal in which the second record, of web-2, has a flipped bit."""
    store = desk.open()
    desk.append(store, life.create("web-1"), life.create("web-2"), life.created("web-1"), life.created("web-2"))
    store.close()
    lines = desk.files()[0].read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"owner":"me"', b'"owner":"mf"')
    desk.files()[0].write_bytes(b"".join(lines))


def test_it_ends_the_quarantine_here_and_for_whoever_reads_later(desk, life):
    damaged(desk, life)
    first, second = desk.open(), desk.open()
    assert set(first.quarantined) == set(second.quarantined) == {"web-2"}

    desk.append(first, rebuilt("web-2"))
    desk.append(first, life.start("web-2"))

    assert first.quarantined == {}
    assert second.commit([]).events[0].id == "web-2"
    for store in (first, second, desk.open()):
        assert store.quarantined == {}
        machine = store.machines["web-2"]
        assert (machine.state, machine.vmid, machine.mark) == (State.STARTING, 104, "c-web-2")


def test_it_stays_ended_when_the_segment_with_the_damage_is_closed(desk, life):
    damaged(desk, life)
    store = desk.open(segment_bytes=1)
    desk.append(store, life.create("web-3"))  # rotates: the quarantine goes to its own file
    assert (desk.path / "quarantine.json").exists()

    desk.append(store, rebuilt("web-2"))
    for n in range(3):
        desk.append(store, life.create(f"more-{n}"))

    assert len(desk.files()) > 2
    assert desk.open().quarantined == {}
    assert desk.open().machines["web-2"].state is State.STOPPED


def test_another_record_does_not_end_it(desk, life):
    damaged(desk, life)
    store = desk.open()
    with pytest.raises(JournalError, match="set aside"):
        desk.append(store, msgspec.structs.replace(rebuilt("web-2"), rebuilt=False))
    assert set(desk.open().quarantined) == {"web-2"}


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED, State.PAUSED, State.ABSENT])
def test_what_was_before_does_not_count(state: State, life):
    machines: Mapping[str, Machine] = {}
    begun = Machine("web-2").apply(life.create("web-2")(machines))

    after = begun.apply(rebuilt("web-2", state))

    assert (after.state, after.was, after.wanted) == (state, state, state)
    assert (after.running, after.unresolved, after.done, after.spec) == (None, None, (), None)
    assert (after.vmid, after.mark) == ((0, "") if state is State.ABSENT else (104, "c-web-2"))
    assert after.ran is (state is not State.ABSENT)
