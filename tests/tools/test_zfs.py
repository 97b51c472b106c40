"""``nexcage.tools.zfs``: the argv an operator would type, what the answers mean, and errors from the tool's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    InvalidName,
    NexcageError,
    NodeNotUsable,
    NotFound,
    NotOurs,
)
from nexcage._core.command import Command, Result
from nexcage._core.datasets import Choice, Found, Place
from nexcage._core.seen import Mark
from nexcage.tools import datasets, zfs

MARK = Mark("f1", "web-1", 104, "op-1")


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        (zfs.pools(), "zpool list -H -o name,health"),
        (zfs.create("tank/a"), "zfs create tank/a"),
        (zfs.create("tank/a/b", {"atime": "off"}, parents=True), "zfs create -p -o atime=off tank/a/b"),
        (zfs.destroy("tank/a", recursive=True), "zfs destroy -r tank/a"),
        (zfs.destroy("tank/a", clones=True), "zfs destroy -R tank/a"),
        (zfs.destroy("tank/a@s"), "zfs destroy tank/a@s"),
        (zfs.snapshot("tank/a@s", "tank/b@s"), "zfs snapshot tank/a@s tank/b@s"),
        (zfs.snapshot("tank@s", recursive=True, properties={"org.x:y": "1"}), "zfs snapshot -r -o org.x:y=1 tank@s"),
        (zfs.clone("tank/a@s", "tank/b", {"refquota": "1G"}), "zfs clone -o refquota=1G tank/a@s tank/b"),
        (zfs.rollback("tank/a@s"), "zfs rollback tank/a@s"),
        (zfs.rollback("tank/a@s", newer=True), "zfs rollback -r tank/a@s"),
        (zfs.set_("tank/a", "mountpoint", "none"), "zfs set mountpoint=none tank/a"),
        (zfs.inherit("tank/a", "org.x:y"), "zfs inherit org.x:y tank/a"),
        (zfs.rename("tank/a", "tank/b"), "zfs rename tank/a tank/b"),
        (zfs.promote("tank/b"), "zfs promote tank/b"),
        (zfs.mount("tank/b"), "zfs mount tank/b"),
        (zfs.unmount("tank/b"), "zfs unmount tank/b"),
        (zfs.get(["type"], "tank", depth=2), "zfs get -Hp -r -d 2 -o name,property,value,source type tank"),
    ],
)
def test_a_command_is_what_an_operator_would_type(command: Command[Any], typed: str) -> None:
    assert " ".join(command.argv) == typed
    assert command.safe == (command.argv[1] in ("list", "get"))


def test_streams_are_argv_too() -> None:
    assert zfs.send("tank/a@two", since="one") == ("zfs", "send", "-i", "tank/a@one", "tank/a@two")
    assert zfs.send("tank/a@s", recursive=True) == ("zfs", "send", "-R", "tank/a@s")
    assert zfs.receive("tank/b", force=True) == ("zfs", "receive", "-F", "-u", "tank/b")


@pytest.mark.parametrize(
    "name", ["-x", "tank/-o", "tank/a b;c", "tank/../x", "tank//x", "/tank", "tank@", "tank/a@b@c", ""]
)
def test_no_name_can_be_an_option_or_lead_elsewhere(name: str) -> None:
    if name == "tank/-o":  # a part of a name may begin so; the word does not
        assert zfs.create(name).argv[-1] == name
        return
    for make in (zfs.create, zfs.snapshot, zfs.destroy, zfs.rollback, zfs.send):
        with pytest.raises(InvalidName):
            make(name)


def test_datasets_are_read_with_what_they_have() -> None:
    rows = [
        ("tank/a", "type", "filesystem", "-"),
        ("tank/a", "used", "98304", "-"),
        ("tank/a", "available", "1048576", "-"),
        ("tank/a", "referenced", "24576", "-"),
        ("tank/a", "mountpoint", "/tank/a", "default"),
        ("tank/a", "mounted", "yes", "-"),
        ("tank/a", "origin", "-", "-"),
        ("tank/a@s", "type", "snapshot", "-"),
        ("tank/a@s", "used", "0", "-"),
        ("tank/a@s", "available", "-", "-"),
        ("tank/a@s", "referenced", "24576", "-"),
        ("tank/a@s", "mountpoint", "-", "-"),
        ("tank/a@s", "mounted", "-", "-"),
    ]
    said = "".join("\t".join(row) + "\n" for row in rows).encode()

    assert zfs.datasets("tank/a", depth=1).parse(Result(0, said)) == (
        zfs.Dataset("tank/a", "filesystem", 98304, 1048576, 24576, "/tank/a", True),
        zfs.Dataset("tank/a@s", "snapshot", 0, 0, 24576),
    )


@given(st.binary(max_size=200))
def test_an_answer_is_read_or_refused(said: bytes) -> None:
    for command in (
        zfs.pools(),
        zfs.datasets("tank"),
        zfs.snapshots("tank"),
        datasets.survey("tank/c", "tank/c/x-100"),
    ):
        try:
            command.parse(Result(0, said))
        except ValueError:
            continue


SAID: list[tuple[str, int, type[NexcageError], str]] = [
    ("cannot open 'tank/x': dataset does not exist", 1, NotFound, "dataset 'tank/x'"),
    ("cannot open 'tank/x@s': dataset does not exist", 1, NotFound, "snapshot 'tank/x@s'"),
    ("cannot open 'tank': no such pool", 1, NotFound, "pool 'tank'"),
    ("cannot create 'tank/x': no such pool 'tank'", 1, NotFound, "pool 'tank'"),
    ("cannot create 'tank/a/b': parent does not exist", 1, NotFound, "dataset 'tank/a'"),
    ("could not find any snapshots to destroy; check snapshot names.", 1, NotFound, "snapshot"),
    ("cannot create 'tank/x': dataset already exists", 1, AlreadyExists, "dataset 'tank/x'"),
    ("cannot create snapshot 'tank/x@s': dataset already exists", 1, AlreadyExists, "snapshot 'tank/x@s'"),
    ("cannot rename to 'tank/y': dataset already exists", 1, AlreadyExists, "dataset 'tank/y'"),
    (
        "cannot receive new filesystem stream: destination 'tank/x' exists\nmust specify -F to overwrite it",
        1,
        AlreadyExists,
        "'tank/x'",
    ),
    ("cannot destroy 'tank/x': dataset is busy", 1, Busy, "dataset tank/x on pve-01"),
    ("cannot unmount '/tank/x': pool or dataset is busy", 1, Busy, "something uses it"),
    (
        "umount: /tank/x: target is busy.\ncannot unmount '/tank/x': umount failed: umount child process failed",
        1,
        Busy,
        "something uses it",
    ),
    (
        "cannot destroy snapshot tank/x@s: it's being held. Run 'zfs holds -r tank/x@s' to see holders.",
        1,
        Blocked,
        "snapshot tank/x@s on pve-01 is blocked by a hold",
    ),
    (
        "cannot destroy 'tank/x': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/x/a\ntank/x@s",
        1,
        Blocked,
        "what is below it: tank/x/a, tank/x@s",
    ),
    (
        "cannot destroy 'tank/x': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\ntank/y",
        1,
        Blocked,
        "its clones tank/y",
    ),
    (
        (
            "cannot rollback to 'tank/x@a': more recent snapshots or bookmarks exist\n"
            "use '-r' to force deletion of the following snapshots and bookmarks:\ntank/x@b"
        ),
        1,
        Blocked,
        "newer snapshots: tank/x@b",
    ),
    ("cannot create 'tank/x': out of space", 1, Blocked, "a lack of room"),
    ("cannot open 'tank': pool I/O is currently suspended", 1, Blocked, "zpool status tank"),
    ("cannot create 'tank/a%': invalid character '%' in name", 1, InvalidName, "invalid character '%'"),
    ("cannot create 'tank/x': permission denied", 1, NodeNotUsable, "zfs allow"),
    (
        "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.",
        1,
        NodeNotUsable,
        "modprobe zfs",
    ),
    ("The ZFS modules cannot be auto-loaded.", 1, NodeNotUsable, "modprobe zfs"),
    (
        (
            "connect: No such file or directory\nPlease make sure that the zfs-fuse daemon is running.\n"
            "internal error: failed to initialize ZFS library"
        ),
        1,
        NodeNotUsable,
        "start it",
    ),
    ("Permission denied the ZFS utilities must be run as root.", 1, NodeNotUsable, "sudo -n"),
    ("sh: 1: zfs: not found", 127, NodeNotUsable, "zfsutils-linux"),
    ("cannot set property for 'tank': invalid property 'foo'", 1, CommandFailed, "invalid property 'foo'"),
    ("internal error: Function not implemented", 134, CommandFailed, "Function not implemented"),
]


@pytest.mark.parametrize(("said", "exit", "kind", "word"), SAID, ids=[said[:40] for said, *_ in SAID])
def test_the_words_of_the_tool_become_a_typed_error(said: str, exit: int, kind: type[NexcageError], word: str) -> None:
    command = zfs.destroy("tank/x")
    error = command.classify(command, Result(exit, b"", said.encode() + b"\n"), "pve-01")

    assert type(error) is kind
    assert word in str(error)


def test_a_new_dataset_carries_the_mark_as_its_own_property() -> None:
    choice = Choice("tank/c", "tank/c/web-1-104", properties={"atime": "off"}, mountpoint="/tank/c/images/104")
    command = datasets.make(choice, MARK, None)

    assert command.argv == (
        "zfs", "create", "-o", "org.nexcage:mark=nexcage fleet=f1 id=web-1 vmid=104 op=op-1", "-o", "atime=off", "tank/c/web-1-104",
    )  # fmt: skip
    assert command.tries == {"vmid": 104, "dataset": "tank/c/web-1-104"}
    assert datasets.make(choice, MARK, 100_000).argv[4:6] == ("/tank/c/images/104", "100000")


def test_what_changes_a_dataset_checks_its_mark_first_and_says_when_it_is_not_ours() -> None:
    command = datasets.guarded("tank/c/web-1-104", MARK, zfs.rename("tank/c/web-1-104", "tank/c/x"))

    assert command.typed == ("zfs", "rename", "tank/c/web-1-104", "tank/c/x")
    assert command.argv[4:6] == ("tank/c/web-1-104", str(MARK))
    refused = Result(9, b"", b"nexcage: the dataset does not carry our mark\n")
    assert isinstance(command.classify(command, refused, "pve-01"), NotOurs)
    still = Result(8, b"", b"nexcage: tank/c/web-1-104 is still there\n")
    assert isinstance(datasets.destroyed("tank/c/web-1-104", MARK).classify(command, still, "pve-01"), Blocked)


def test_a_survey_is_read_by_exact_names_and_own_marks() -> None:
    said = (
        "motd\n@nexcage pools\ntank\tONLINE\ntank2\tDEGRADED\n@nexcage found\n"
        "tank\tavailable\t100\t-\ntank\tmountpoint\tnone\tlocal\ntank\tmounted\tno\t-\ntank\torg.nexcage:mark\t-\t-\n"
        "cannot open 'tank/c': dataset does not exist\n"
        "tank/x\tavailable\t7\t-\ntank/x\tmountpoint\t/x\tlocal\ntank/x\tmounted\tyes\t-\n"
        "tank/x\torg.nexcage:mark\tnexcage fleet=f\tinherited from tank\n"
        "@nexcage places\ndir: local\n\tpath /var/lib/vz\n\tcontent rootdir\n\nzfspool: local-zfs\n\tpool rpool/data\n"
        "@nexcage end\n"
    )
    seen = datasets.survey("tank/c", "tank/x").parse(Result(0, said.encode()))

    assert seen.pools == {"tank": "ONLINE", "tank2": "DEGRADED"}
    assert seen.found == {"tank": Found("tank", 100, own=True), "tank/x": Found("tank/x", 7, "", "/x", True, True)}
    assert seen.places == (Place("local", "dir", "/var/lib/vz"), Place("local-zfs", "zfspool", "", "rpool/data"))
    with pytest.raises(ValueError, match="not whole"):
        datasets.survey("tank/c", "tank/x").parse(Result(0, said.encode()[:-14]))


def test_a_storage_that_somebody_else_was_faster_to_add_is_there() -> None:
    command = datasets.add_place(Place("nexcage-zfs", "dir", "/tank/c"))
    said = Result(255, b"", b"create storage failed: storage ID 'nexcage-zfs' already defined\n")

    assert (
        " ".join(command.argv) == "pvesm add dir nexcage-zfs --path /tank/c --content rootdir,images --is_mountpoint 1"
    )
    assert isinstance(command.classify(command, said, "pve-01"), AlreadyExists)
