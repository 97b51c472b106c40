"""The 57 tests: number, name and command as the predecessor had them, and what each wants to see."""

from __future__ import annotations

from typing import NamedTuple

from tests.e2e.checks import (
    RUNTIMES,
    Check,
    any_state,
    configured,
    created,
    deleted,
    fails,
    listed,
    says,
    signalled,
    started,
    state,
    stopped,
    timed,
    vm_created,
    weighed,
)

__all__ = ["ROWS", "Row"]


class Row(NamedTuple):
    """One test. ``command`` runs on the node, ``{etc}`` is the directory of the configuration there; the first three are steps of
    this machine. ``before`` and ``after`` are commands that make what it needs and remove it again.
    """

    number: int
    name: str
    command: str
    check: Check
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    plain: bool = False
    """Whether it needs nothing of Proxmox VE: then real programs do it on a simulated node too."""


_LOCAL = says()
_USAGE = "usage: nexcage"
_UNKNOWN = "container 'test-container' does not exist"


def _help(verb: str, number: int, *words: str) -> Row:
    return Row(number, f"Remote {verb.title()} Help", f"nexcage {verb} --help", says(f"^{_USAGE} {verb}", *words))


def _life(first: int, kind: str, id: str, image: str, runtime: str) -> tuple[Row, ...]:
    """A container from create to delete: eight tests."""
    wanted = (
        ("Creation", f"create --name {id} --image {image} --runtime {runtime}", created(id, backend=runtime)),
        ("List", f"list --runtime {runtime}", listed(id)),
        ("Start", f"start --name {id} --runtime {runtime}", started(id)),
        ("State (Running)", f"state {id}", state(id, "running")),
        ("Kill (SIGTERM)", f"kill -s SIGTERM {id}", signalled(id, "TERM")),
        ("Stop", f"stop --name {id} --runtime {runtime}", stopped(id)),
        ("State (Stopped)", f"state {id}", state(id, "stopped")),
        ("Delete", f"delete --name {id} --runtime {runtime}", deleted(id)),
    )
    return tuple(
        Row(first + n, f"{kind} Container {name}", f"nexcage {command}", check, plain=runtime in RUNTIMES)
        for n, (name, command, check) in enumerate(wanted)
    )


ROWS: tuple[Row, ...] = (
    Row(1, "Build Binary", "build a wheel and the wheels that it needs", _LOCAL),
    Row(2, "Copy Binary to PVE", "unpack them into a virtual environment on the node", _LOCAL),
    Row(3, "Copy Config to PVE", "write {etc}/config.toml and {etc}/config.json", _LOCAL),
    Row(4, "PVE Environment Check", "pct help", says("USAGE: pct", "pct create", "pct start")),
    Row(
        5,
        "PVE LXC Tools Check",
        "which pct lxc-ls lxc-start lxc-stop lxc-destroy",
        says("/pct$", "/lxc-ls$", "/lxc-start$", "/lxc-stop$", "/lxc-destroy$"),
    ),
    Row(6, "PVE Storage Check", "df -h", says("rpool")),
    Row(7, "PVE Network Check", "ip link show", says("vmbr[0-9]+:")),
    Row(8, "Remote Help Command", "nexcage --help", says(f"^{_USAGE}", "create", "delete", "--hosts")),
    Row(9, "Remote Version Command", "nexcage version", says(r"^nexcage [0-9]+\.[0-9]+")),
    _help("create", 10, "--image", "--runtime", "--memory"),
    _help("start", 11, "--all"),
    _help("stop", 12, "--timeout"),
    _help("delete", 13, "--force"),
    _help("list", 14, "--selector"),
    _help("run", 15, "--image"),
    _help("state", 16, "OCI"),
    _help("kill", 17, "--signal"),
    Row(
        18,
        "Remote Create Command (Expected Fail)",
        "nexcage create --name test-container --image ubuntu:20.04",
        fails("ubuntu:20.04", "--runtime"),
    ),
    Row(19, "Remote Start Command (Expected Fail)", "nexcage start --name test-container", fails(_UNKNOWN)),
    Row(20, "Remote Stop Command (Expected Fail)", "nexcage stop --name test-container", fails(_UNKNOWN)),
    Row(21, "Remote Delete Command (Expected Fail)", "nexcage delete --name test-container", fails(_UNKNOWN)),
    Row(22, "Remote List Command", "nexcage list", says("^ID ")),
    Row(
        23,
        "Remote State Command",
        "nexcage state 101 || nexcage state 999",
        any_state,
        before=("nexcage --config {etc}/e2e-vmid.toml create e2e-vmid --image ubuntu:20.04 --runtime lxc",),
        after=("nexcage delete e2e-vmid",),
    ),
    Row(
        24,
        "Remote Run Command (Expected Fail)",
        "nexcage run --name test-container --command /bin/echo hello",
        fails("unknown option --command"),
    ),
    Row(
        25,
        "Remote Kill Command (Expected Fail)",
        "nexcage kill test-nonexistent-container",
        fails("container 'test-nonexistent-container' does not exist"),
    ),
    Row(
        26,
        "Remote Invalid Command (Expected Fail)",
        "nexcage invalid-command",
        fails("unknown command invalid-command"),
    ),
    Row(27, "Remote Missing Args (Expected Fail)", "nexcage create", fails("which id")),
    Row(
        28,
        "Remote Invalid Runtime (Expected Fail)",
        "nexcage create --name test --image ubuntu --runtime invalid",
        fails("invalid"),
    ),
    Row(
        29,
        "Remote Config Loading",
        "nexcage create --name test --image ubuntu --config {etc}/config.json --help",
        configured,
    ),
    *_life(30, "LXC", "test-lxc-container", "ubuntu:20.04", "lxc"),
    *_life(38, "OCI", "test-oci-container", "nginx", "crun"),
    *_life(46, "Runc", "test-runc-container", "nginx", "runc"),
    Row(
        54,
        "VM Creation Test",
        "nexcage create --name test-vm --image ubuntu:20.04 --runtime vm",
        vm_created("test-vm"),
        after=("nexcage delete --force test-vm",),
    ),
    Row(55, "Performance Test", "bash -c 'time nexcage --help'", timed),
    Row(56, "Memory Usage Test", "nexcage --help && ps aux | grep nexcage", weighed),
    Row(
        57,
        "Error Handling Test",
        "nexcage create --name invalid-container --image invalid-image --runtime invalid-runtime",
        fails("invalid-(runtime|image)"),
    ),
)
