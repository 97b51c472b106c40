"""What a killed tool left is only removed when the node's own task log proves that it is ours: the script in a real shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nexcage._core.seen import Settled
from nexcage.tools import mending

AT = 0x692F0000
PROOF = Settled(kind="ended", at=AT, started=0x500)
OURS = f"UPID:pve-01:00700001:00000500:{AT:08X}:vzcreate:104:root@pam: {AT + 9:08X} unexpected status"
RIVAL = f"UPID:pve-01:00700002:00000900:{AT + 60:08X}:vzcreate:104:root@pam: {AT + 70:08X} unexpected status"
OTHER = f"UPID:pve-01:00700003:00000900:{AT + 60:08X}:vzcreate:1104:root@pam: {AT + 70:08X} OK"


def run(
    root: Path,
    *,
    index: tuple[str, ...] = (),
    rotated: tuple[str, ...] = (),
    live: int = 0,
    lock: str = "create",
    proof: Settled = PROOF,
) -> subprocess.CompletedProcess[str]:
    """Mend 104 on a node whose task log has these lines; `pct` only says what it was asked."""
    for name in ("etc/pve/lxc", "var/log/pve/tasks", f"proc/{live}", "bin"):
        (root / name).mkdir(parents=True)
    (root / "etc/pve/lxc/104.conf").write_text(f"lock: {lock}\n")
    (root / "var/log/pve/tasks/index").write_text("".join(f"{line}\n" for line in index))
    if rotated:
        (root / "var/log/pve/tasks/index.1").write_text("".join(f"{line}\n" for line in rotated))
    pct = root / "bin/pct"
    pct.write_text("#!/bin/sh\necho pct $*\n")
    pct.chmod(0o755)
    command = mending.mend("web", 104, lock, proof)
    env = {"PATH": f"{root}/bin:/usr/bin:/bin", "NEXCAGE_NODE_ROOT": str(root)}
    return subprocess.run(command.argv, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_what_only_our_own_task_left_is_removed(tmp_path: Path) -> None:
    done = run(tmp_path, index=(OURS, OTHER))
    assert (done.returncode, done.stdout.split("\n")[0]) == (0, "pct unlock 104")
    assert "pct destroy 104 --destroy-unreferenced-disks 1" in done.stdout


@pytest.mark.parametrize(
    ("index", "rotated"), [((OURS, RIVAL), ()), ((RIVAL,), (OURS,)), ((), (OURS, RIVAL)), ((OTHER,), (OURS, RIVAL))]
)
def test_a_later_task_of_somebody_else_is_seen_also_when_the_log_was_rotated(
    tmp_path: Path, index: tuple[str, ...], rotated: tuple[str, ...]
) -> None:
    done = run(tmp_path, index=index, rotated=rotated)
    assert (done.returncode, done.stdout) == (9, "")
    assert "not provably ours: another task of that kind came after ours" in done.stderr


def test_what_somebody_works_on_stays(tmp_path: Path) -> None:
    done = run(tmp_path, index=(OURS.removesuffix(f" {AT + 9:08X} unexpected status"),), live=0x00700001)
    assert (done.returncode, done.stdout) == (9, "")
    assert "not provably ours: a task works on it" in done.stderr


DESTROYED = f"UPID:pve-01:00700004:00000510:{AT:08X}:vzdestroy:104:root@pam: {AT + 9:08X} unexpected status"
AGAIN = f"UPID:pve-01:00700005:00000610:{AT + 3:08X}:vzdestroy:104:root@pam: {AT + 9:08X} unexpected status"
LATER = f"UPID:pve-01:00700006:00000910:{AT + 9:08X}:vzdestroy:104:root@pam: {AT + 9:08X} unexpected status"
MADE = f"UPID:pve-01:00700007:00000620:{AT + 4:08X}:vzcreate:104:root@pam: {AT + 9:08X} OK"


@pytest.mark.parametrize(
    ("index", "again", "why"),
    [
        ((DESTROYED, AGAIN), (0x600, 0x700), ""),
        ((AGAIN,), (0x600, 0x700), ""),
        ((DESTROYED, AGAIN), (), "another task of that kind came after ours"),
        ((DESTROYED, AGAIN, LATER), (0x600, 0x700), "another task of that kind came after ours"),
        ((DESTROYED, LATER), (0x600, 0x700), "another task of that kind came after ours"),
        ((DESTROYED, MADE, AGAIN), (0x600, 0x700), "somebody has made another one since"),
    ],
)
def test_what_a_repair_of_ours_ran_is_not_somebody_else_s(
    tmp_path: Path, index: tuple[str, ...], again: tuple[int, ...], why: str
) -> None:
    ran = ("-".join(map(str, again)),) if again else ()
    proof = Settled(kind="ended", at=AT, started=0x500, again=ran)
    done = run(tmp_path, index=index, lock="destroyed", proof=proof)
    assert done.returncode == (9 if why else 0)
    assert why in done.stderr
    assert ("pct destroy" in done.stdout) is not bool(why)
