"""The vm backend against a scripted node: each verb is the list of commands that an operator would type."""

from __future__ import annotations

from typing import Any

import pytest

from nexcage import (
    AlreadyExists,
    CommandFailed,
    Guest,
    InvalidInput,
    InvalidSpec,
    Mark,
    Net,
    Ref,
    Settled,
    Spec,
    UnsupportedImage,
)
from nexcage import Vm as Settings
from nexcage._backends.vm import Vm
from nexcage._core.command import Result
from nexcage.names import image
from nexcage.tools import kvm
from tests.backends.scripted import GUARD, ScriptedNode

UBUNTU = "local:import/ubuntu.qcow2"
ISO = "local:iso/debian.iso"
SPEC = Spec(UBUNTU, backend="vm")
REF = Ref("db-1", 104, "pve-01")
LINE = "nexcage fleet=f1 id=db-1 vmid=104 op=op-1"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMjK ada@x"


@pytest.mark.parametrize(
    ("verb", "options", "typed"),
    [
        ("start", {}, [("qm", "start", "104")]),
        ("stop", {"timeout": 30.0, "force": False}, [("qm", "shutdown", "104", "--timeout", "30", "--forceStop", "1")]),
        ("stop", {"timeout": 30.0, "force": True}, [("qm", "stop", "104")]),
        ("pause", {}, [("qm", "suspend", "104")]),
        ("resume", {}, [("qm", "resume", "104")]),
        (
            "snapshot",
            {"name": "before", "description": "x"},
            [("qm", "snapshot", "104", "before", "--description", "x")],
        ),
        ("delsnapshot", {"name": "before"}, [("qm", "delsnapshot", "104", "before")]),
        ("rollback", {"name": "before", "start": True}, [("qm", "rollback", "104", "before"), ("qm", "start", "104")]),
        (
            "resize",
            {"disk": "scsi0", "size": 5 << 30},
            [("qm", "disk", "resize", "104", "scsi0", "5242880K", "--skiplock", "1")],
        ),
        ("template", {}, [("qm", "template", "104")]),
        ("delete", {"force": False, "purge": False}, [("qm", "destroy", "104")]),
        ("delete", {"force": True, "purge": True}, [("qm", "destroy", "104", "--purge", "1")]),
    ],
)
async def test_a_verb_is_what_an_operator_would_type_and_is_guarded(
    verb: str, options: Any, typed: list[tuple[str, ...]]
) -> None:
    node = ScriptedNode()
    await getattr(Vm(), verb)(node, REF, **options)

    assert node.typed == typed
    for command in node.commands:
        assert command.argv[:6] == (*GUARD, LINE, "104")
        assert not command.safe


async def test_a_running_one_is_stopped_before_a_forced_delete() -> None:
    node = ScriptedNode(Guest(104, running=True, pid=5, kind="vm"))
    await Vm().delete(node, REF, force=True, purge=False)
    assert node.typed == [("qm", "stop", "104"), ("qm", "destroy", "104")]


async def test_a_paused_one_goes_on_before_it_is_asked_to_power_down() -> None:
    node = ScriptedNode(Guest(104, running=True, frozen=True, pid=5, kind="vm"))
    await Vm().stop(node, REF, timeout=5.0, force=False)
    assert [words[:2] for words in node.typed] == [("qm", "resume"), ("qm", "shutdown")]


async def test_a_stop_that_is_hurried_overrules_its_own_shutdown() -> None:
    node = ScriptedNode(hurried=True)
    await Vm().stop(node, REF, timeout=600.0, force=False)
    assert node.typed[-1] == ("qm", "stop", "104", "--overrule-shutdown", "1")


async def test_kill_pulls_the_plug_behind_the_mark() -> None:
    node = ScriptedNode()
    node.answer = lambda _: Result(0, b"4194400\n")
    await Vm().kill(node, REF, 9)
    assert node.commands[0].argv == ("sh", "-c", kvm.POWER, "kill", LINE, "104")


@pytest.mark.parametrize("signal", [2, 15, 30])
async def test_what_asks_an_init_to_end_presses_the_power_button(signal: int) -> None:
    node = ScriptedNode()
    await Vm().kill(node, REF, signal)
    assert node.typed == [("qm", "monitor", "104")]
    assert node.commands[0].stdin == b"system_powerdown\nquit\n"


@pytest.mark.parametrize(
    ("signal", "name"), [(1, "SIGHUP"), (10, "SIGUSR1"), (19, "SIGSTOP"), (64, "SIGRTMAX"), (40, "40")]
)
async def test_every_other_signal_is_refused_with_those_that_mean_something(signal: int, name: str) -> None:
    node = ScriptedNode()
    with pytest.raises(InvalidInput, match=f"'{name}': KILL.*TERM, INT and PWR"):
        await Vm().kill(node, REF, signal)
    assert node.commands == []


