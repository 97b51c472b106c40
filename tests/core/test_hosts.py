"""Host strings and their ranges: what is written is what is opened, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Host, InvalidInput, InvalidName, hosts
from nexcage._core.hosts import LOCAL

near = st.text(alphabet="ab019-.[],:@%/ \t\n_é٣", max_size=40)
labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("pve", ["pve"]),
        ("pve-[01-03].lan", ["pve-01.lan", "pve-02.lan", "pve-03.lan"]),
        ("pve[9-11]", ["pve9", "pve10", "pve11"]),
        ("pve[1,3-5]", ["pve1", "pve3", "pve4", "pve5"]),
        ("rack[a-c]", ["racka", "rackb", "rackc"]),
        ("r[1-2]n[a,b]", ["r1na", "r1nb", "r2na", "r2nb"]),
        ("root@pve[1-2]:2222", ["root@pve1:2222", "root@pve2:2222"]),
        ("b, a  c,\tb\n", ["b", "a", "c"]),
        ("[fe80::1%eth0]:22,10.0.0.[1-2]", ["[fe80::1%eth0]:22", "10.0.0.1", "10.0.0.2"]),
    ],
)
def test_a_pattern_gives_its_hosts_in_the_order_written(pattern: str, found: list[str]) -> None:
    assert list(hosts(pattern)) == found


@pytest.mark.parametrize(
    "pattern",
    [
        "", " , ", "pve-[05-01]", "pve-[a-]", "pve-[-3]", "pve-[1,,2]", "pve-[1", "pve-1]", "pve-[]", "pve-[aa-bb]", "pve-[c-a]",
        "-oProxyCommand=x", "a b;c", "pve/1", "pvé", "pve:", "pve:0", "pve:65536", "pve:٣", "@pve", "a+b@pve", "pve.", "[::1", "[::1]x",
        "[::1]:", [], [""], ["a", 5], b"pve", 5, None, {"a": 1}.values(), "x" * 300,
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(pattern: object) -> None:
    with pytest.raises(InvalidInput):
        hosts(pattern)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["a[0-99999]b[0-9]", "[1,1]" * 60, "[a]" * 5000, ["a[0-59999]", "b[0-59999]"]])
def test_a_pattern_that_runs_away_is_refused_at_once(pattern: str | list[str]) -> None:
    with pytest.raises(InvalidName):
        hosts(pattern)


def test_a_long_list_of_hosts_is_read_as_quickly_as_a_range() -> None:
    names = hosts("pve-[00001-20000].lan")
    assert hosts(",".join(names)) == names


@given(near)
def test_hosts_gives_hosts_or_says_what_is_wrong(pattern: str) -> None:
    try:
        found = hosts(pattern)
    except InvalidInput as error:
        assert "\n" not in str(error)
    else:
        assert found
        assert len(set(found)) == len(found)
        for name in found:
            assert Host.parse(name).key == name
            assert not name.startswith("-")


@given(st.lists(st.builds("{}{}.lan".format, labels, st.integers(0, 999)), min_size=1, unique=True))
def test_names_written_out_come_back_as_they_are(names: list[str]) -> None:
    assert hosts(",".join(names)) == tuple(names) == hosts(names) == hosts(iter(names))


@given(st.integers(0, 500), st.integers(0, 60), st.integers(1, 5))
def test_a_range_keeps_its_width(low: int, length: int, width: int) -> None:
    found = hosts(f"n[{low:0{width}d}-{low + length:0{width}d}]")
    assert [int(name[1:]) for name in found] == list(range(low, low + length + 1))
    if len(f"{low:0{width}d}") == len(f"{low + length:0{width}d}"):
        assert len({len(name) for name in found}) == 1


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("pve", Host("pve", "pve")),
        ("root@pve:2222", Host("root@pve:2222", "pve", "root", 2222)),
        ("10.0.0.1", Host("10.0.0.1", "10.0.0.1")),
        ("fe80::1%eth0", Host("fe80::1%eth0", "fe80::1%eth0")),
        ("[::1]", Host("[::1]", "::1")),
        ("me@[2001:db8::1]:22", Host("me@[2001:db8::1]:22", "2001:db8::1", "me", 22)),
        (LOCAL, Host(LOCAL)),
    ],
)
def test_a_host_string_says_how_to_log_in(text: str, host: Host) -> None:
    assert Host.parse(text) == host
    assert Host.parse(text).local == (text == LOCAL)


@given(st.one_of(near, st.binary(), st.integers(), st.none()))
def test_parse_never_raises_but_invalid_input(value: object) -> None:
    try:
        host = Host.parse(value)
    except InvalidInput:
        return
    assert host.key == value
    assert 0 <= host.port <= 65535
    assert not host.address.startswith("-")
    assert not host.user.startswith("-")
