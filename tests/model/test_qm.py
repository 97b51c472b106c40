"""The pretend ``qm`` says what the real one says (pve-commands 7)."""

from __future__ import annotations

import pytest

from nexcage import Result
from nexcage.testing import SimCluster, virtual_run
from nexcage.testing._model import vms

IMAGE = "local:import/ubuntu-20.04-server-cloudimg-amd64.qcow2"
KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMjK ada@x\n"


class Node:
    """A node on which commands are run in virtual time, each with an event loop of its own."""

    def __init__(self) -> None:
        self.sim = SimCluster(2, seed=5)
        self.model = self.sim["pve-01"].model

    def qm(self, *words: str, on: str = "pve-01", stdin: bytes = b"") -> Result:
        result: list[Result] = []

        async def main() -> None:
            result.append(await self.sim[on].run(["qm", *words], stdin=stdin))

        virtual_run(main)
        return result[0]

    def everything(self) -> list[str | None]:
        """The configs and the volumes."""
        files = self.model.files
        volumes = [files.read("/var/lib/nexcage-sim/zfs.json"), *files.names("/var/lib/vz/images")]
        return [*volumes, *(vms.config(self.model, vmid) for vmid in vms.machines(self.model))]

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        done = self.qm(*words, stdin=stdin)
        assert done.exit == 0, done.stderr
        return done.stdout.decode()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def vm(node: Node) -> Node:
    node.ok(
        "create", "200", "--name", "db", "--scsi0", f"local-zfs:0,import-from={IMAGE}", "--ide2", "local-zfs:cloudinit"
    )
    return node


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["start", "999"], "Configuration file 'nodes/pve-01/qemu-server/999.conf' does not exist"),
        (["suspend", "200"], "VM 200 not running"),
        (["resume", "200"], "VM 200 not running"),
        (["reset", "200"], "VM 200 not running"),
        (["reboot", "200"], "VM 200 not running"),
        (["unlock", "200"], "no lock found trying to remove any lock"),
        (["set", "200"], "no options specified"),
        (["create", "200"], "VM 200 already exists on node 'pve-01'"),
        (["create", "201", "--scsi0", "nosuch:1"], "storage: storage 'nosuch' does not exist"),
        (
            ["create", "201", "--scsi0", "local:0,import-from=local:import/x.raw"],
            "unable to create VM 201 - cannot import from",
        ),
        (["create", "201", "--name", "a_b"], "name: invalid format - value does not look like a valid DNS name"),
        (["create", "201", "--net0", "foo=1"], "net0: invalid format - format error"),
        (["create", "201", "--bogus", "1"], "Unknown option: bogus"),
        (["create", "99"], "vmid: "),
        (["start"], "400 not enough arguments"),
        (["start", "200", "1"], "400 too many arguments"),
        (["foo"], "ERROR: unknown command 'qm foo'"),
        ([], "ERROR: no command specified"),
        (["snapshot", "200", "current"], "unable to use snapshot name 'current' (reserved name)"),
        (["rollback", "200", "none"], "snapshot 'none' does not exist"),
        (["delsnapshot", "200", "none"], "snapshot 'none' does not exist"),
    ],
)
def test_a_refusal_is_said_and_changes_nothing(vm: Node, words: list[str], said: str) -> None:
    before = vm.everything()
    done = vm.qm(*words)
    assert done.exit != 0
    assert said in done.stderr.decode()
    assert vm.everything() == before


def test_what_is_so_already_is_an_error_for_start_only(vm: Node) -> None:
    assert vm.qm("stop", "200").exit == 0
    assert vm.qm("shutdown", "200").exit == 0
    vm.ok("start", "200")
    again = vm.qm("start", "200")
    assert (again.exit, again.stderr) == (255, b"VM 200 already running\n")
    vm.ok("suspend", "200")
    vm.ok("suspend", "200")
    assert vm.ok("status", "200") == "status: paused\n"
    assert "running" in vm.ok("list")
    assert vm.qm("shutdown", "200").stderr == b"VM is paused - cannot shutdown\n"


def test_keys_are_read_from_a_file_and_kept_encoded(node: Node) -> None:
    node.ok("create", "200", "--sshkeys", "/dev/stdin", "--ciuser", "ada", stdin=KEY)
    assert "sshkeys: ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIMjK%20ada%40x%0A" in node.ok("config", "200")
    assert (
        "SSH public key validation error"
        in node.qm("create", "201", "--sshkeys", "/dev/stdin", stdin=b"nonsense\n").stderr.decode()
    )


def test_a_running_one_is_not_destroyed_and_a_locked_one_not_started(vm: Node) -> None:
    vm.ok("start", "200")
    assert vm.qm("destroy", "200").stderr == b"VM 200 is running - destroy failed\n"
    vm.ok("stop", "200")
    vm.ok("set", "200", "--lock", "backup")
    assert vm.qm("start", "200").stderr == b"VM is locked (backup)\n"
    vm.ok("start", "200", "--skiplock", "1")
    vm.ok("stop", "200", "--skiplock", "1")
    vm.ok("destroy", "200", "--skiplock", "1")
    assert vms.machines(vm.model) == []
    assert vm.qm("start", "200").exit != 0


def test_a_resize_that_fails_exits_with_0(vm: Node) -> None:
    for words, said in (
        (("scsi0", "1G"), b"shrinking disks is not supported\n"),
        (("scsi9", "9G"), b"disk 'scsi9' does not exist\n"),
    ):
        done = vm.qm("disk", "resize", "200", *words)
        assert (done.exit, done.stderr) == (0, said)
    vm.ok("resize", "200", "scsi0", "+1G")
    assert "size=3276M" in vm.ok("config", "200")


def test_a_template_neither_starts_nor_is_made_twice(vm: Node) -> None:
    vm.ok("template", "200")
    assert "scsi0: local-zfs:base-200-disk-0" in vm.ok("config", "200")
    assert vm.qm("start", "200").stderr == b"you can't start a vm if it's a template\n"
    again = vm.qm("template", "200")
    assert (again.exit, again.stderr) == (0, b"you can't convert a template to a template\n")


def test_numbers_are_taken_by_containers_and_machines_of_the_whole_cluster(vm: Node) -> None:
    assert vm.qm("create", "200", on="pve-02").stderr == b"VM 200 already exists on node 'pve-01'\n"


def test_a_create_that_fails_leaves_nothing(node: Node) -> None:
    done = node.qm("create", "200", "--scsi0", "local-zfs:4", "--scsi1", "local:0,import-from=/nosuch.raw")
    assert done.stderr == b"unable to create VM 200 - cannot import from '/nosuch.raw': No such file or directory\n"
    assert vms.machines(node.model) == []
    assert "vm-200" not in (node.model.files.read("/var/lib/nexcage-sim/zfs.json") or "")
