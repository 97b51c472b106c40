"""Three ways to say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexcage import IllegalTransition, InvalidInput, NotFound, Spec
from nexcage._cli.dialects import Targets, creation, kill_targets, runc_message, targets
from nexcage._cli.parser import Usage, parse

IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


def made(*argv: str, files: dict[str, str] | None = None, cwd: str = "/here") -> tuple[str, Spec]:
    return creation(parse(list(argv)), lambda path: (files or {})[path], cwd)


@pytest.mark.parametrize(
    "argv",
    [
        ["create", "web-1", "--image", IMAGE],
        ["create", "--image", IMAGE, "web-1"],
        ["create", "--name", "web-1", "--image", IMAGE],
        ["create", "--name", "web-1", IMAGE],
        ["create", IMAGE, "--name", "web-1"],
        ["--debug", "create", "--name=web-1", f"--image={IMAGE}"],
    ],
)
def test_our_words_and_the_predecessors_make_the_same_container(argv: list[str]) -> None:
    assert made(*argv) == ("web-1", Spec(image=IMAGE))


def test_an_engines_create_takes_its_bundle_relative_to_where_it_is_called() -> None:
    id, spec = made("--root", "/r", "create", "--bundle", "b", "--pid-file", "f", "web-1")

    assert (id, spec.image, spec.bundle) == ("web-1", "/here/b", "/here/b")
    assert made("--root", "/r", "create", "web-1")[1].bundle == "/here"


def test_a_bundle_may_be_named_in_our_words_too() -> None:
    assert made("create", "web-1", "--bundle", "/b")[1].bundle == "/b"
    assert made("create", "--bundle", "b", "--pid-file", "f", "web-1")[1].bundle == "/here/b"


def test_every_option_of_create_reaches_the_spec() -> None:
    argv = "create web-1 --runtime proxmox-lxc --memory 2G --swap 0 --cores 2 --hostname w.lan --storage local-zfs --size 8G "
    argv += "--net name=eth0,bridge=vmbr0,ip=dhcp --net name=eth1,bridge=vmbr1,ip=10.0.0.2/24 --ssh-public-keys - --privileged "
    argv += "--onboot --tag Web --tag blue;green --node pve-02 --image"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ x@y"

    id, spec = made(*argv.split(), IMAGE, "--description", "two words", files={"-": f"# mine\n\n{key}\n"})

    assert id == "web-1"
    assert (spec.backend, spec.memory, spec.swap, spec.cores, spec.size) == ("proxmox-lxc", 2048, 0, 2, 8)
    assert (spec.hostname, spec.storage, spec.node, spec.description) == ("w.lan", "local-zfs", "pve-02", "two words")
    assert [net.name for net in spec.nets] == ["eth0", "eth1"]
    assert (spec.ssh_public_keys, spec.tags) == ((key,), ("web", "blue", "green"))
    assert (spec.unprivileged, spec.onboot) == (False, True)


@pytest.mark.parametrize(
    "argv",
    [
        ["create"],
        ["create", "web-1"],
        ["create", "--name", "web-1"],
        ["create", "web-1", IMAGE],
        ["create", "--name", "web-1", IMAGE, "more"],
        ["create", "--name", "web-1", IMAGE, "--image", IMAGE],
        ["create", "web-1", "--image", IMAGE, "--bundle", "/b"],
        ["create", "web-1", "--image", IMAGE, "--privileged", "--unprivileged"],
    ],
)
def test_what_says_too_little_or_contradicts_itself_is_refused(argv: list[str]) -> None:
    with pytest.raises(Usage):
        made(*argv)


@pytest.mark.parametrize(
    "options, field",
    [
        (["--memory", "lots"], "memory"),
        (["--memory", "-1"], "memory"),
        (["--memory", "\u0665\u0661\u0662"], "memory"),
        (["--memory", "512 "], "memory"),
        (["--cores", "1.5"], "cores"),
        (["--size", "0"], "size"),
        (["--hostname", "a_b"], "hostname"),
        (["--hostname", "web\n"], "hostname"),
        (["--storage=-x"], "storage"),
        (["--net", "name=eth0,bridge=vmbr0\nx"], "net.bridge"),
        (["--net", "nonsense"], "net"),
        (["--tag=-x"], "tag"),
        (["--tag", "\u212aey"], "tag"),
        (["--description", "a\x00b"], "description"),
        (["--console-socket", "/s"], "console-socket"),
        (["--preserve-fds", "3"], "preserve-fds"),
    ],
)
def test_a_bad_value_is_refused_with_its_field_named(options: list[str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        made("create", "web-1", "--image", IMAGE, *options)

    assert caught.value.field == field


@pytest.mark.parametrize("id", ["", "-x", "a b", "a\n", "..", "a/b", "\u0430bc", "x" * 129])
def test_a_bad_id_is_refused_in_every_dialect(id: str) -> None:
    for argv in (
        ["create", "--image", IMAGE, "--", id],
        ["create", f"--name={id}", "--image", IMAGE],
        ["--root", "/r", "create", "--", id],
    ):
        with pytest.raises(InvalidInput) as caught:
            made(*argv)
        assert caught.value.field == "container_id"


def test_targets_are_ids_or_a_selector_and_never_both() -> None:
    assert targets(parse(["start", "a", "b", "a"])) == Targets(("a", "b"))
    assert targets(parse(["start", "--name", "a"])) == Targets(("a",))
    assert targets(parse(["start", "--all"])) == Targets(selector="")
    assert targets(parse(["start", "-l", "tag=web", "-l", "node=pve-0*"])) == Targets(selector="tag=web node=pve-0*")
    for argv in (["start"], ["start", "a", "--all"], ["start", "a", "--name", "b"]):
        with pytest.raises(Usage):
            targets(parse(argv))


@pytest.mark.parametrize(
    "argv, ids, signal",
    [
        (["a"], ("a",), "TERM"),
        (["a", "HUP"], ("a",), "HUP"),
        (["a", "9"], ("a",), "9"),
        (["-9", "a"], ("a",), "9"),
        (["-s", "SIGTERM", "a"], ("a",), "SIGTERM"),
        (["-s", "9", "a", "b", "c"], ("a", "b", "c"), "9"),
        (["--name", "a", "KILL"], ("a",), "KILL"),
        (["--name", "a", "--signal", "KILL"], ("a",), "KILL"),
    ],
)
def test_kill_takes_its_signal_in_every_spelling(argv: list[str], ids: tuple[str, ...], signal: str) -> None:
    assert kill_targets(parse(["kill", *argv])) == (Targets(ids), signal)


def test_kill_of_several_needs_the_signal_as_an_option() -> None:
    with pytest.raises(Usage, match="ID \\[SIGNAL\\]"):
        kill_targets(parse(["kill", "a", "b", "c"]))
    assert kill_targets(parse(["kill", "--all", "HUP"])) == (Targets(selector=""), "HUP")


def test_an_engines_kill_all_is_taken_and_means_the_one_container() -> None:
    assert kill_targets(parse(["--root", "/r", "kill", "--all", "a", "15"])) == (Targets(("a",)), "15")


@pytest.mark.parametrize(
    "verb, error, words",
    [
        ("state", NotFound("container", "a"), "container does not exist"),
        ("start", IllegalTransition("a", "start", "running"), "cannot start an already running container"),
        ("start", IllegalTransition("a", "start", "stopped"), "cannot start a container that has stopped"),
        ("start", IllegalTransition("a", "start", "paused"), "cannot start a container in the paused state"),
        ("kill", IllegalTransition("a", "kill", "stopped"), "container not running"),
        ("pause", IllegalTransition("a", "pause", "stopped"), "container not running"),
        ("resume", IllegalTransition("a", "resume", "running"), "container not paused"),
        (
            "delete",
            IllegalTransition("a", "delete", "running"),
            "cannot delete container a that is not stopped: running",
        ),
        ("kill", InvalidInput("signal", "FOO", "x"), 'unknown signal "FOO"'),
        ("state", InvalidInput("container_id", "a b", "x"), "invalid container ID format"),
        ("state", InvalidInput("container_id", "", "x"), "container id cannot be empty"),
    ],
)
def test_engines_read_runcs_words(verb: str, error: Exception, words: str) -> None:
    argv = ["--root", "/r", verb, "a"]

    assert runc_message(parse(argv), error) == words


def test_a_missing_bundle_is_told_in_runcs_words(tmp_path: Path) -> None:
    from nexcage import AlreadyExists, InvalidPath

    call = parse(["--root", "/r", "create", "a"])

    assert runc_message(call, InvalidPath("bundle", str(tmp_path), "x")) == (
        "runc create failed: JSON specification file config.json not found"
    )
    assert runc_message(call, InvalidPath("bundle", "/no/such", "x")).endswith(
        "chdir /no/such: no such file or directory"
    )
    taken = runc_message(call, AlreadyExists("container", "a"))
    assert taken == "runc create failed: container with given ID already exists"


def test_words_that_are_selectors_need_no_option() -> None:
    assert targets(parse(["stop", "tag=web", "node=pve-0*"])) == Targets(selector="tag=web node=pve-0*")
    assert targets(parse(["stop", "id~^web-", "-l", "tag=web"])) == Targets(selector="tag=web id~^web-")
    assert kill_targets(parse(["kill", "tag=web", "HUP"])) == (Targets(selector="tag=web"), "HUP")
    with pytest.raises(Usage, match="not both"):
        targets(parse(["stop", "web-1", "tag=web"]))
    assert targets(parse(["stop", "web=1"])) == Targets(("web=1",))  # refused later, as an id


def test_every_setting_in_proxmox_ves_words_reaches_the_spec() -> None:
    argv = "create web-1 --mount mp0=local:8,mp=/data --mount mp1=/srv,mp=/srv --dev dev0=/dev/fuse,mode=0660 --cpulimit 1.5 "
    argv += "--cpuunits 200 --features nesting=1,keyctl=1 --startup order=2 --nameserver 1.1.1.1 --nameserver fd00::1,9.9.9.9 "
    argv += "--searchdomain lan --timezone UTC --pool web --hookscript local:snippets/x.pl --arch arm64 --ostype debian --protection"

    _, spec = made(*argv.split(), "--image", IMAGE)

    assert spec == Spec(
        IMAGE,
        mounts={"mp0": "local:8,mp=/data", "mp1": "/srv,mp=/srv"},
        devices={"dev0": "/dev/fuse,mode=0660"},
        cpulimit=1.5,
        cpuunits=200,
        features="nesting=1,keyctl=1",
        startup="order=2",
        nameserver=("1.1.1.1", "fd00::1", "9.9.9.9"),
        searchdomain=("lan",),
        timezone="UTC",
        pool="web",
        hookscript="local:snippets/x.pl",
        arch="arm64",
        ostype="debian",
        protection=True,
    )


def test_ostype_is_the_virtual_machines_where_only_that_knows_the_word() -> None:
    _, machine = made("create", "db-1", "--image", "local:import/x.qcow2", "--ostype", "win11")

    assert (machine.vm is not None and machine.vm.ostype, machine.ostype) == ("win11", None)
    with pytest.raises(InvalidInput, match=r"vm\.ostype"):
        made("create", "db-1", "--image", "local:import/x.qcow2", "--runtime", "vm", "--ostype", "debian")


@pytest.mark.parametrize(
    "option",
    [["--mount", "mp0"], ["--mount", "mp0=a:1,mp=/a", "--mount", "mp0=a:1,mp=/b"], ["--cpulimit", "many"], ["--cpuunits", "-1"]],
)  # fmt: skip
def test_a_setting_that_cannot_be_read_is_refused(option: list[str]) -> None:
    with pytest.raises(InvalidInput):
        made("create", "web-1", "--image", IMAGE, *option)


@pytest.mark.parametrize(
    "option", [["--mount", "mp0=a:1,mp=/a"], ["--protection"], ["--ostype", "debian"], ["--pool", "x"]]
)
def test_a_setting_is_not_for_a_copy(option: list[str]) -> None:
    with pytest.raises(Usage, match="not for a copy"):
        made("create", "web-2", "--from", "web-1", *option)
