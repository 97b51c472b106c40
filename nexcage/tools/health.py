"""What tells whether a node is fit to run containers: commands to ask, and what their answers mean.

It looks at values: a pool that is DEGRADED and a file system that is full exist, too. Each `Probe` is one command; `read`
turns its result into checks, each with a verdict, the value seen and what to do. Nothing here raises for what a node says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import msgspec

from nexcage._core.command import Command, Result, shown, text

__all__ = [
    "Check",
    "Probe",
    "Verdict",
    "clock",
    "disk",
    "free_space",
    "lease",
    "packages",
    "perl",
    "pools",
    "probes",
    "read",
    "runner",
    "sshd",
    "storages",
    "templates",
    "version",
]

Verdict = Literal["PASS", "WARN", "FAIL"]

_GIB = 1 << 30
_FULL, _NEARLY = 95, 85  # per cent; ZFS slows down long before it is full
_POOL_FULL, _POOL_NEARLY = 92, 80
_SKEW_WARN, _SKEW_FAIL = 2.0, 30.0
_OLDEST = 8  # PVE releases that this was written for


class Check(msgspec.Struct, frozen=True, omit_defaults=False):
    """One finding: what was looked at, the verdict, the value seen, and what to do when it is not PASS."""

    check: str
    verdict: Verdict
    value: str
    todo: str = ""


class Probe(msgspec.Struct, frozen=True):
    """One command and how to read its answer. ``missing`` is the finding when the node does not have the program."""

    name: str
    command: Command[tuple[Check, ...]]
    missing: Check | None = None


def probes() -> tuple[Probe, ...]:
    """What to ask a node whose clock is not compared; `clock` and `templates` need something from the caller."""
    return (version(), pools(), storages(), disk("/"), sshd())


def read(probe: Probe, result: Result) -> tuple[Check, ...]:
    """The findings in a result, also in a failed, unreadable or lost one."""
    said = shown(result.stderr, 400).strip()
    if result.exit is None:
        return (Check(probe.name, "FAIL", "no answer", f"run `{probe.command}` there and see where it hangs"),)
    if result.exit == 127 or (
        result.exit and re.search(r"not found|No such file or directory", said) and not result.stdout
    ):
        return (probe.missing,) if probe.missing else ()
    if result.exit:
        last = said.splitlines()[-1] if said else f"exit status {result.exit}"
        return (Check(probe.name, "FAIL", last, f"run `{probe.command}` there"),)
    try:
        return probe.command.parse(result)
    except (ValueError, IndexError) as error:
        return (Check(probe.name, "WARN", f"cannot read the answer: {error}", f"run `{probe.command}` there"),)


def version() -> Probe:
    """Which Proxmox VE it is."""
    missing = Check(
        "pve", "FAIL", "no pveversion", "this is no Proxmox VE node; `nexcage sim up` starts a simulated cluster"
    )
    return Probe("pve", _ask("pveversion", parse=_version), missing)


def packages() -> Command[dict[str, str]]:
    """The parts of Proxmox VE that a node has, with their versions, and its kernel."""

    def parse(result: Result) -> dict[str, str]:
        parts = (line.partition(": ") for line in text(result).splitlines())
        return {name: version.split(" ")[0] for name, _, version in parts if version}

    return Command(("pveversion", "--verbose"), parse, safe=True, timeout=30.0)


def pools() -> Probe:
    """Health and fill of the ZFS pools."""
    return Probe("pool", _ask("zpool", "list", "-Hp", "-o", "name,size,alloc,free,cap,health", parse=_pools))


def storages() -> Probe:
    """Whether PVE's storages are there and have room."""
    missing = Check("storage", "FAIL", "no pvesm", "install pve-manager, or look at another node")
    return Probe("storage", _ask("pvesm", "status", parse=_storages, timeout=30.0), missing)


def templates() -> Probe:
    """Which active storages take templates."""
    return Probe("templates", _ask("pvesm", "status", "--content", "vztmpl", parse=_template_storages, timeout=30.0))


