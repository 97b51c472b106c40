"""The values in PVE's options: what PVE wrote is read back, and nothing that we write ends early."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nexcage
from nexcage.errors import InvalidInput, InvalidSpec, NexcageError
from nexcage.tools import values
from nexcage.tools.config import property_string

CASES = Path(__file__).parent.parent / "cases" / "pct"
KINDS: dict[str, type[values.Value | values.Startup]] = {
    "dev": values.Device,
    "features": values.Features,
    "mp": values.MountPoint,
    "net": values.Net,
    "rootfs": values.Rootfs,
    "startup": values.Startup,
    "unused": values.Unused,
}
STRUCTS: list[type[values.Value]] = [
    values.Device, values.Features, values.MountPoint, values.Net, values.Rootfs, values.Unused,
]  # fmt: skip


def recorded() -> Iterator[tuple[str, str]]:
    lines: set[str] = set()
    for file in sorted(CASES.glob("*.jsonl")):
        for text in file.read_text().splitlines():
            case = json.loads(text)
            for part in ("before", "after"):
                for config in case[part]["configs"].values():
                    lines.update(config.split("\n"))
    for line in sorted(lines):
        key, _, value = line.partition(": ")
        kind = re.sub("[0-9]+$", "", key)
        # One recorded snapshot section holds this rootfs, which PVE itself cannot read.
        if kind in KINDS and value.count("size=") < 2:
            yield kind, value


def test_every_recorded_value_is_read_and_written_back() -> None:
    seen = list(recorded())

    for kind, text in seen:
        written = str(KINDS[kind].parse(text))
        assert sorted(written.split(",")) == sorted(text.split(","))
        if kind != "features":  # kept as typed; PVE writes every other kind in its own order
            assert written == text
    assert len(seen) > 40


def test_unknown_keys_are_kept_and_refused_with_a_suggestion_where_asked() -> None:
    text = "name=eth0,bridge=vmbr0,frobnicate=1"

    assert str(values.Net.parse(text)) == text
    with pytest.raises(InvalidSpec, match=r"hwaddr, perhaps\?"):
        values.Net.parse("name=eth0,hwadr=BC:24:11:00:00:01", strict=True)


def test_a_network_with_every_key() -> None:
    net = values.Net(
        name="eth0", bridge="vmbr0", firewall=True, gw="10.0.0.1", gw6="fd00::1", host_managed=True,
        hwaddr="BC:24:11:00:00:01", ip="10.0.0.5/24", ip6="fd00::5/64", link_down=False, mtu=1400, rate=12.5,
        tag=7, trunks=(2, 3), type="veth", more=(("future", "1"),),
    )  # fmt: skip

    assert str(net) == (
        "name=eth0,bridge=vmbr0,firewall=1,future=1,gw=10.0.0.1,gw6=fd00::1,host-managed=1,hwaddr=BC:24:11:00:00:01,"
        "ip=10.0.0.5/24,ip6=fd00::5/64,link_down=0,mtu=1400,rate=12.5,tag=7,trunks=2;3,type=veth"
    )
    assert values.Net.parse(str(net)) == net


def test_a_net_of_a_spec_is_the_same_interface() -> None:
    spec = nexcage.Net(ip="10.0.0.5/24", gw="10.0.0.1", tag=7, rate=1.5, firewall=True)

    assert values.Net.of(spec) == values.Net.parse(
        "name=eth0,bridge=vmbr0,firewall=1,gw=10.0.0.1,ip=10.0.0.5/24,rate=1.5,tag=7"
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("net", "bridge=vmbr0"),
        ("net", "name=eth0,ip=notanip"),
        ("net", "name=eth0,ip=10.0.0.5"),
        ("net", "name=eth0,ip=10.0.0.5/7"),
        ("net", "name=eth0,ip=10.0.0.256/24"),
        ("net", "name=eth0,ip6=auto,host-managed=1"),
        ("net", "name=eth0,tag=9999"),
        ("net", "name=eth0,hwaddr=zz"),
        ("net", "name=eth0,hwaddr=01:24:11:00:00:01"),
        ("net", "name=eth0,name=eth1"),
        ("net", "name=eth0,mtu=10"),
        ("net", "name=eth0,trunks=1;x"),
        ("net", "name=eth0,firewall=2"),
        ("net", "name=eth0,type=tap"),
        ("net", "name="),
        ("features", "nesting=2"),
        ("features", "nesting"),
        ("rootfs", "size=4G"),
        ("rootfs", "local:1,size=big"),
        ("rootfs", "local:1,mountoptions=suid"),
        ("rootfs", "local:1,idmap=x"),
        ("rootfs", "local:1,local:2"),
        ("mp", "local:1"),
        ("mp", "/srv,mp=../x"),
        ("mp", "/srv/../etc,mp=/x"),
        ("dev", "/etc/passwd"),
        ("dev", "/dev/../etc/passwd"),
        ("dev", "/dev/fuse,mode=666"),
        ("startup", "soon"),
        ("startup", "order=1,order=2"),
        ("startup", ""),
    ],
)
def test_what_pve_refuses_is_refused_without_a_node(kind: str, text: str) -> None:
    with pytest.raises(InvalidSpec):
        KINDS[kind].parse(text)


def test_what_pve_takes_is_taken() -> None:
    assert values.MountPoint.parse("local:1,mp=data").kind == "new"
    assert values.MountPoint.parse("/dev/sdb1,mp=/x").kind == "device"
    assert values.MountPoint.parse("/srv,mp=/srv,ro=yes").ro is True
    assert values.Rootfs.parse("volume=tank:subvol-1-disk-0").storage == "tank"
    assert values.Rootfs.parse("8").kind == "new"
    assert values.Device.parse("path=/dev/net/tun") == values.Device(path="/dev/net/tun")
    assert values.Startup.parse("3,up=4") == values.Startup(order=3, up=4)
    assert str(values.Features(mount=("nfs", "cifs"), nesting=True)) == "mount=nfs;cifs,nesting=1"
    assert values.Rootfs.parse("l1:0,idmap=u:0:1000:1;g:0:1000:1").idmap == "u:0:1000:1;g:0:1000:1"


@pytest.mark.parametrize(
    ("text", "count", "written"),
    [("4G", 4 << 30, "4G"), ("1536M", 1536 << 20, "1536M"), ("1.5G", 1536 << 20, "1536M"), ("0T", 0, "0T"),
     ("0", 0, "0T"), ("1000", 1000, "1000"), ("8192G", 8 << 40, "8T")],
)  # fmt: skip
def test_sizes_are_written_in_the_largest_exact_unit(text: str, count: int, written: str) -> None:
    assert values.size_bytes(text) == count
    assert values.size_text(count) == written


@given(st.integers(0, (1 << 63) - 1))
def test_a_size_survives_its_text(count: int) -> None:
    assert values.size_bytes(values.size_text(count)) == count


def test_allocating_is_said_in_gib() -> None:
    assert values.allocate("tank", 8) == "tank:8"
    assert values.allocate("tank", 0.5) == "tank:0.5"
    for bad in (-1, float("nan"), float("inf"), True, "8"):
        with pytest.raises(InvalidInput):
            values.allocate("tank", bad)  # type: ignore[arg-type]  # a caller's mistake


def test_lists_are_joined_as_pve_stores_them() -> None:
    assert values.tags(["web", "prod", "Web"]) == "prod;web"
    assert values.split("web;prod, Blue  x") == ("web", "prod", "Blue", "x")
    assert values.split("a b\0c d") == ("a b", "c d")
    assert values.nameservers(["10.0.0.1", "fe80::1%eth0"]) == "10.0.0.1 fe80::1%eth0"
    for bad in (["a b"], ["a;b"], "web"):
        with pytest.raises(InvalidInput):
            values.tags(bad)
    with pytest.raises(InvalidInput):
        values.nameservers(["resolver.example"])


TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["a,b", "a\nb", "x\r", "\0", "1,ro=1", "/srv,mp=/etc", "a=b", " ", "local:1\nlock: backup", "a;b"]
)


@given(st.sampled_from(STRUCTS), st.data())
def test_no_value_can_end_its_line_or_its_part(kind: type[values.Value], data: st.DataObject) -> None:
    fields = {name: data.draw(TEXT) for name in kind.__struct_fields__ if name != "more" and data.draw(st.booleans())}
    more = data.draw(st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple))
    for key in (kind.bare, *kind.required):
        if key:
            fields.setdefault(key, data.draw(TEXT))

    try:
        text = str(kind(**fields, more=more))
    except NexcageError:
        return

    assert not re.search("[\x00-\x1f\x7f]", text)
    given_ = {key.replace("_", "-"): value for key, value in {**fields, **dict(more)}.items()}
    read = {key.replace("_", "-"): value for key, value in property_string(text, kind.bare).items()}
    assert read == given_


@given(st.sampled_from(STRUCTS), st.text(max_size=60))
def test_any_text_is_read_or_is_one_of_our_errors(kind: type[values.Value], text: str) -> None:
    try:
        value = kind.parse(text)
    except NexcageError:
        return
    assert kind.parse(str(value)) == value
