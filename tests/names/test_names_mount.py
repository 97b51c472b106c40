"""A mount point is one value in PVE's comma list: it reads back as it was written and cannot leave its place."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage.errors import InvalidInput, InvalidSpec
from nexcage.names import Mount, mount

SOURCES = st.sampled_from(
    [
        "local:8",
        "local-zfs:0.5",
        "zfs:subvol-100-disk-1",
        "local:100/vm-100-disk-0.raw",
        "zfs:basevol-9-disk-0/subvol-1-disk-0",
        "/dev/sdb1",
    ]
) | st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters=",="), min_size=1, max_size=20).map(
    lambda name: f"/srv/{name}x"
)
FLAG = st.none() | st.booleans()
MOUNTS = st.fixed_dictionaries(
    {
        "source": SOURCES.filter(lambda source: ".." not in source.split("/")),
        "target": st.from_regex(r"/[a-z0-9][a-z0-9=' _-]{0,20}[a-z]", fullmatch=True),
        **dict.fromkeys(("acl", "backup", "keepattrs", "quota", "replicate", "ro", "shared"), FLAG),
        "idmap": st.none() | st.sampled_from(["passthrough", "u:0:100000:65536", "u:0:0:1;g:0:0:1"]),
        "mountoptions": st.lists(
            st.sampled_from(["discard", "lazytime", "noatime", "nodev", "noexec", "nosuid"]), unique=True
        ).map(tuple),
        "size": st.none() | st.sampled_from(["8G", "512M", "1.5T", "0", "1024"]),
    }
)


@given(fields=MOUNTS)
def test_what_is_rendered_reads_back_equal(fields: dict[str, Any]) -> None:
    made = Mount(**fields)

    assert mount(made.render()) == made
    assert mount(made.render()).render() == made.render()
    assert msgspec.json.decode(msgspec.json.encode(made), type=Mount) == made


def pve_parse(text: str) -> dict[str, str]:
    """A property string as PVE's parser splits it."""
    found: dict[str, str] = {}
    for part in text.split(","):
        if keyed := re.fullmatch(r"([^=]+)=(.+)", part, re.DOTALL):
            assert keyed[1] not in found
            found[keyed[1]] = keyed[2]
        else:
            assert "=" not in part
            assert "volume" not in found
            found["volume"] = part
    return found


@given(
    source=st.text("/a,=:\n ;.8é\u2028", max_size=12),
    target=st.text("/a,=:\n ;.é", max_size=8),
    size=st.none() | st.text("8G,=\n", max_size=3),
)
def test_nothing_that_is_accepted_leaves_its_place(source: str, target: str, size: str | None) -> None:
    try:
        made = Mount(source, target, ro=True, size=size)
    except InvalidInput:
        return
    expected = {"volume": source, "mp": target, "ro": "1"} | ({"size": size} if size else {})

    assert pve_parse(made.render()) == expected
    assert made.render().splitlines() == [made.render()]
    assert made.render().strip() == made.render()


@pytest.mark.parametrize(
    ("text", "kind", "storage"),
    [
        ("local:8,mp=/a", "new", "local"),
        ("local:0.5,mp=/a", "new", "local"),
        ("zfs:subvol-100-disk-0,mp=/a", "volume", "zfs"),
        ("local:100/vm-100-disk-0.raw,mp=/a", "volume", "local"),
        ("/dev/disk/by-id/x,mp=/a", "device", None),
        ("/srv/größe,mp=/a", "bind", None),
        ("/device,mp=/a", "bind", None),
    ],
)
def test_the_source_says_what_it_is(text: str, kind: str, storage: str | None) -> None:
    assert (mount(text).kind, mount(text).storage) == (kind, storage)


def test_every_option_is_a_typed_field() -> None:
    text = (
        "/srv,ro=yes,acl=0,mp=/data,size=8G,backup=On,quota=FALSE,shared=1,replicate=no,keepattrs=true,"
        "mountoptions=noatime;nodev,idmap=passthrough"
    )

    made = mount(text)

    assert made == Mount(
        "/srv", "/data", ro=True, acl=False, size="8G", backup=True, quota=False, shared=True, replicate=False,
        keepattrs=True,
        mountoptions=("noatime", "nodev"), idmap="passthrough",
    )  # fmt: skip
    assert made.render() == (
        "/srv,mp=/data,acl=0,backup=1,keepattrs=1,quota=0,replicate=0,ro=1,shared=1,idmap=passthrough,mountoptions=noatime;nodev,size=8G"
    )