# ---- making ------------------------------------------------------------------------------------------------------------


def given(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


async def test_a_cloud_image_is_imported_with_a_cloud_init_drive_and_its_keys_are_no_words_of_the_command() -> None:
    nets = (
        Net(ip="10.0.0.7/24", gw="10.0.0.1", tag=7, firewall=True),
        Net(name="eth1", ip="manual", ip6="auto"),
        Net(name="eth2", ip=None),
    )
    spec = Spec(
        UBUNTU,
        storage="tank",
        memory=2048,
        cores=2,
        nets=nets,
        ssh_public_keys=(KEY,),
        tags=("db",),
        vm=Settings(user="ada", cpu="host"),
    )
    node = ScriptedNode()

    made = await Vm().create(node, Ref("db-1", 0, "pve-01"), spec)

    (argv,) = node.typed
    assert argv[:3] == ("qm", "create", str(made.vmid))
    assert given(argv, "--scsi0") == "tank:0,import-from=local:import/ubuntu.qcow2"
    assert given(argv, "--ide2") == "tank:cloudinit"
    assert (given(argv, "--name"), given(argv, "--ciuser"), given(argv, "--cpu")) == ("db-1", "ada", "host")
    assert given(argv, "--net0") == "virtio,bridge=vmbr0,firewall=1,tag=7"
    assert given(argv, "--ipconfig0") == "ip=10.0.0.7/24,gw=10.0.0.1"
    assert given(argv, "--ipconfig1") == "ip6=auto"
    assert "--ipconfig2" not in argv
    assert given(argv, "--description") == str(Mark("f1", "db-1", made.vmid, "op-1"))
    assert given(argv, "--tags") == "db;nexcage"
    assert (given(argv, "--sshkeys"), node.commands[0].stdin) == ("/dev/stdin", f"{KEY}\n".encode())
    assert not any("AAAA" in word for word in argv)
    assert not {"--lock", "--agent", "--password", "--cipassword"} & set(argv)
    assert node.commands[0].tries == {"vmid": made.vmid}


async def test_an_iso_image_is_put_in_beside_an_empty_disk() -> None:
    node = ScriptedNode()
    await Vm().create(node, Ref("db-1", 0, "pve-01"), Spec(ISO, size=8))
    (argv,) = node.typed
    assert (given(argv, "--scsi0"), given(argv, "--ide2")) == ("local:8", "local:iso/debian.iso,media=cdrom")
    assert given(argv, "--boot") == "order=scsi0;ide2"
    assert "--ipconfig0" not in argv


async def test_a_template_gives_the_disk_that_it_boots_from() -> None:
    node = ScriptedNode()
    config = (
        b"template: 1\nboot: order=ide2;virtio0\nide2: none,media=cdrom\nvirtio0: local-zfs:base-9000-disk-1,size=3G\n"
    )
    node.answer = lambda command: Result(0, config if command.argv[1] == "config" else b"")
    await Vm().create(node, Ref("db-1", 0, "pve-01"), Spec("vm:template/9000"))
    looked, made = node.commands
    assert (looked.argv[:3], looked.safe) == (("qm", "config", "9000"), True)
    assert given(made.argv, "--scsi0") == "local:0,import-from=local-zfs:base-9000-disk-1"


async def test_an_imported_disk_grows_while_the_lock_of_the_create_is_on() -> None:
    node = ScriptedNode()
    made = await Vm().create(node, Ref("db-1", 0, "pve-01"), Spec(UBUNTU, size=20))
    create, resize, unlock = node.typed
    vmid = str(made.vmid)
    assert given(create, "--lock") == "create"
    assert resize == ("qm", "disk", "resize", vmid, "scsi0", "20G", "--skiplock", "1")
    assert unlock == ("qm", "unlock", vmid)
    assert all(command.argv[:4] == GUARD for command in node.commands[1:])


async def test_a_resize_that_failed_is_an_error_although_qm_exits_with_0() -> None:
    node = ScriptedNode()
    node.answer = lambda command: Result(
        0, b"", b"shrinking disks is not supported\n" if "resize" in command.argv else b""
    )
    with pytest.raises(CommandFailed, match="shrinking disks"):
        await Vm().create(node, Ref("db-1", 0, "pve-01"), Spec(UBUNTU, size=1))
    assert not any("unlock" in words for words in node.typed)


async def test_a_number_that_is_taken_makes_it_try_the_next() -> None:
    node = ScriptedNode()
    said = [b"VM 1 already exists on node 'pve2'\n", b"unable to create VM 2: config file already exists\n", b""]
    node.answer = lambda _: Result(255 if said[0] else 0, b"", said.pop(0))
    made = await Vm().create(node, Ref("db-1", 0, "pve-01"), SPEC)
    assert [words[2] for words in node.typed][-1] == str(made.vmid)
    assert len({words[2] for words in node.typed}) == 3


async def test_no_free_number_is_said_with_the_range() -> None:
    node = ScriptedNode()
    node.answer = lambda _: Result(255, b"", b"CT 1 already exists on node 'x'")
    with pytest.raises(AlreadyExists, match="100-999"):
        await Vm().create(node, Ref("db-1", 0, "pve-01"), SPEC)


async def test_mending_proves_by_the_mark() -> None:
    node = ScriptedNode()
    await Vm().mend(node, REF, "create", Settled(kind="lost", at=5, started=7))
    assert node.commands[0].argv[3:] == ("mend", "104", "create", "qmcreate", "5", "7", LINE)


# ---- refused before anything runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["ubuntu:20.04", "./bundle", "local:vztmpl/debian.tar.zst", "/srv/x.tar"])
def test_only_disks_are_taken(text: str) -> None:
    assert not Vm().accepts(image(text))
    with pytest.raises(UnsupportedImage, match=r"import/NAME\.qcow2"):
        Vm().check("db-1", Spec(text, backend="vm"))


@pytest.mark.parametrize("text", ["/srv/a,size=1.raw", "/srv/a b.qcow2", "/srv/a;b.img", "/srv/$(id).iso"])
def test_a_file_name_cannot_leave_its_place_in_a_comma_list(text: str) -> None:
    with pytest.raises(UnsupportedImage, match="virtual machine"):
        Vm().check("db-1", Spec(text))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Spec(UBUNTU, swap=1024), "swap"),
        (Spec(UBUNTU, unprivileged=False), "unprivileged"),
        (Spec(ISO, ssh_public_keys=(KEY,)), "ssh_public_keys"),
        (Spec(ISO, vm=Settings(user="ada")), "ssh_public_keys"),
        (Spec(UBUNTU, mounts={"mp0": "local:8,mp=/data"}), "mounts"),
        (Spec(UBUNTU, devices={"dev0": "/dev/fuse"}), "devices"),
        (Spec(UBUNTU, features="nesting=1"), "features"),
        (Spec(UBUNTU, timezone="UTC"), "timezone"),
        (Spec(UBUNTU, arch="amd64"), "arch"),
        (Spec(UBUNTU, ostype="debian"), "ostype"),
        (Spec(ISO, nameserver=("1.1.1.1",)), "nameserver"),
        (Spec(UBUNTU, cpulimit=129), "cpulimit"),
        (Spec(UBUNTU, cpuunits=0), "cpuunits"),
    ],
)
def test_what_only_a_container_has_is_refused(spec: Spec, field: str) -> None:
    with pytest.raises(InvalidSpec, match=field):
        Vm().check("db-1", spec)


