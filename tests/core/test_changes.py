"""What keeps the state: what is really to be done, and whether it has happened, decided from a look alone."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    AlreadyExists,
    Changed,
    DelSnapshot,
    Details,
    IllegalTransition,
    InvalidInput,
    MakeTemplate,
    Migrate,
    MoveVolume,
    Net,
    NotFound,
    Resize,
    Rollback,
    Snap,
    Snapshot,
    Spec,
    Update,
)
from nexcage._core.changes import applied, happened, incomplete, plan_update, ready
from nexcage._core.details import MIB, mebibytes
from nexcage._core.keeping import Keeping

MARK = "nexcage fleet=f id=web vmid=104 op=made"
VALUES = {
    "hostname": "web",
    "memory": "512",
    "net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth",
    "parent": "s1",
    "rootfs": "local-zfs:subvol-104-disk-0,size=4G",
    "mp0": "local-zfs:subvol-104-disk-1,mp=/data,size=8G",
    "mp1": "/srv,mp=/srv",
    "tags": "nexcage;web",
}
WHOLE, MINE = Snap("s1", op="other"), Snap("s2", op="op")
BEING_MADE, BEING_REMOVED = Snap("s2", op="op", state="prepare"), Snap("s1", op="other", state="delete")


def details(*snaps: Snap, **values: str) -> Details:
    return Details("d" * 40, {**VALUES, **values}, (), f"{MARK}\n", {snap.name: snap for snap in snaps})


NOW = details(WHOLE)


@pytest.mark.parametrize(
    ("intent", "seen", "facts", "verdict"),
    [
        (Snapshot("web", "s2"), NOW, {}, "not"),
        (Snapshot("web", "s2"), details(WHOLE, MINE), {}, "done"),
        (Snapshot("web", "s2"), details(WHOLE, BEING_MADE), {"lock": "snapshot"}, "not"),
        (Snapshot("web", "s1"), NOW, {}, "not"),  # somebody else's of that name
        (DelSnapshot("web", "s1"), NOW, {}, "not"),
        (DelSnapshot("web", "s1"), details(BEING_REMOVED), {"lock": "snapshot-delete"}, "not"),
        (DelSnapshot("web", "s1"), details(), {}, "done"),
        (Rollback("web", "s1"), NOW, {}, "done"),
        (Rollback("web", "s2"), details(WHOLE, MINE), {}, "not"),
        (Rollback("web", "s1"), NOW, {"lock": "rollback"}, "unknown"),
        (Rollback("web", "s1", start=True), NOW, {}, "unknown"),
        (Rollback("web", "s1", start=True), NOW, {"running": True}, "done"),
        (Update("web", memory=512), NOW, {}, "done"),
        (Update("web", memory=1024), NOW, {}, "not"),
        (Update("web", tags=("web",)), NOW, {}, "done"),
        (Update("web", tags=("blue",)), NOW, {}, "not"),
        (Update("web", description=""), NOW, {}, "done"),
        (Update("web", description="x"), NOW, {}, "not"),
        (Update("web", description="\n"), NOW, {}, "done"),
        (Update("web", nets={"net0": Net()}), NOW, {}, "done"),
        (Update("web", nets={"net0": Net(bridge="vmbr1")}), NOW, {}, "not"),
        (Update("web", mounts={"mp0": "local-zfs:8,mp=/data"}), NOW, {}, "done"),
        (Update("web", mounts={"mp0": "local-zfs:9,mp=/data"}), NOW, {}, "not"),
        (Update("web", mounts={"mp1": "/srv,mp=/srv"}), NOW, {}, "done"),
        (Update("web", unset=("cores",)), NOW, {}, "done"),
        (Update("web", unset=("net0",)), NOW, {}, "not"),
        (Update("web", onboot=False), NOW, {}, "done"),
        (Resize("web", "rootfs", "4096M"), NOW, {}, "done"),
        (Resize("web", "rootfs", "5120M"), NOW, {}, "not"),
        (MoveVolume("web", "rootfs", "local-zfs"), NOW, {}, "done"),
        (MoveVolume("web", "rootfs", "local"), NOW, {}, "not"),
        (MakeTemplate("web"), NOW, {}, "not"),
        (MakeTemplate("web"), details(template="1"), {}, "done"),
        (Migrate("web", "pve-02"), NOW, {}, "not"),
    ],
)
def test_whether_it_happened_is_seen(intent: Keeping, seen: Details, facts: dict[str, Any], verdict: str) -> None:
    given_ = {"lock": "", "running": False, **facts}
    assert happened(intent, "op", seen, mark=MARK, **given_) == verdict


@pytest.mark.parametrize(
    ("intent", "error"),
    [
        (Snapshot("web", "s1"), AlreadyExists),
        (DelSnapshot("web", "s2"), NotFound),
        (Rollback("web", "s2"), NotFound),
        (Resize("web", "mp9", "10G"), NotFound),
        (Resize("web", "mp1", "10G"), IllegalTransition),
        (Resize("web", "rootfs", "3G"), InvalidInput),
        (MoveVolume("web", "mp9", "local"), NotFound),
        (MakeTemplate("web"), IllegalTransition),
        (Update("web", memory=1024, digest="0" * 40), Changed),
    ],
)
def test_what_cannot_be_is_refused_before_it_begins(intent: Keeping, error: type[Exception]) -> None:
    with pytest.raises(error):
        ready(intent, NOW, mark=MARK)


@pytest.mark.parametrize("intent", [Snapshot("web", "s2"), Rollback("web", "s1"), DelSnapshot("web", "s1")])
def test_a_template_has_no_snapshots(intent: Keeping) -> None:
    with pytest.raises(IllegalTransition, match="template"):
        ready(intent, details(WHOLE, template="1"), mark=MARK)


@given(st.integers(1, 1 << 40), st.integers(1, 5000))
def test_growing_by_something_becomes_a_size_that_cannot_grow_again(now: int, more: int) -> None:
    seen = details(rootfs=f"local-zfs:subvol-104-disk-0,size={now}")

    wanted = ready(Resize("web", "rootfs", f"+{more}M"), seen, mark=MARK)

    assert isinstance(wanted, Resize)
    size = mebibytes(wanted.size)
    assert size is not None
    assert 0 <= size - now - more * MIB < MIB
    after = details(rootfs=f"local-zfs:subvol-104-disk-0,size={size}")
    assert happened(wanted, "op", after, lock="", running=False, mark=MARK) == "done"
    assert ready(wanted, after, mark=MARK) is None


def test_an_update_begins_with_the_digest_that_was_seen_and_a_plan_says_what_waits() -> None:
    change = Update("web", memory=1024, mounts={"mp1": "/other,mp=/srv", "mp2": "local-zfs:1,mp=/new"}, unset=("net0",))

    wanted = ready(change, NOW, mark=MARK, running=True)

    assert isinstance(wanted, Update)
    assert wanted.digest == NOW.digest
    told = {one.key: (one.new, one.restart) for one in plan_update(change, NOW, mark=MARK, running=True)}
    assert told == {
        "memory": ("1024", False),
        "mp1": ("/other,mp=/srv", True),
        "mp2": ("local-zfs:1,mp=/new", False),
        "net0": (None, False),
    }


def test_what_is_incomplete_is_ours_only_by_its_own_words() -> None:
    seen = details(WHOLE, BEING_MADE)
    assert incomplete(Snapshot("web", "s2"), "op", seen, "snapshot") == BEING_MADE
    assert incomplete(Snapshot("web", "s2"), "another", seen, "snapshot") is None
    assert incomplete(Snapshot("web", "s2"), "op", seen, "backup") is None
    assert incomplete(DelSnapshot("web", "s1"), "op", details(BEING_REMOVED), "snapshot-delete") == BEING_REMOVED
    assert incomplete(DelSnapshot("web", "s1"), "op", NOW, "") is None


def test_an_update_is_what_the_container_is_from_then_on() -> None:
    spec = Spec("debian.tar.zst", memory=512, cores=2, tags=("web",))
    change = Update("web", memory=1024, tags=("Blue",), unset=("cores",), nets={"net1": Net("eth1")})

    after = applied(spec, change)

    assert (after.memory, after.cores, after.tags) == (1024, None, ("blue",))
    assert [net.name for net in after.nets] == ["eth0", "eth1"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Snapshot("web", "current"),
        lambda: Snapshot("web", "s1", "x\nnexcage op=mine"),
        lambda: Update("web", description="nexcage fleet=other"),
        lambda: Resize("web", "rootfs", "-1G"),
        lambda: Resize("web", "unused0", "1G"),
        lambda: Update("web", mounts={"rootfs": "local:8,mp=/"}),
        lambda: Update("web", unset=("rootfs",)),
        lambda: Update("web", unset=("memory",)),
        lambda: Update("web", memory=1),
        lambda: Update("web", digest="abc"),
        lambda: Migrate("web", ""),
        lambda: Migrate("web", cast("Any", {"a": 1})),
        lambda: Migrate("web", "pve-02", cast("Any", "yes")),
        lambda: Rollback("web", "s1", cast("Any", "no")),
        lambda: MoveVolume("web", "rootfs", "local", cast("Any", 1)),
        *(
            lambda field=field, value=value: Update("web", **{field: cast("Any", value)})
            for field, value in (
                ("onboot", "no"),
                ("protection", 0),
                ("tags", "ab"),
                ("tags", 1.5),
                ("nets", None),
                ("nets", {"net0": "name=eth0"}),
                ("nets", {"net0": None}),
                ("mounts", None),
                ("mounts", {"mp0": None}),
                ("unset", None),
                ("unset", "net0"),
            )
        ),
    ],
)
def test_an_intent_that_can_never_be_is_not_made(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()


@given(st.text(max_size=60))
def test_a_snapshot_tells_whose_it_is_and_keeps_its_description(text: str) -> None:
    try:
        Snapshot("web", "s2", text)
    except InvalidInput:
        return
    snap = Snap.read("s2", {"snaptime": "17"}, Snap.said("op.1", text) + "\n")
    assert (snap.op, snap.at, snap.description.rstrip("\n")) == ("op.1", 17, text.rstrip("\n"))