@pytest.mark.parametrize(
    "bad",
    ["", ",", "local:8", "mp=/a", "local:8,mp=", "local:8,mp=a", "local:8,mp=/", "local:8,mp=//",
    "local:8,mp=/a/../b", "local:8,mp=/./a", "local:8,mp=/..",
     "local:8,mp=/é", "local:8,mp=/a ", "local:8,mp=/a\n", "local:8,mp=/a\x7f", "local:8,mp=/a,", "local:8,,mp=/a",
     "local:8,mp=/a,mp=/b", "local:8,mp=/a,ro=1,ro=1",
     "local:8,mp=/a,ro",
     "local:8,mp=/a,ro=", "local:8,mp=/a,ro=2", "local:8,mp=/a,ro=ye\u017f", "local:8,mp=/a,bogus=1",
     "local:8,mp=/a,volume=x:1", "local:8,mp=/a,RO=1",
     "local:8,mp=/a,size=", "local:8,mp=/a,size=8X", "local:8,mp=/a,size=-1", "local:8,mp=/a,size=\u0668G",
     "local:8,mp=/a,mountoptions=", "local:8,mp=/a,mountoptions=suid",
     "local:8,mp=/a,mountoptions=nodev;nodev", "local:8,mp=/a,mountoptions=nodev;", "local:8,mp=/a,idmap=",
     "local:8,mp=/a,idmap=x:0:0:1",
     "local:8,mp=/a,idmap=u:0:0:0", "local:8,mp=/a,idmap=u:0:4294967296:1", "8,mp=/a", "l:8,mp=/a", "local:,mp=/a",
     "local:-1,mp=/a", "local:\u0668,mp=/a", "local:é,mp=/a",
     "local:../x,mp=/a", "local:a//b,mp=/a", "local:/etc,mp=/a", "local:8 ,mp=/a", " local:8,mp=/a", "-x,mp=/a",
     "volume=local:8,mp=/a", "srv,mp=/a", "./srv,mp=/a",
     "/,mp=/a", "/srv/../etc,mp=/a", "/srv=x,mp=/a", "/srv ,mp=/a", "/srv\u00a0,mp=/a", "/srv\n,mp=/a",
     "/srv\u2028x,mp=/a", "/srv\x00,mp=/a", "/\udc80,mp=/a"],
)  # fmt: skip
def test_a_malformed_mount_is_refused_whole(bad: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        mount(bad)

    assert (caught.value.field, caught.value.value) == ("mount", bad)


@pytest.mark.parametrize(
    "fields",
    [{"source": "/a,ro=1"}, {"source": "local:8\n"}, {"source": b"/a"}, {"target": "/a,ro=1"}, {"target": None},
    {"ro": 1}, {"ro": "1"}, {"size": 8},
     {"size": "8G,ro=1"}, {"idmap": "passthrough,ro=1"}, {"idmap": 0}, {"mountoptions": ["nodev"]},
     {"mountoptions": ("nodev,ro=1",)}, {"mountoptions": (["x"],)}],
)  # fmt: skip
def test_a_mount_made_by_hand_is_checked_too(fields: dict[str, Any]) -> None:
    given: dict[str, Any] = {"source": "/srv", "target": "/data"}

    with pytest.raises(InvalidSpec):
        Mount(**{**given, **fields})


def test_a_mount_from_outside_is_checked_too() -> None:
    with pytest.raises(msgspec.ValidationError, match="mount"):
        msgspec.json.decode(b'{"source": "/srv,ro=1", "target": "/data"}', type=Mount)


def test_the_repr_is_a_status_line() -> None:
    assert repr(mount("/srv/é,mp=/data,ro=1")) == r"<Mount '/srv/\xe9,mp=/data,ro=1': bind>"
