"""``qm``: what it is told stays in its place, and what it says is understood."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    AlreadyExists,
    Blocked,
    Busy,
    CommandFailed,
    InvalidInput,
    Mark,
    Net,
    NexcageError,
    NodeNotUsable,
    NoQuorum,
    NotFound,
    Result,
    Spec,
    UnsupportedImage,
    Vm,
)
from nexcage.names import image
from nexcage.tools import qm

MARK = Mark("f1", "db-1", 200, "op.1")


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("VM 200 already exists on node 'pve2'", AlreadyExists, "pve2"),
        ("CT 200 already exists on node 'pve2'", AlreadyExists, "pve2"),
        ("unable to create VM 200: config file already exists", AlreadyExists, "200"),
        ("can't lock file '/var/lock/qemu-server/lock-200.conf' - got timeout", Busy, "lock-200.conf"),
        ("VM is locked (backup)", Busy, "backup"),
        ("VM 200 is running - destroy failed", Busy, "running"),
        ("Configuration file 'nodes/pve1/qemu-server/200.conf' does not exist", NotFound, "is not on node pve1"),
        ("unable to find configuration file for VM 200 on node 'pve1'", NotFound, "is not on node pve1"),
        ("can't remove VM 200 - protection mode enabled", Blocked, "protection"),
        ("you can't start a vm if it's a template", Blocked, "template"),
        ("unable to remove VM 200 - used in HA resources and purge parameter not set.", Blocked, "HA"),
        ("cluster not ready - no quorum?", NoQuorum, "quorate"),
        ("please run as root", NodeNotUsable, "qm needs root"),
        ("sh: 1: exec: qm: not found", NodeNotUsable, "no `qm`"),
        ("start failed: org.freedesktop.systemd1.NoSuchUnit", CommandFailed, "start failed"),
        ("VM quit/powerdown failed - got timeout", CommandFailed, "powerdown"),
    ],
)
def test_what_qm_says_becomes_the_error_that_says_what_to_do(said: str, kind: type[NexcageError], words: str) -> None:
    command = qm.start(200)
    error = command.classify(command, Result(255, b"", f"{said}\n".encode()), "pve-01")
    assert type(error) is kind
    assert words in str(error)


@given(st.binary(max_size=200), st.integers(1, 255))
def test_any_words_are_an_error_of_ours(said: bytes, exit: int) -> None:
    command = qm.destroy(200)
    assert isinstance(command.classify(command, Result(exit, said, said), "pve-01"), NexcageError)


@pytest.mark.parametrize(
    ("stderr", "failed"),
    [
        (b"", False),
        (b"WARN: no image size of ROOT found\n", False),
        (b"Task finished with 1 warning(s)!\n", False),
        (b"disk is already at specified size\n", False),
        (b"shrinking disks is not supported\n", True),
        (b"disk 'scsi9' does not exist\n", True),
    ],
)
def test_exit_0_of_a_resize_is_no_proof(stderr: bytes, failed: bool) -> None:
    command = qm.resize(200, "scsi0", "20G")
    assert command.check is not None
    error = command.check(command, Result(0, b"", stderr), "pve-01")
    assert (error is not None) is failed


nets = st.builds(
    Net,
    name=st.from_regex(r"eth[0-9]", fullmatch=True),
    bridge=st.none() | st.from_regex(r"vmbr[0-9]{1,3}", fullmatch=True),
    ip=st.sampled_from([None, "dhcp", "manual", "10.0.0.7/24"]),
    gw=st.sampled_from([None, "10.0.0.1"]),
    ip6=st.sampled_from([None, "auto", "dhcp", "manual", "fd00::7/64"]),
    hwaddr=st.sampled_from([None, "BC:24:11:00:00:01"]),
    tag=st.none() | st.integers(1, 4094),
    mtu=st.none() | st.integers(64, 65520),
    rate=st.none() | st.floats(0.001, 10_000),
    firewall=st.none() | st.booleans(),
)


@given(nets)
def test_a_card_has_each_key_once_and_no_address_in_it(net: Net) -> None:
    model, *rest = qm.net(net).split(",")
    keys = [part.partition("=")[0] for part in rest]
    assert re.fullmatch(r"virtio(=BC:24:11:00:00:01)?", model)
    assert len(set(keys)) == len(keys)
    assert set(keys) <= {"bridge", "firewall", "mtu", "rate", "tag"}
    assert {part.partition("=")[0] for part in filter(None, qm.ipconfig(net).split(","))} <= {"ip", "gw", "ip6", "gw6"}
    assert "manual" not in qm.ipconfig(net)


@given(st.text(max_size=30) | st.from_regex(r"/[a-z,= ;$]{1,20}\.(qcow2|raw|iso)", fullmatch=True))
def test_no_image_leaves_its_place_in_a_comma_list(text: str) -> None:
    try:
        ref = image(text)
        made_from = qm.source(ref)
    except InvalidInput:
        return
    if ref.kind != "disk":
        return
    argv = qm.create(MARK, made_from, Spec("local:import/x.raw"), "db-1").argv
    (word,) = (word for word in argv if made_from.volume in word)
    assert word.count(",") == 1
    assert not re.search(r"[\s;$`'\"\\=]", made_from.volume)


@given(st.text(max_size=40))
def test_the_notes_follow_the_mark_and_are_one_word(text: str) -> None:
    try:
        spec = Spec("local:import/x.raw", description=text, vm=Vm(user="ada"))
    except InvalidInput:
        return
    argv = qm.create(MARK, qm.source(image(spec.image)), spec, "db-1").argv
    word = argv[argv.index("--description") + 1]
    assert word.split("\n")[0] == str(MARK)
    assert word == (f"{MARK}\n{text}" if text else str(MARK))


@pytest.mark.parametrize(
    ("config", "disk"),
    [
        ("boot: order=scsi0;ide2\nscsi0: local:base-9-disk-0,size=1G\ntemplate: 1\n", "local:base-9-disk-0"),
        (
            "boot: order=net0;virtio1\nscsi0: a:b\ntemplate: 1\nvirtio1: local:9/base-9-disk-0.raw\n",
            "local:9/base-9-disk-0.raw",
        ),
        ("boot: c\nsata0: zfs:base-9-disk-2,size=1G\ntemplate: 1\n", "zfs:base-9-disk-2"),
    ],
)
def test_the_disk_that_a_template_boots_from_is_found(config: str, disk: str) -> None:
    assert qm.template_disk(900).parse(Result(0, config.encode())) == disk


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("scsi0: local:vm-9-disk-0\n", "qm template 900"),
        ("template: 1\nide2: none,media=cdrom\n", "a disk to boot from"),
        ("template: 1\nboot: order=net0\nscsi0: cdrom\n", "a disk to boot from"),
        ("", "qm template 900"),
    ],
)
def test_what_is_no_template_or_has_no_disk_is_said(config: str, why: str) -> None:
    with pytest.raises(UnsupportedImage, match=why):
        qm.template_disk(900).parse(Result(0, config.encode()))
