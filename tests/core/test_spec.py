"""What a container should be: refused field by field, and nothing that is accepted can say more than it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexcage import Command, InvalidInput, InvalidSpec, Mark, Net, Result, Spec
from nexcage.errors import NexcageError
from nexcage.testing import SimCluster, virtual_run
from nexcage.tools import config, pct

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDyHCanaryKeyThatMustNeverBeInArgv me@example"
LINES = ["a\nb", "a\x00b", "a\rb", "a\x85b", "a\u2028b", "\ud800", "\x1b[2J"]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("image", ["", "two words", None, 5, b"x.tar", "UPPER", "/x/../y", *LINES]),
        ("memory", [15, 1 << 31, 512.0, "512", True, None]),
        ("swap", [-1, "0", None, False]),
        ("cores", [0, 8193, 1.0, "2", True]),
        ("hostname", ["", "-a", "a_b", "a.", "a" * 64, 5, *LINES]),
        ("storage", ["", "a", "a b", "a,b", "-a", "a:b", 5, *LINES]),
        ("size", [0, -1, 1.5, "8G", True, (1 << 20) + 1]),
        ("nets", [None, Net(), "eth0", ("eth0",), (Net(), Net()), (None,), tuple(Net(f"e{n}") for n in range(33))]),
        ("ssh_public_keys", [None, KEY, (5,), ("short",), (KEY + "\nmore",), (KEY + "\x00",), (KEY + "é",), ("k" * 20000,)]),
        ("unprivileged", [0, 1, "no", None]),
        ("onboot", [0, "no", None]),
        ("tags", [None, "web", (5,), ("",), ("a;b",), ("a,b",), ("a b",), ("-a",), ("é",), ("\u212a",), *((t,) for t in LINES)]),
        ("description", [None, 5, b"x", "x" * 4097, "a\tb", "a\rb", "\x00", "\x1b", "\x85", "\u2029", "\ud800"]),
        ("description", ["nexcage fleet=f id=other vmid=1 op=x", "hello\nnexcage fleet="]),
        ("backend", ["", "LXC", "a b", 5, "-x", *LINES]),
        ("node", ["", "a b", 5, "é", "x" * 256, *LINES]),
        ("bundle", ["", 5, "/a/../b", *LINES]),
        ("mounts", [None, "mp0=x", {"rootfs": "local:8,mp=/"}, {"mp256": "local:8,mp=/a"}, {"mp0": "local:8"}]),
        ("mounts", [{"mp0": 5}, {5: "local:8,mp=/a"}, *({"mp0": f"local:8,mp=/{line}"} for line in LINES)]),
        ("devices", [None, {"dev256": "/dev/fuse"}, {"dev0": "/etc/passwd"}, {"dev0": "/dev/../etc"}, {"dev0": "/dev/fuse,mode=660"}]),
        ("devices", [{"dev0": "/dev/fuse,uid=4294967295"}, {"dev0": "/dev/fuse,uid=7,uid=7"}, *({"dev0": f"/dev/{x}"} for x in LINES)]),
        ("cpulimit", ["1", -1, 0.001, 8193, float("nan"), True]),
        ("cpuunits", ["1", -1, 1.5, 500_001, True]),
        ("features", ["", "nesting", "nesting=2", "nesting=1,nesting=0", "nestin=1", "mount=", 5, *(f"mount={x}" for x in LINES)]),
        ("startup", ["", "2", "order=-1", "up=1,up=2", "later=1", 5, "order=1\n"]),
        ("nameserver", [None, "1.1.1.1", (5,), ("",), ("one",), ("01.0.0.1",), ("fd00::1%eth0",), ("1.1.1.1,x",), *((x,) for x in LINES)]),
        ("timezone", ["", "Berlin/", "utc,x", 5, *LINES]),
        ("pool", ["", "a b", "a/b/c/d", 5, *LINES]),
        ("hookscript", ["", "hook.pl", "local:iso/x", "local:snippets/a/b", "local:snippets/a,b", 5]),
        ("hookscript", [f"local:snippets/{line}" for line in LINES]),
        ("arch", ["", "x86_64", 5]),
        ("ostype", ["", "l26", 5]),
        ("protection", [0, 1, "no", None]),
        ("annotations", [None, "a", [("a", "b")], {"": "x"}, {5: "x"}, {"a": 5}, {"a\x00": "x"}, {"a": "\ud800"}, {"\udfff": ""}]),
    ],
)  # fmt: skip
def test_a_bad_field_is_refused_by_its_name(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidInput) as refused:
            Spec(**{"image": DEBIAN, field: value})
        named = refused.value.field
        assert named in (field, field.removesuffix("s"), "path"), (value, named)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ["", "a" * 16, "a b", "a,b", "a=b", None, 5, *LINES]),
        ("bridge", ["", "0br", "a" * 16, "vmbr0,firewall=0", 5, *LINES]),
        ("ip", ["10.0.0.1", "10.0.0.1/7", "10.0.0.1/33", "10.0.0.256/24", "010.0.0.1/24", "10.0.0.1/24,gw=1.1.1.1", "auto"]),
        ("ip", ["DHCP", "::1/64", 5, "٣.0.0.1/24", "10.0.0.1/24\n", "10.0.0.1/ 24", "10.0.0.1/", "/24"]),
        ("ip6", ["fd00::1", "fd00::1/129", "fd00::1/7", "....../64", "fd00:::1/64", "fe80::1%eth0/64", "10.0.0.1/24", 5, "fd00::1/64\n"]),
        ("gw", ["", "10.0.0", "10.0.0.1/24", "01.0.0.1", "::1", 5, "10.0.0.1,tag=5", "10.0.0.1\n"]),
        ("gw6", ["", "10.0.0.1", "..", "fd00::1/64", "fe80::1%eth0", 5, "fd00::1\n"]),
        ("hwaddr", ["", "00:11:22:33:44", "01:00:00:00:00:01", "00-11-22-33-44-55", "00:11:22:33:44:5g", 5]),
        ("tag", [0, 4095, "7", 7.0, True]),
        ("mtu", [63, 65536, "1500", True]),
        ("rate", [0, -1, 1e6, float("nan"), float("inf"), "5", True]),
        ("firewall", [0, 1, "1", "1,hwaddr=00:11:22:33:44:55"]),
    ],
)  # fmt: skip
def test_a_bad_network_is_refused_by_its_field(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidSpec) as refused:
            Net(**{field: value})
        assert refused.value.field == f"net.{field}", value


def test_lists_are_taken_as_tuples() -> None:
    given: dict[str, Any] = {"tags": ["a"], "nets": [Net()], "ssh_public_keys": [KEY]}
    assert Spec(DEBIAN, **given) == Spec(DEBIAN, tags=("a",), ssh_public_keys=(KEY,))


@given(st.text(alphabet="name=,eth0bridgvmip10./dhcptagrw:\n\x00٣ ", max_size=60) | st.text(max_size=20))
def test_a_network_as_pve_spells_it_is_read_or_refused(text: str) -> None:
    try:
        net = Net.parse(text)
    except InvalidInput:
        return
    assert Net.parse(pct.net(net)) == net


def octets(low: int, high: int) -> st.SearchStrategy[str]:
    return st.tuples(*[st.integers(0, 255)] * 4, st.integers(low, high)).map(lambda t: "{}.{}.{}.{}/{}".format(*t))


nets = st.builds(
    Net,
    name=st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True),
    bridge=st.just("vmbr0"),
    ip=st.sampled_from([None, "dhcp", "manual"]) | octets(8, 32),
    gw=st.none() | octets(8, 32).map(lambda text: text.partition("/")[0]),
    ip6=st.sampled_from([None, "dhcp", "manual", "auto"]) | st.ip_addresses(v=6).map("{}/64".format),
    gw6=st.none() | st.ip_addresses(v=6).map(str),
    hwaddr=st.none() | st.just("BC:24:11:00:00:01"),
    tag=st.none() | st.integers(1, 4094),
    mtu=st.none() | st.integers(64, 1500),
    rate=st.none() | st.integers(1, 99999) | st.floats(0.001, 99999).map(lambda value: round(value, 3)),
    firewall=st.none() | st.booleans(),
)
lines = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"), max_size=30)
descriptions = st.lists(
    lines | st.sampled_from(["[s1]", "lock: backup", "#x", "nexcage", "memory: 1", "%0Aevil: 1", ""]), max_size=5
)
specs = st.builds(
    Spec,
    st.just(DEBIAN),
    memory=st.integers(16, 1 << 20),
    swap=st.integers(0, 4096),
    cores=st.none() | st.integers(1, 64),
    hostname=st.from_regex(r"[A-Za-z0-9]{1,9}(\.[A-Za-z0-9]{1,9})?", fullmatch=True),
    storage=st.just("local-zfs"),
    size=st.none() | st.integers(1, 64),
    nets=st.lists(nets, max_size=4, unique_by=lambda net: net.name).map(tuple),
    ssh_public_keys=st.lists(st.just(KEY), max_size=2).map(tuple),
    unprivileged=st.booleans(),
    onboot=st.booleans(),
    tags=st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,9}", fullmatch=True), max_size=4).map(tuple),
    description=descriptions.map("\n".join).filter(lambda text: "\nnexcage fleet=" not in f"\n{text}"),
)


def written(command: Command[None]) -> tuple[Result, str]:
    """What a node says to the command, and the config that it then has."""

    async def main() -> tuple[Result, str]:
        with SimCluster(1, seed=1) as sim:
            result = await sim["pve-01"].run(command.argv, stdin=command.stdin)
            return result, sim["pve-01"].model.config(104) or ""

    return virtual_run(main)


@settings(max_examples=60)
@given(specs)
def test_what_reaches_the_config_is_exactly_what_was_wanted(spec: Spec) -> None:
    """No tag, name, address, key or description can add a line, a key or a property of its own."""
    mark = Mark("f1", "web+1.x", 104, "op.1")
    command = pct.create(mark, DEBIAN, spec, pct.hostname_for("web-1", spec))
    assert not any(KEY in word or "\x00" in word for word in command.argv)

    result, text = written(command)

    assert result.exit == 0, result.stderr
    conf = config.parse(text)
    wanted = {
        "arch",
        "hostname",
        "memory",
        "ostype",
        "rootfs",
        "swap",
        "tags",
        *(f"net{n}" for n in range(len(spec.nets))),
    }
    wanted |= {"cores"} if spec.cores else set()
    wanted |= {"onboot"} if spec.onboot else set()
    wanted |= {"unprivileged"} if spec.unprivileged else set()
    assert set(conf.values) == wanted
    assert (conf.raw, conf.broken, conf.pending, conf.snapshots) == ((), (), None, {})
    values = conf.values
    assert (values["hostname"], values["memory"], values["swap"]) == (spec.hostname, str(spec.memory), str(spec.swap))
    assert values["tags"].split(";") == sorted({"nexcage", *(tag.lower() for tag in spec.tags)})
    for index, net in enumerate(spec.nets):
        kept = config.property_string(values[f"net{index}"])
        asked = config.property_string(pct.net(net))
        assert {key: value for key, value in kept.items() if key in asked} == asked
        assert set(kept) - set(asked) <= {"type", "hwaddr"}
    assert conf.description.rstrip("\n") == f"{mark}\n{spec.description}".rstrip("\n")
    assert Mark.find(conf.description) == mark


besides = st.builds(
    Spec,
    st.just(DEBIAN),
    nets=st.just(()),
    size=st.none() | st.integers(1, 64),
    mounts=st.dictionaries(
        st.integers(0, 255).map("mp{}".format),
        st.sampled_from(["local:8,mp=/srv/a", "local-zfs:1.5,mp=/b,backup=1,ro=1", "/mnt/x y,mp=/c,mountoptions=noatime;nodev"]),
        max_size=3,
    ),
    devices=st.dictionaries(
        st.integers(0, 255).map("dev{}".format),
        st.sampled_from(["/dev/fuse", "/dev/fuse,mode=0660,uid=7,gid=4294967294", "/dev/net/tun,deny-write=1"]),
        max_size=3,
    ),
    cpulimit=st.none() | st.just(0) | st.floats(0.01, 8192).map(lambda value: round(value, 3)),
    cpuunits=st.none() | st.integers(0, 500_000),
    features=st.none() | st.sampled_from(["nesting=1", "fuse=0,keyctl=1,mount=nfs;cifs,nesting=1"]),
    startup=st.none() | st.sampled_from(["order=0", "order=2,up=30,down=60", "down=5"]),
    nameserver=st.lists(st.ip_addresses().map(str) | st.just("fe80::1%eth0"), max_size=3).map(tuple),
    searchdomain=st.lists(st.sampled_from(["lan", "example.com"]), max_size=2).map(tuple),
    timezone=st.none() | st.sampled_from(["host", "UTC", "Europe/Berlin", "America/Argentina/Ushuaia"]),
    hookscript=st.none() | st.just("local:snippets/hook-1.pl"),
    arch=st.none() | st.sampled_from(["amd64", "arm64"]),
    ostype=st.none() | st.sampled_from(["debian", "unmanaged"]),
    protection=st.booleans(),
)  # fmt: skip


@given(besides)
def test_every_setting_reaches_the_command_once_and_reads_back_as_it_was_said(spec: Spec) -> None:
    command = pct.create(Mark("f1", "web-1", 104, "op-1"), DEBIAN, spec, "web-1")
    words = command.argv[4:]  # behind pct create VMID TEMPLATE
    said = dict(zip(words[::2], words[1::2], strict=True))

    assert len(said) * 2 == len(words)
    for key, text in {**spec.mounts, **spec.devices}.items():
        assert sorted(said[f"--{key}"].split(",")) == sorted(text.split(","))
    for key in ("features", "startup", "timezone", "hookscript", "arch", "ostype"):
        assert said.get(f"--{key}") == getattr(spec, key)
    for key in ("nameserver", "searchdomain"):
        assert tuple(said.get(f"--{key}", "").split()) == getattr(spec, key)
    assert (float(said["--cpulimit"]) if "--cpulimit" in said else None) == spec.cpulimit
    assert said.get("--cpuunits") == (None if spec.cpuunits is None else str(spec.cpuunits))
    assert ("--protection" in said) == spec.protection
    assert ("--rootfs" in said) == bool(spec.size or spec.mounts)


@given(besides)
def test_the_settings_of_a_spec_survive_the_journal(spec: Spec) -> None:
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec


def test_what_is_not_said_is_not_written_so_that_old_journals_and_new_ones_read_alike() -> None:
    old = f'{{"image":"{DEBIAN}"}}'.encode()

    assert msgspec.json.encode(Spec(DEBIAN)) == old
    assert msgspec.json.decode(old, type=Spec) == Spec(DEBIAN)


@pytest.mark.parametrize("more", [pct.Settings(timezone="UTC"), pct.Settings(rootfs=None, timezone="host", tty=1)])
def test_what_a_spec_says_is_not_said_again_beside_it(more: pct.Settings) -> None:
    with pytest.raises(InvalidSpec, match="timezone"):
        pct.create(Mark("f1", "web-1", 104, "op-1"), DEBIAN, Spec(DEBIAN, timezone="UTC"), "web-1", more)


@given(specs)
def test_a_spec_survives_the_journal(spec: Spec) -> None:
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec


def test_a_rate_is_never_written_with_an_exponent() -> None:
    for rate, word in ((0.00001, "0.00001"), (999999.5, "999999.5"), (1.0, "1"), (12345.678, "12345.678"), (7, "7")):
        assert f"rate={word}" in pct.net(Net(rate=rate)).split(",")


def test_an_id_that_is_no_host_name_asks_for_one() -> None:
    assert pct.hostname_for("web-1", Spec(DEBIAN)) == "web-1"
    assert pct.hostname_for("a_b", Spec(DEBIAN, hostname="ab")) == "ab"
    with pytest.raises(NexcageError, match="--hostname"):
        pct.hostname_for("a_b", Spec(DEBIAN))
