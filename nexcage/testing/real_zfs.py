"""Real ZFS pools in files, by zfs-fuse: no kernel module, but root. For tests of what the model only pretends."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["RealZfs", "missing"]

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_READY = 30.0  # seconds in which the daemon answers

# Real datasets are mounted below the node's root; to whoever works on the node they are where a real node has them.
_WRAPPER = """\
#!/bin/sh
R={root}
n=$#
while [ "$n" -gt 0 ]; do
  w=$1
  shift
  case $w in mountpoint=/*) w=mountpoint=$R${{w#mountpoint=}} ;; esac
  set -- "$@" "$w"
  n=$((n - 1))
done
t=$(mktemp -d) || exit
{program} "$@" >"$t/out" 2>"$t/err"
s=$?
sed "s#$R##g" "$t/out"
sed "s#$R##g" "$t/err" >&2
rm -r "$t"
exit $s
"""


def missing() -> str:
    """Why there can be no pool here and how to get one; empty when there can."""
    if os.geteuid() != 0:
        return "real ZFS pools need root"
    if not os.path.exists("/dev/fuse"):
        return "real ZFS pools need /dev/fuse"
    if not all(shutil.which(program, path=_PATH) for program in ("zfs-fuse", "zfs", "zpool")):
        return "no zfs-fuse on this machine: apt-get install zfs-fuse"
    return ""


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None
    return found


class RealZfs:
    """Pools in files below ``dir``. Entering starts the daemon, unless one runs; leaving destroys the pools and ends our own daemon."""

    def __init__(self, dir: Path) -> None:
        self.dir: Path = dir
        self.pools: list[str] = []
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def own(self) -> bool:
        """Whether the daemon is ours to end."""
        return self._daemon is not None

    def run(self, *argv: str, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run ``zfs`` or ``zpool``, whatever comes of it."""
        return subprocess.run([_program(argv[0]), *argv[1:]], capture_output=True, timeout=timeout, check=False)

    def start(self) -> None:
        """Have a daemon that answers."""
        if self._answers():
            return
        log = (self.dir / "zfs-fuse.log").open("ab")
        with log:
            self._daemon = subprocess.Popen(
                [_program("zfs-fuse"), "-n", "--no-kstat-mount", "-p", str(self.dir / "zfs-fuse.pid")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _READY
        while not self._answers():
            if time.monotonic() > until or self._daemon.poll() is not None:
                self.end()
                raise RuntimeError(f"zfs-fuse does not answer: {(self.dir / 'zfs-fuse.log').read_text()[-500:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        return self.run("zpool", "list", "-H").returncode == 0

    def pool(self, name: str, mountpoint: Path | str, *, size: int = 128 << 20) -> str:
        """A new pool of so many bytes; its name."""
        file = self.dir / f"{name}.img"
        with file.open("wb") as image:
            image.truncate(size)
        made = self.run("zpool", "create", "-f", "-o", "cachefile=none", "-m", str(mountpoint), name, str(file))
        if made.returncode != 0:
            raise RuntimeError(f"zpool create: {made.stderr.decode(errors='replace')}")
        self.pools.append(name)
        return name

    def destroy(self, name: str) -> None:
        """Remove a pool and its file; tries again while something of it is in use (mount namespaces of others copy its mounts)."""
        until = time.monotonic() + _READY
        while self.run("zpool", "destroy", "-f", name).returncode != 0 and time.monotonic() < until:
            time.sleep(0.2)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            device, place, kind = line.split(" ")[:3]
            if kind == "fuse.zfs" and device.split("/")[0] == name:
                subprocess.run(["umount", "-l", place], check=False, timeout=30)
        (self.dir / f"{name}.img").unlink(missing_ok=True)
        self.pools.remove(name)

    def end(self) -> None:
        """No daemon of ours any more; it does not act on SIGTERM soon."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def install(self, bin: Path, root: Path) -> None:
        """Put the real ``zfs`` and ``zpool`` in the place of a simulated node's; ``root`` is where that node's files lie."""
        for program in ("zfs", "zpool"):
            place = bin / program
            temporary = place.with_suffix(".new")
            temporary.write_text(_WRAPPER.format(root=shlex.quote(str(root)), program=_program(program)))
            temporary.chmod(0o755)
            temporary.replace(place)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.pools):
            self.destroy(name)
        self.end()