def template_list(storage: str) -> Probe:
    """Whether a storage has a template to create from."""

    def parse(result: Result) -> tuple[Check, ...]:
        found = sum(1 for line in text(result).splitlines()[1:] if ":vztmpl/" in line)
        if found:
            return (Check(f"templates {storage}", "PASS", f"{found} templates"),)
        todo = f"pveam update && pveam download {storage} NAME ('pveam available' lists them)"
        return (Check(f"templates {storage}", "WARN", "no template", todo),)

    return Probe(
        f"templates {storage}", _ask("pvesm", "list", storage, "--content", "vztmpl", parse=parse, timeout=30.0)
    )


def disk(path: str) -> Probe:
    """Room in the file system of ``path``."""

    def parse(result: Result) -> tuple[Check, ...]:
        rows = [line.split() for line in text(result).splitlines()[1:]]
        fields = rows[-1]
        total, free = int(fields[1]) * 1024, int(fields[3]) * 1024
        return (free_space(f"disk {path}", free, total),)

    return Probe(f"disk {path}", _ask("df", "-Pk", path, parse=parse))


def sshd() -> Probe:
    """How many channels and logins at once its SSH server takes."""
    return Probe(
        "sshd",
        _ask("sshd", "-T", parse=_sshd),
        Check("sshd", "WARN", "limits not readable", "run `sshd -T` there as root"),
    )


def perl() -> Probe:
    """Which Perl it has for the runner; a node without one is no finding of its own (see `runner`)."""
    return Probe("perl", _ask("perl", "-e", "printf q(%vd), $^V", parse=_perl))


def runner(mode: str, *, fencing: bool, local: bool, perl: str = "") -> Check:
    """How commands travel to a node, by its transport's ``mode`` (``runner``, or ``exec: WHY``), and what that means for fencing."""
    version = f"; Perl {perl}" if perl else ""
    if mode == "runner" or fencing:
        return Check("runner", "PASS", f"one runner carries all commands, fencing is on{version}")
    why = mode.removeprefix("exec").removeprefix(":").strip()
    if local and not why:
        todo = "runner = 'always' in the configuration turns both on here"
        return Check("runner", "PASS", f"no runner on this machine, fencing is off{version}", todo)
    if not why:
        return Check("runner", "WARN", f"not known, so fencing counts as off{version}", "ask again when it answers")
    off = "switched off" in why
    todo = "runner = 'auto' in the configuration turns it on" if off else "it needs perl-base there; see --debug"
    return Check("runner", "WARN", f"a channel per command, fencing is off: {why}{version}", todo)


def lease(where: str, holder: str, *, epoch: int, ours: bool, expires: float, now: float, host: str = "") -> Check:
    """Who may drive the fleet, as the lease at ``where`` says; ``epoch`` 0: nobody has taken it yet."""
    if epoch <= 0:
        return Check("lease", "PASS", f"{where}: nobody holds it; the first change takes it")
    left = expires - now
    until = f"for {left:.0f} s" if left > 0 else f"expired {-left:.0f} s ago"
    if ours:
        return Check("lease", "PASS", f"{where}: epoch {epoch}, this state directory ({holder}), {until}")
    what = f"{where}: epoch {epoch}, another state directory ({holder}{f' on {host}' if host else ''}), {until}"
    if left > 0:
        return Check("lease", "WARN", what, "changes are refused here as long as that one drives the fleet")
    return Check("lease", "PASS", what)


def clock(now: Callable[[], float]) -> Probe:
    """How far its clock is from ``now()``, which is asked when the answer is there."""

    def parse(result: Result) -> tuple[Check, ...]:
        there = int(text(result).strip())
        skew = there - (now() - result.seconds / 2)
        size = max(0.0, abs(skew) - 1.0 - result.seconds / 2)  # whole seconds, and the way there and back
        verdict: Verdict = "FAIL" if size > _SKEW_FAIL else "WARN" if size > _SKEW_WARN else "PASS"
        todo = "" if verdict == "PASS" else "set the clock: `chronyc makestep`, and see why `chronyc tracking` is off"
        return (Check("clock", verdict, f"{skew:+.0f} s" if size else "in step", todo),)

    return Probe("clock", _ask("date", "+%s", parse=parse))


def free_space(check: str, free: int, total: int) -> Check:
    """The finding for ``free`` of ``total`` bytes."""
    used = 100 - free * 100 // total if total > 0 else 100
    verdict: Verdict = "FAIL" if used >= _FULL or free <= 0 else "WARN" if used >= _NEARLY else "PASS"
    return Check(
        check, verdict, f"{_size(free)} free, {used} % used", "" if verdict == "PASS" else "free some space, or grow it"
    )