@pytest.mark.parametrize("id", ["web_1", "-x"])
def test_a_name_that_is_no_host_name_is_refused(id: str) -> None:
    with pytest.raises(InvalidSpec, match="hostname"):
        Vm().check(id, SPEC)


@pytest.mark.parametrize(
    "options",
    [
        {"user": "Ada Lovelace"},
        {"user": "a,b"},
        {"user": ""},
        {"cpu": "host,flags=+aes"},
        {"cpu": ""},
        {"ostype": "linux"},
        {"agent": 1},
    ],
)
def test_settings_of_a_virtual_machine_are_checked_when_they_are_made(options: Any) -> None:
    with pytest.raises(InvalidSpec, match=r"vm\."):
        Settings(**options)


async def test_settings_that_a_virtual_machine_has_too_are_given_to_it() -> None:
    spec = Spec(
        UBUNTU,
        cpulimit=1.5,
        cpuunits=200,
        startup="order=2,up=30",
        nameserver=("1.1.1.1", "fd00::1"),
        searchdomain=("lan",),
        pool="web",
        hookscript="local:snippets/x.pl",
        protection=True,
    )
    node = ScriptedNode()
    Vm().check("db-1", spec)

    await Vm().create(node, Ref("db-1", 0, "pve-01"), spec)

    (argv,) = node.typed
    assert (given(argv, "--cpulimit"), given(argv, "--cpuunits")) == ("1.5", "200")
    assert (given(argv, "--startup"), given(argv, "--pool")) == ("order=2,up=30", "web")
    assert (given(argv, "--nameserver"), given(argv, "--searchdomain")) == ("1.1.1.1 fd00::1", "lan")
    assert (given(argv, "--hookscript"), given(argv, "--protection")) == ("local:snippets/x.pl", "1")
