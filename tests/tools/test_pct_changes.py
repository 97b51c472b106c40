"""The words of every command of ``pct`` that changes something, and what may never be among them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nexcage import Command, CommandFailed, InvalidInput, Mark, NexcageError, NotFound, Result, Spec
from nexcage.tools import pct, values
from nexcage.tools.config import parse

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
MARK = Mark("f1", "web-1", 104, "op-1")
DIGEST = "0123456789abcdef0123456789abcdef01234567"
WEB = pct.Settings(
    cores=2,
    cpulimit=0.5,
    description="first\nsecond",
    env={"A": "1 2"},
    features=values.Features(nesting=True),
    memory=1024,
    mounts={0: values.MountPoint(volume="/srv", mp="/srv", ro=True)},
    nameserver=("10.0.0.1", "fd00::1"),
    nets={1: values.Net(name="eth1", bridge="vmbr1")},
    devices={0: values.Device(path="/dev/fuse", mode="0666")},
    onboot=False,
    startup=values.Startup(order=2, up=5),
    tags=("Web", "prod"),
)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (pct.reboot(104, 20), "reboot 104 --timeout 20"),
        (pct.suspend(104), "suspend 104"),
        (pct.resume(104), "resume 104"),
        (pct.unlock(104), "unlock 104"),
        (pct.snapshot(104, "s1"), "snapshot 104 s1"),
        (pct.snapshot(104, "s1", "why"), "snapshot 104 s1 --description why"),
        (pct.delsnapshot(104, "s1", force=True), "delsnapshot 104 s1 --force 1"),
        (pct.rollback(104, "s1", start=True), "rollback 104 s1 --start 1"),
        (pct.clone(104, 105), "clone 104 105"),
        (pct.clone(104, 105, full=False, hostname="b"), "clone 104 105 --full 0 --hostname b"),
        (
            pct.clone(104, 105, full=True, snapname="s1", storage="tank", pool="a/b", target="pve2", bwlimit=9),
            "clone 104 105 --full 1 --snapname s1 --storage tank --pool a/b --target pve2 --bwlimit 9",
        ),
        (pct.template(104), "template 104"),
        (pct.resize(104, "rootfs", 3 << 30), "resize 104 rootfs 3G"),
        (pct.resize(104, "mp0", 1000, digest=DIGEST), f"resize 104 mp0 --digest {DIGEST} 1000"),
        (pct.move_volume(104, "mp0", storage="tank", delete=True), "move-volume 104 mp0 tank --delete 1"),
        (
            pct.move_volume(104, "unused0", target_vmid=105, target_key="mp3"),
            "move-volume 104 unused0 --target-vmid 105 --target-volume mp3",
        ),
        (pct.mount(104), "mount 104"),
        (pct.unmount(104), "unmount 104"),
        (pct.fsck(104, "mp1", force=True), "fsck 104 --device mp1 --force 1"),
        (pct.fstrim(104), "fstrim 104"),
        (pct.rescan(), "rescan"),
        (pct.rescan(104, dryrun=True), "rescan --vmid 104 --dryrun 1"),
        (
            pct.migrate(104, "pve2", restart=True, timeout=60, storage="tank"),
            "migrate 104 pve2 --restart 1 --timeout 60 --target-storage tank",
        ),
        (pct.push(104, "/a", "/b", user="33", group="www-data", mode=0o640),
         "push 104 /a /b --user 33 --group www-data --perms 0640"),
        (pct.pull(104, "/a", "/b"), "pull 104 /a /b"),
        (pct.exec_(104, ["ls", "-l"]), "exec 104 --keep-env 0 -- ls -l"),
        (pct.set_(104, pct.Settings(memory=512), digest=DIGEST), f"set 104 --memory 512 --digest {DIGEST}"),
        (pct.set_(104, delete=("mp7", "features")), "set 104 --delete features,mp7"),
        (pct.set_(104, revert=("features",)), "set 104 --revert features"),
        (
            pct.restore(104, "local:backup/vzdump-lxc-1.tar.zst", pct.Settings(memory=64), storage="tank", force=True),
            "restore 104 local:backup/vzdump-lxc-1.tar.zst --memory 64 --storage tank --force 1",
        ),
    ],
)  # fmt: skip
def test_what_an_operator_would_type(command: Command[None], words: str) -> None:
    assert " ".join(command.argv) == f"pct {words}"
    assert not command.safe
    if command.argv[1] != "exec":
        assert command.cancel == "term"
        assert command.timeout


def test_settings_are_typed_in_the_order_of_their_keys() -> None:
    assert pct.set_(104, WEB).argv[3:] == (
        "--cores", "2", "--cpulimit", "0.5", "--description", "first\nsecond", "--dev0", "/dev/fuse,mode=0666",
        "--env", "A=1 2", "--features", "nesting=1", "--memory", "1024", "--mp0", "/srv,mp=/srv,ro=1",
        "--nameserver", "10.0.0.1 fd00::1", "--net1", "name=eth1,bridge=vmbr1", "--onboot", "0",
        "--startup", "order=2,up=5", "--tags", "prod;web",
    )  # fmt: skip


def test_settings_survive_the_config_file() -> None:
    lines = "".join(f"{key}: {text}\n" for key, text in WEB.options().items() if key not in ("description", "env"))
    config = parse(
        f"#first\n#second\n{lines}unused0: local:104/vm-104-disk-1.raw\nfuture: 1\nlxc.environment.runtime: A=1 2\n"
    )

    read = pct.Settings.read(config)

    assert read.options() == {
        **WEB.options(), "tags": "prod;web", "unused0": "local:104/vm-104-disk-1.raw", "future": "1",
    }  # fmt: skip
    assert read.more == (("unused0", "local:104/vm-104-disk-1.raw"), ("future", "1"))


def test_a_root_file_system_is_never_set_on_a_container_that_exists() -> None:
    with pytest.raises(InvalidInput, match="only at creation"):
        pct.set_(104, pct.Settings(rootfs=values.Rootfs(volume="btr:1")))
    for key in ("rootfs", "memory", "unprivileged"):
        with pytest.raises(InvalidInput):
            pct.set_(104, delete=(key,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": 8}, {"swap": -1}, {"cores": 0}, {"cores": 9999}, {"cpulimit": 9999.0}, {"cpuunits": -5},
        {"hostname": "bad_host!"}, {"hostname": "a" * 256}, {"ostype": "windows"}, {"nameserver": ("not an ip",)},
        {"timezone": "../etc/passwd"}, {"tty": 7}, {"arch": "vax"}, {"cmode": "x"}, {"hookscript": "local:iso/x"},
        {"env": {"A": "1\nlock: backup"}}, {"env": {"A B": "1"}}, {"entrypoint": "x\ny"}, {"description": "x" * 8193},
        {"description": "\0"}, {"tags": ("a b",)}, {"nets": {32: values.Net(name="eth0")}}, {"mounts": {256: None}},
        {"devices": {0: "x"}}, {"more": (("lock: x\nb", "1"),)}, {"onboot": 1}, {"memory": "512"},
    ],
)  # fmt: skip
def test_a_setting_that_pve_refuses_is_refused_without_a_node(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        pct.Settings(**wrong)  # type: ignore[arg-type]  # on purpose


def test_what_no_command_line_can_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one variable"):
        pct.set_(104, pct.Settings(env={"A": "1", "B": "2"}))
    with pytest.raises(InvalidInput, match="something to change"):
        pct.set_(104)
    with pytest.raises(InvalidInput, match="in the Spec"):
        pct.create(MARK, DEBIAN, Spec(DEBIAN), "web-1", pct.Settings(memory=64))


def test_a_create_takes_what_a_spec_does_not_say() -> None:
    more = pct.Settings(rootfs=values.Rootfs(volume=values.allocate("tank", 0.5)), features=values.Features(fuse=True))
    argv = pct.create(MARK, DEBIAN, Spec(DEBIAN), "web-1", more, pool="a").argv

    assert argv[-6:] == ("--features", "fuse=1", "--rootfs", "tank:0.5", "--pool", "a")
    assert argv.count("--rootfs") == 1


def test_passwords_and_keys_are_in_no_argument() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ someone"
    with_key = pct.create(MARK, DEBIAN, Spec(DEBIAN, ssh_public_keys=(key,)), "web-1")
    with_password = pct.create(MARK, DEBIAN, Spec(DEBIAN), "web-1", password="se cret", key_file="/root/keys")
    changed = pct.passwd(104, "root", "se:cret")

    assert with_key.argv[-2:] == ("--ssh-public-keys", "/dev/stdin")
    assert with_key.stdin == f"{key}\n".encode()
    assert with_password.argv[-3:] == ("--ssh-public-keys", "/root/keys", "--password")
    assert with_password.stdin == b"se cret\nse cret\n"
    assert changed.argv == ("pct", "exec", "104", "--keep-env", "0", "--", "chpasswd")
    assert changed.stdin == b"root:se:cret\n"
    for command in (with_key, with_password, changed):
        assert not any("cret" in word or "AAAA" in word for word in command.argv)


def test_a_refused_password_is_in_no_error() -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: pct.passwd(104, "root", "sesame\nx"),
        lambda: pct.create(MARK, DEBIAN, Spec(DEBIAN), "a", password="sesame\nx"),
        lambda: pct.create(MARK, DEBIAN, Spec(DEBIAN, ssh_public_keys=("ssh-rsa AAAA x" * 2,)), "a", password="sesame"),
    )
    for make in calls:
        with pytest.raises(InvalidInput) as caught:
            make()
        assert "sesame" not in repr(caught.value) + str(caught.value) + str(caught.value.__dict__)


@pytest.mark.parametrize("command", [pct.push(1000, "/a", "/b"), pct.pull(1000, "/a", "/b"), pct.template(1000)])
def test_a_failure_that_exits_0_is_a_failure(command: Command[None]) -> None:
    assert command.check is not None
    quiet = Result(0, b"", b"vm 130 - unable to parse config: x\n")
    assert command.check(command, quiet, "pve-01") is None

    error = command.check(command, Result(0, b"", b"failed to open /nosuch for reading\n"), "pve-01")

    assert isinstance(error, NotFound)
    assert isinstance(command.check(command, Result(0, b"", b"something else\n"), "pve-01"), CommandFailed)


def test_a_resize_on_a_storage_that_cannot_is_seen_though_it_exits_0() -> None:
    command = pct.resize(102, "rootfs", 5 << 30)
    assert command.check is not None

    error = command.check(command, Result(0, b"", b"can't resize this image format\n"), "pve-01")

    assert isinstance(error, NexcageError)


@pytest.mark.parametrize(
    ("exit", "stderr", "own"),
    [
        (7, b"err\n", True),
        (255, b"", True),
        (2, b"ls: cannot access\n", True),
        (127, b'lxc-attach: 100: ../src/lxc/attach.c: run: 1845 No such file - Failed to exec "x"\n', True),
        (255, b"container '100' not running!\n", False),
        (2, b"Configuration file 'nodes/pve1/lxc/999.conf' does not exist\n", False),
        (1, b"lxc-attach: 100: ../src/lxc/attach.c: get: 84 Connection refused - Failed to get init pid\n", False),
        (None, b"", False),
    ],
)
def test_an_exit_status_is_the_programs_own_unless_the_words_say_otherwise(
    exit: int | None, stderr: bytes, own: bool
) -> None:
    assert pct.program_said(Result(exit, b"", stderr)) is own


@pytest.mark.parametrize(
    "make",
    [
        lambda: pct.snapshot(104, "current"),
        lambda: pct.snapshot(104, "1bad name"),
        lambda: pct.snapshot(104, "s1", "\0"),
        lambda: pct.clone(104, 99),
        lambda: pct.clone(104, 105, full=False, storage="tank"),
        lambda: pct.clone(104, 105, pool="a/../b/c"),
        lambda: pct.resize(104, "scsi0", 1),
        lambda: pct.resize(104, "mp256", 1),
        lambda: pct.resize(104, "rootfs", -1),
        lambda: pct.resize(104, "rootfs", 1, digest="x"),
        lambda: pct.move_volume(104, "mp0"),
        lambda: pct.move_volume(104, "mp0", storage="tank", target_vmid=105),
        lambda: pct.migrate(104, "-x"),
        lambda: pct.migrate(104, "pve2", timeout=60),
        lambda: pct.push(104, "relative", "/b"),
        lambda: pct.push(104, "/a", "/b", user="a b"),
        lambda: pct.pull(104, "/a", "/b", mode=0o10000),
        lambda: pct.exec_(104, []),
        lambda: pct.exec_(104, "ls -l"),
        lambda: pct.exec_(104, ["a\0b"]),
        lambda: pct.restore(104, "--force"),
        lambda: pct.passwd(104, "root:x", "secret"),
        lambda: pct.set_(104, delete=("mp0,rootfs",)),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_before_anything_runs(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        make()