def template_storages(checks: tuple[Check, ...]) -> tuple[str, ...]:
    """The storages that `templates` found active."""
    return tuple(check.check.partition(" ")[2] for check in checks if check.verdict == "PASS" and " " in check.check)


def _ask(
    *argv: str, parse: Callable[[Result], tuple[Check, ...]], timeout: float | None = 15.0
) -> Command[tuple[Check, ...]]:
    return Command(argv, parse, safe=True, timeout=timeout, weight="read")


def _version(result: Result) -> tuple[Check, ...]:
    said = text(result).strip()
    match = re.match(r"pve-manager/(\d{1,4})(\.[0-9.]+)?", said)
    if not match:
        raise ValueError(said[:80] or "empty")
    value = said.split("/")[1] if "/" in said else said
    kernel = re.search(r"running kernel: ([^)\s]+)", said)
    if kernel:
        value += f", kernel {kernel[1]}"
    if int(match[1]) < _OLDEST:
        return (Check("pve", "WARN", value, f"older than Proxmox VE {_OLDEST}, which this was made for: upgrade"),)
    return (Check("pve", "PASS", value),)


def _pools(result: Result) -> tuple[Check, ...]:
    checks: list[Check] = []
    for line in text(result).splitlines():
        fields = line.split("\t")
        if len(fields) < 6:
            continue
        name, free, cap, health = fields[0], int(fields[3]), int(fields[4].rstrip("%")), fields[5]
        value = f"{health}, {_size(free)} free, {cap} % used"
        if health != "ONLINE":
            checks.append(
                Check(f"pool {name}", "FAIL", value, f"see `zpool status -x {name}` and replace what is broken")
            )
        elif cap >= _POOL_NEARLY:
            verdict: Verdict = "FAIL" if cap >= _POOL_FULL else "WARN"
            checks.append(Check(f"pool {name}", verdict, value, "delete snapshots or containers, or add a vdev"))
        else:
            checks.append(Check(f"pool {name}", "PASS", value))
    return tuple(checks)


def _rows(result: Result) -> list[list[str]]:
    return [fields for line in text(result).splitlines()[1:] if len(fields := line.split()) >= 7]


def _storages(result: Result) -> tuple[Check, ...]:
    checks: list[Check] = []
    for name, _, status, total, _, available, *_ in _rows(result):
        if status == "disabled":
            continue
        if status != "active":
            todo = f"see `pvesm status --storage {name}`; disable it if it is not needed"
            checks.append(Check(f"storage {name}", "FAIL", status, todo))
        else:
            checks.append(free_space(f"storage {name}", int(available) * 1024, int(total) * 1024))
    if not checks:
        return (Check("storage", "FAIL", "no active storage", "add one: pvesm add ..."),)
    return tuple(checks)


def _template_storages(result: Result) -> tuple[Check, ...]:
    active = [row[0] for row in _rows(result) if row[2] == "active"]
    if not active:
        return (
            Check("templates", "FAIL", "no active storage takes templates", "pvesm set local --content vztmpl,..."),
        )
    return tuple(Check(f"templates {name}", "PASS", "active") for name in active)


def _perl(result: Result) -> tuple[Check, ...]:
    version = text(result).strip()
    if not re.fullmatch(r"[0-9]+(\.[0-9]+){1,3}", version):
        raise ValueError(f"no version: {version[:40]!r}")
    return (Check("perl", "PASS", version),)


def _sshd(result: Result) -> tuple[Check, ...]:
    given = dict(line.split(" ", 1) for line in text(result).lower().splitlines() if " " in line)
    sessions, startups = given.get("maxsessions", "10"), given.get("maxstartups", "10:30:100")
    value = f"MaxSessions {sessions}, MaxStartups {startups}"
    if int(sessions) < 10 or int(startups.partition(":")[0]) < 10:
        todo = "raise MaxSessions to 10 and MaxStartups to 10:30:100 or more in sshd_config"
        return (Check("sshd", "WARN", value, todo),)
    return (Check("sshd", "PASS", value),)


def _size(amount: int) -> str:
    return f"{amount / _GIB:.1f} GiB" if amount >= _GIB else f"{amount / (1 << 20):.0f} MiB"
