"""The way in as programs on PATH: for shells, for the local transport, and for a real sshd.

``DIR/nodes/NAME/bin`` has a launcher for each pretend tool. Each call is a process of its own that takes the cluster's lock for
each of its steps, so any number of them may run at once. There is a launcher for ``sh`` too: scripts that read a node's files
below ``$NEXCAGE_NODE_ROOT`` find the simulated ones.

This module is the body of every launcher: it imports nothing slow.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from nexcage.testing import faults
from nexcage.testing._model import ON_DISK, TOOLS
from nexcage.testing._model.drive import drive_process, leave
from nexcage.testing._model.files import REAL, DiskFiles
from nexcage.testing._model.tool import Ctx
from nexcage.testing._model.world import disk_node

if TYPE_CHECKING:
    from pathlib import Path

    from nexcage.testing._model.node import Node

__all__ = ["bin_dir", "install", "main"]

_MAIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from nexcage.testing.executables import main; main(sys.argv[1:])"
)
_LAUNCHER = """\
#!/bin/sh
NEXCAGE_NODE_ROOT={root}
export NEXCAGE_NODE_ROOT
exec {command} "$@"
"""


def bin_dir(directory: Path, node: str) -> Path:
    """What to put on PATH in order to be on that node."""
    return directory / "nodes" / node / "bin"


def install(directory: Path, nodes: tuple[str, ...]) -> None:
    """Write the launchers of every node, for this Python and this nexcage. A node with real containers has LXC's own tools."""
    import shlex

    for name in nodes:
        place = bin_dir(directory, name)
        place.mkdir(parents=True, exist_ok=True)
        root = directory / "nodes" / name / "root"
        inside = _inside(root)
        for program in (*ON_DISK, "sh"):
            if inside and program.startswith("lxc-"):  # the machine's own
                (place / program).unlink(missing_ok=True)
                continue
            words = ["/bin/sh"] if program == "sh" else [*_python(), str(directory), name, program]
            command = shlex.join([*inside, *words])
            _write(str(place / program), _LAUNCHER.format(root=shlex.quote(str(root)), command=command))


def _inside(root: Path) -> list[str]:
    """The words that lead into the namespaces of a node with real containers."""
    if not os.path.exists(f"{root}{REAL}"):
        return []
    from nexcage.testing._model.real import entering, ground_of

    ground = ground_of(str(root))
    return entering(ground) if ground is not None else []


def _python() -> list[str]:
    """What runs `main` in a new process."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-S", "-c", _MAIN, home]


def _write(path: str, text: str) -> None:
    """Replace a launcher that has changed; one that has not may be running."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    except OSError:
        pass
    temporary = f"{path}.tmp.{os.getpid()}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def main(argv: list[str]) -> NoReturn:
    """One call of a pretend tool: ``DIR NODE PROGRAM ARGUMENTS...``."""
    directory, name, program, *arguments = argv
    node = disk_node(directory, name)
    if faults.state_of(node).get("down"):
        sys.stderr.write(f"nexcage sim: node {name} is down\n")
        leave(255)
    stdin = b""
    inside = arguments[:1] == ["exec"] and not os.path.exists(f"{directory}/nodes/{name}/root{REAL}")
    if program == "pct" and (inside or "/dev/stdin" in arguments):
        stdin = sys.stdin.buffer.read()
    if program == "qm" and (arguments[:1] == ["monitor"] or {"/dev/stdin", "--pass-stdin"} & set(arguments)):
        stdin = sys.stdin.buffer.read()
    out, err = sys.stdout.buffer.write, sys.stderr.buffer.write
    ctx = Ctx(node, (program, *arguments), stdin=stdin, env=os.environ, out=out, err=err, real=True)
    ctx.eof = program not in ("lxc-attach", "crun", "runc")  # whose standard input is read as it comes
    if "NEXCAGE_OP_ID" in os.environ:
        ctx.claim = _claim()[1]
    leave(drive_process(faults.under_faults(TOOLS[program], _Here(node)), ctx))


class _Here(faults.Ground):
    """This process, and the SSH session that it belongs to, if there is one."""

    def __init__(self, node: Node) -> None:
        self.node: Node = node

    def cut(self) -> None:
        """End the session's server. A local call has no link to lose: its answer is lost when it is killed."""
        session = _sshd()
        if session or not self.supervised:
            os.kill(session or os.getpid(), signal.SIGKILL)

    @property
    def supervised(self) -> bool:
        return _claim()[0] != 0

    def mute(self) -> None:
        self.cut()  # one process among others cannot make packets vanish

    def beside(self, argv: tuple[str, ...]) -> None:
        import subprocess

        files = self.node.files
        assert isinstance(files, DiskFiles)
        words = [*_python(), os.path.dirname(files.cluster), self.node.name, *argv]
        null = subprocess.DEVNULL
        subprocess.Popen(words, stdin=null, stdout=null, stderr=null, start_new_session=True)

    def killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def gone(self) -> None:
        supervisor, _ = _claim()
        if supervisor:
            os.kill(supervisor, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def happen(self, kind: str) -> None:
        faults.happen(self.node, kind)


def _claim() -> tuple[int, str]:
    """The pid of the process that keeps this command's claim, and the claim (``FLEET/OPID.STEP``); 0 if there is none."""
    pid = os.getppid()
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0 ").split(b"\0")
    except OSError:
        return 0, ""
    if words[0].startswith(b"nexcage claim "):
        return pid, os.fsdecode(words[0].split(b" ")[2])
    if b"nexcage-claim" in words[:-1]:
        return pid, "/".join(os.fsdecode(words[words.index(b"nexcage-claim") + 1]).split("/")[-2:])
    return 0, ""


def _sshd() -> int:
    """The pid of the sshd above this process, 0 if there is none."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(") ")
        except OSError:
            return 0
        if head.partition("(")[2].startswith("sshd"):
            return pid
        pid = int(rest.split()[1])
    return 0
