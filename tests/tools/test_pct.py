"""What ``pct`` said, and what we take it to mean: every recorded refusal has its class written down here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import (
    AlreadyExists,
    Blocked,
    Busy,
    Command,
    CommandFailed,
    IllegalTransition,
    InvalidInput,
    Mark,
    NexcageError,
    NodeNotUsable,
    NoQuorum,
    NotFound,
    Result,
    Spec,
)
from nexcage.tools import pct

CASES = Path(__file__).parent.parent / "cases" / "pct"
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
MEANT: dict[type[NexcageError], str] = {
    NotFound: "missing.clone clone.bad-storage clone.snap-missing clone.target-node missing.config othernode.config "
    "create.tmpl-storage-missing create.tmpl-bad-volid create.tmpl-abs-path-missing "
    "create.rootfs-storage-missing create.rootfs-missing-volume create.mp0-storage-missing "
    "create.hookscript-missing missing.delsnapshot locked.delsnapshot delsnapshot.missing missing.destroy "
    "othernode.destroy destroy.again x2.destroy.missing-storage x2.destroy.missing-storage-force missing.df "
    "missing.enter missing.exec missing.listsnapshot missing.migrate locked.migrate migrate.to-unknown "
    "migrate.to-offline missing.mount missing.move-volume missing.pending missing.rescan missing.rollback "
    "locked.rollback rollback.missing missing.set missing.snapshot missing.start start.debug-missing-bridge "
    "x2.start.missing-volume x2.start.missing-storage missing.status missing.status-verbose othernode.status "
    "missing.template missing.unlock unlock.not-locked unmount.again",
    Busy: "locked.clone locked.destroy flock.destroy x2.destroy.leftover-lock-force locked.mount mount.again "
    "locked.resize locked.set flock.set locked-running.shutdown locked.snapshot locked.start flock.start "
    "x2.create.leftover-lock x3.stop.while-shutdown locked.unmount",
    AlreadyExists: "clone.newid-exists create.vmid-used-by-vm create.vmid-on-other-node create.vmid-exists "
    "create.vmid-exists-force resize.same snapshot.exists",
    IllegalTransition: "clone.running-no-snap enter.not-running exec.not-running locked.exec fsck.running pull.not-running "
    "missing.push push.not-running template.running template.again",
    Blocked: "clone.linked destroy.protected snapshot.unsupported snapshot.unsupported-subvol-dir",
    InvalidInput: "create.no-ostemplate create.no-vmid create.vmid-not-int create.vmid-99 create.storage-no-rootdir "
    "create.rootfs-storage-no-rootdir create.rootfs-unknown-prop create.hostname-bad create.hostname-too-long "
    "create.memory-too-small create.memory-not-int create.swap-negative create.cores-0 create.cores-too-big "
    "create.cpulimit-bad create.cpuunits-bad create.option-no-value create.net0-bad-ip "
    "create.net0-ip-no-prefix create.net0-bad-tag create.net0-bad-mac create.net0-unknown-prop "
    "create.net-index-too-big create.features-bad create.features-unknown create.unprivileged-bad "
    "create.onboot-bad create.ostype-bad create.nameserver-bad create.startup-bad create.lock-bad "
    "create.many-errors exec.no-command exec.no-separator-opt migrate.to-self remote-migrate.bad resize.shrink "
    "resize.bad-size resize.disk-invalid set.nothing set.delete-unknown set.delete-and-set set.digest-too-long "
    "set.bad-option snapshot.bad-name snapshot.name-current snapshot.no-name status.no-vmid "
    "status.vmid-not-int status.vmid-99 status.bad-option",
}
EXPECTED = {name: kind for kind, names in MEANT.items() for name in names.split()}


def recorded() -> Iterator[Any]:
    for file in sorted(CASES.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            case = json.loads(line)
            if case["exit"] != 0:
                yield pytest.param(case, id=case["name"])


def classified(argv: list[str], exit: int, stderr: str, stdout: str = "") -> NexcageError:
    command = Command(tuple(argv), pct.start(100).parse, classify=pct.classify)
    return pct.classify(command, Result(exit, stdout.encode(), stderr.encode()), "pve-01")


@pytest.mark.parametrize("case", list(recorded()))
def test_every_recorded_refusal_has_the_class_written_down_for_it(case: dict[str, Any]) -> None:
    error = classified(case["argv"], case["exit"], case["stderr"], case["stdout"])
    assert type(error) is EXPECTED.get(case["name"], CommandFailed)
    last = case["stderr"].strip().splitlines()[-1:]
    told = f"{error}\n" + "\n".join(getattr(error, "__notes__", []))
    assert not last or all(word in told for word in last[0].split()[:3])


def test_every_case_written_down_was_recorded() -> None:
    assert set(EXPECTED) <= {param.id for param in recorded()}


@pytest.mark.parametrize(
    ("stderr", "exit", "kind"),
    [
        ("cluster not ready - no quorum?\n", 255, NoQuorum),
        ("error: no quorum!", 2, NoQuorum),
        ("ipcc_send_rec[1] failed: Connection refused\nUnable to load access control list", 255, NodeNotUsable),
        ("unable to remove CT 100 - used in HA resources and purge parameter not set.", 255, Blocked),
        ("There is a replication job '100-0' for CT 100 - Please remove that first.", 255, Blocked),
        ("base volume 'local-zfs:base-100-disk-0' is still in use by linked clones", 2, Blocked),
        ("cfs-lock 'storage-nfs' error: got lock request timeout", 5, Busy),
        ("please run as root", 2, NodeNotUsable),
        ("sh: 1: exec: pct: not found", 127, NodeNotUsable),
        ("bash: line 1: pct: command not found", 127, NodeNotUsable),
        ("env: 'pct': No such file or directory", 127, NodeNotUsable),
        ("[Errno 2] No such file or directory: 'pct'", 127, NodeNotUsable),
        ("", 127, NodeNotUsable),
        ("lxc-attach: 100: attach.c: No such file or directory - Failed to exec", 127, CommandFailed),
        (
            "failed to open '/x': No such file or directory at /usr/share/perl5/PVE/CLI/pct.pm line 664.",
            2,
            NotFound,
        ),
        ("", 255, CommandFailed),
    ],
)
def test_words_that_were_read_in_the_source_have_their_class(stderr: str, exit: int, kind: type[NexcageError]) -> None:
    assert type(classified(["pct", "start", "100"], exit, stderr)) is kind


@given(st.binary(max_size=300), st.binary(max_size=50), st.integers(1, 255))
def test_any_words_are_one_of_our_errors_and_name_the_node(stderr: bytes, stdout: bytes, exit: int) -> None:
    error = pct.classify(pct.start(100), Result(exit, stdout, stderr), "pve-01")
    assert isinstance(error, NexcageError)
    assert all(char.isprintable() or char == "\t" for char in str(error))


def test_a_retry_is_offered_only_for_what_passes_by_itself() -> None:
    for param in recorded():
        case: dict[str, Any] = param.values[0]
        error = classified(case["argv"], case["exit"], case["stderr"])
        assert error.retryable == isinstance(error, Busy)
        assert not error.uncertain


def test_what_an_operator_would_type() -> None:
    mark = Mark("f1", "web-1", 104, "op-1")
    spec = Spec(
        DEBIAN, cores=2, size=8, storage="tank", tags=("B", "a"), unprivileged=False, onboot=True, description="x"
    )
    assert pct.create(mark, DEBIAN, spec, "web-1").argv == (
        "pct", "create", "104", DEBIAN, "--hostname", "web-1", "--memory", "512", "--swap", "512", "--cores", "2",
        "--rootfs", "tank:8", "--net0", "name=eth0,bridge=vmbr0,ip=dhcp", "--unprivileged", "0", "--onboot", "1",
        "--tags", "a;b;nexcage", "--description", f"{mark}\nx",
    )  # fmt: skip
    assert pct.start(104).argv == ("pct", "start", "104")
    assert pct.stop(104).argv == ("pct", "stop", "104")
    assert pct.stop(104, overrule=True).argv == ("pct", "stop", "104", "--overrule-shutdown", "1")
    assert pct.destroy(104).argv == ("pct", "destroy", "104")
    assert pct.destroy(104, force=True, purge=True).argv == ("pct", "destroy", "104", "--force", "1", "--purge", "1")


@pytest.mark.parametrize(("timeout", "seconds"), [(0, "1"), (0.2, "1"), (1.6, "2"), (60, "60"), (86400, "86400")])
def test_a_shutdown_always_has_a_deadline_and_ours_is_later(timeout: float, seconds: str) -> None:
    command = pct.shutdown(104, timeout)
    assert command.argv == ("pct", "shutdown", "104", "--timeout", seconds, "--forceStop", "1")
    assert command.timeout is not None
    assert command.timeout > 2 * timeout


def test_every_command_of_pct_is_ended_by_term_only_and_has_a_deadline() -> None:
    mark = Mark("f1", "web-1", 104, "op-1")
    commands = [
        pct.create(mark, DEBIAN, Spec(DEBIAN), "a"),
        pct.start(1),
        pct.stop(1),
        pct.shutdown(1, 1),
        pct.destroy(1),
    ]
    for command in commands:
        assert (command.cancel, command.safe) == ("term", False)
        assert command.timeout
    assert commands[0].tries == {"vmid": 104}
    assert commands[0].weight == "create"
