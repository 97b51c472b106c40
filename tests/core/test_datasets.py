"""Which dataset a container gets, decided from what a node shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import AlreadyExists, Blocked, InvalidSpec, NodeNotUsable, Spec, names
from nexcage._core import config
from nexcage._core.config import ZfsConfig
from nexcage._core.datasets import Choice, Found, Place, Survey, base_of, choose, name_of
from nexcage._core.seen import Mark

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")
MARK = Mark("f1", "web-1", 104, "op-1")
ROOM = 100 << 30
TANK = Found("tank", ROOM, mountpoint="/tank", mounted=True)


def survey(*found: Found, health: str = "ONLINE", places: tuple[Place, ...] = ()) -> Survey:
    return Survey({"tank": health}, {one.name: one for one in (found or (TANK,))}, places)


def chosen(seen: Survey, spec: Spec = SPEC, **settings: Any) -> Choice:
    return choose(ZfsConfig(**{"pool": "tank", **settings}), seen, MARK, spec, "pve-01")


@pytest.mark.parametrize(
    ("pool", "base"), [("tank", "tank/containers"), ("tank/data", "tank/data"), ("a/b/c", "a/b/c")]
)
def test_a_pool_alone_means_its_containers(pool: str, base: str) -> None:
    assert base_of(pool) == base


def test_a_missing_base_is_made_and_lies_where_its_nearest_parent_says() -> None:
    elsewhere = Found("tank/a", ROOM, mountpoint="/srv/a", mounted=True)
    choice = chosen(survey(TANK, elsewhere), pool="tank/a/b")

    assert (choice.base, choice.parents, choice.dataset) == ("tank/a/b", True, "tank/a/b/web-1-104")
    assert choice.mountpoint == "/srv/a/b/images/104"
    assert choice.place == Place("nexcage-zfs", "dir", "/srv/a/b")


def test_a_storage_that_is_there_is_not_added_again() -> None:
    seen = survey(TANK, places=(Place("nexcage-zfs", "dir", "/tank/containers/"),))
    assert chosen(seen).place is None
    assert chosen(seen, storage="other").place == Place("other", "dir", "/tank/containers")


def test_a_size_is_a_quota_and_needs_that_much_room() -> None:
    spec = Spec(SPEC.image, size=8)
    assert chosen(survey(), spec).properties["refquota"] == "8G"
    with pytest.raises(Blocked, match=r"7\.00 GiB free in tank, 8\.00 GiB wanted"):
        chosen(survey(Found("tank", 7 << 30, mountpoint="/tank")), spec)


def test_our_own_dataset_of_the_same_operation_is_used_and_any_other_is_not() -> None:
    name = "tank/containers/web-1-104"
    assert chosen(survey(TANK, Found(name, mark=str(MARK)))).there
    for mark in ("", str(Mark("f1", "web-1", 104, "op-0")), str(Mark("f2", "web-1", 104, "op-1"))):
        with pytest.raises(AlreadyExists, match=name):
            chosen(survey(TANK, Found(name, mark=mark)))


@pytest.mark.parametrize("pool", ["tank", "tank/data", "tank/data/below"])
def test_below_a_storage_of_pve_volumes_are_left_to_pve(pool: str) -> None:
    seen = survey(TANK, places=(Place("other", "zfspool", pool="tank/dat"), Place("local-zfs", "zfspool", pool="tank")))
    assert chosen(seen, pool=pool) == Choice(storage="local-zfs")


def test_a_storage_of_pve_beside_the_base_is_none_of_our_business() -> None:
    seen = survey(TANK, places=(Place("local-zfs", "zfspool", pool="tank/vms"),))
    assert chosen(seen).storage == "nexcage-zfs"


def test_who_says_a_storage_gets_that_and_a_data_disk_all_the_same() -> None:
    spec = Spec(SPEC.image, storage="local-zfs", size=8)
    assert chosen(survey(), spec) == Choice()
    data = chosen(survey(), spec, mount="/srv")
    assert (data.mountpoint, data.place, dict(data.properties)) == ("/tank/containers/web-1-104", None, {})


@pytest.mark.parametrize("health", ["DEGRADED", "FAULTED", "SUSPENDED", "UNAVAIL"])
def test_only_a_healthy_pool_is_given_more(health: str) -> None:
    with pytest.raises(Blocked, match=health):
        chosen(survey(health=health))


@pytest.mark.parametrize(
    "seen", [Survey(), Survey({"tank2": "ONLINE"}), Survey({"TANK": "ONLINE"}), Survey(why="no module")]
)
def test_a_missing_pool_is_an_error_where_it_is_required_and_a_note_otherwise(seen: Survey) -> None:
    assert chosen(seen).note.startswith("made without ZFS: ")
    assert chosen(seen).dataset == chosen(seen).storage == ""
    with pytest.raises(NodeNotUsable):
        chosen(seen, required=True)


@pytest.mark.parametrize("mountpoint", ["", "/with space", "/a,mp=/b", "/new\nline"])
def test_a_mountpoint_that_pve_cannot_take_is_refused(mountpoint: str) -> None:
    with pytest.raises(Blocked, match="mountpoint of tank"):
        chosen(survey(Found("tank", ROOM, mountpoint=mountpoint)))


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127}", fullmatch=True), st.integers(100, 999_999_999))
def test_every_id_has_a_dataset_name_of_its_own_that_zfs_takes(id: str, vmid: int) -> None:
    names.dataset(name_of("tank/containers", id, vmid))
    assert name_of("t/c", id, vmid).replace(":", "+") == f"t/c/{id}-{vmid}"


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"pool": "tank/../x"}, "zfs.pool"),
        ({"pool": "tank", "on_delete": "burn"}, "zfs.on_delete"),
        ({"pool": "tank", "mount": "data"}, "zfs.mount"),
        ({"pool": "tank", "mount": "/a,b"}, "zfs.mount"),
        ({"pool": "tank", "storage": "1"}, "zfs.storage"),
        ({"required": True}, "zfs.required"),
        ({"pool": "tank", "properties": {"mountpoint": "/x"}}, "zfs.properties"),
        ({"pool": "tank", "properties": {"org.nexcage:mark": "x"}}, "zfs.properties"),
        ({"pool": "tank", "properties": {"atime": "o\nff"}}, "zfs.properties.atime"),
        ({"poool": "tank"}, "zfs.poool"),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        config.read({"zfs": table})
    assert refused.value.field == field


def test_settings_are_read_from_a_table() -> None:
    document = {"zfs": {"pool": "tank/ct", "required": True, "on_delete": "keep", "properties": {"compression": "lz4"}}}
    assert config.read(document).zfs == ZfsConfig("tank/ct", True, "keep", properties={"compression": "lz4"})
