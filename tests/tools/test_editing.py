"""Config files edited by hand: what was not asked for stays as it was, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage.errors import InvalidInput
from nexcage.tools.config import parse
from nexcage.tools.editing import digest, edited

TEXT = """\
#about
arch: amd64
not a line
hostname:  web
net0: name=eth0
lxc.signal.halt: SIGTERM
lxc.environment.runtime = A=1

[pve:pending]
memory: 1024

[s1]
hostname: old
lxc.cap.drop: mknod
"""


def test_a_changed_key_is_the_only_change() -> None:
    assert edited(TEXT, {"hostname": "db"}) == TEXT.replace("hostname:  web", "hostname: db")


def test_a_new_key_goes_where_pve_sorts_it_and_never_into_a_snapshot() -> None:
    assert edited(TEXT, {"memory": "64"}) == TEXT.replace("hostname:  web\n", "hostname:  web\nmemory: 64\n")
    assert edited("arch: amd64\n\n[s1]\nhostname: x\n", {"tags": "a"}) == (
        "arch: amd64\ntags: a\n\n[s1]\nhostname: x\n"
    )
    assert edited("", {"tags": "a"}) == "tags: a\n"


def test_a_raw_key_takes_all_of_its_lines() -> None:
    drops = edited(TEXT, raw={"lxc.cap.drop": ["mac_admin", "sys_time"]})

    assert parse(drops).raw[-2:] == (("lxc.cap.drop", "mac_admin"), ("lxc.cap.drop", "sys_time"))
    assert parse(drops).snapshots == parse(TEXT).snapshots
    assert edited(drops, raw={"lxc.cap.drop": []}) == TEXT


def test_a_key_is_removed_with_every_line_of_it() -> None:
    assert edited("tags: a\nmemory: 1\ntags: b\n", {"tags": None}) == "memory: 1\n"


@given(st.text())
def test_nothing_asked_is_nothing_changed(text: str) -> None:
    assert edited(text) == text


KEYS = st.sampled_from(["memory", "tags", "hostname", "net0", "zz9", "arch"])
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
LINES = st.lists(
    st.sampled_from(["arch: amd64", "#x", "", "broken", "memory = 5", "memory:1", "lxc.a: 1", "[s1]", "[pve:pending]", "tags: "])
    | st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12),
    max_size=8,
).map("\n".join)  # fmt: skip


@given(LINES, KEYS, st.none() | WORDS)
def test_the_key_is_as_asked_and_all_else_as_it_was(text: str, key: str, value: str | None) -> None:
    before, after = parse(text), parse(edited(text, {key: value}))

    assert after.get(key) == value
    assert {k: v for k, v in after.values.items() if k != key} == {k: v for k, v in before.values.items() if k != key}
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    ("key", "value"),
    [("tags", "a\nlock: backup"), ("tags", ""), ("tags", " a"), ("rootfs", "x"), ("lock", "backup"), ("parent", "x"),
     ("[s1]", "x"), ("a: b\nc", "x"), ("description", "x"), ("tags", "a\r"), ("tags", "\0")],
)  # fmt: skip
def test_what_would_be_another_line_or_is_pves_own_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        edited(TEXT, {key: value})


@pytest.mark.parametrize("key", ["lxc.rootfs.path", "lxc.rootfs.options", "memory", "lxc.x: 1\nlock", "lxc."])
def test_a_raw_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput):
        edited(TEXT, raw={key: ["x"]})


def test_the_digest_is_the_sha_1_of_the_bytes() -> None:
    assert digest("memory: 512\n") == digest(b"memory: 512\n") == "21b62d471309a3f7474fdb8b45e9ae722dfe5e51"
    assert digest("#\u00e4\n") == digest("#\u00e4\n".encode())
