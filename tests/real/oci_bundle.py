"""A bundle of busybox, and the command line as an OCI engine calls it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nexcage._cli.verbs_spec import document

__all__ = ["CRUN", "Cli", "Runc", "bundle", "forget", "missing", "until"]

ROOT = Path(__file__).parents[2]
APPLETS = "sh sleep cat echo ls id env true false kill ps tty head stty".split()
CRUN = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec crun "$@"', "crun"]
"""crun works on a hybrid cgroup tree only without its second half."""
SERVE = "trap 'exit 7' TERM; echo up; sleep 3600 & wait"


def missing(*programs: str) -> str:
    """What is not installed, with the way to get it; empty when all is there."""
    lacking = [program for program in ("busybox", *programs) if not shutil.which(program)]
    if os.geteuid() != 0:
        return "needs root"
    return f"not installed: apt-get install {' '.join(lacking)} (busybox-static)" if lacking else ""


def bundle(where: Path, script: str = SERVE, **process: Any) -> Path:  # Any: whatever JSON can say
    """A directory with config.json and a root file system, whose program is a script of busybox's shell."""
    bin = where / "rootfs" / "bin"
    bin.mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), bin / "busybox")
    for applet in APPLETS:
        bin.joinpath(applet).symlink_to("busybox")
    config = document(rootless=False, unified=False)
    config["process"] |= {"terminal": False, "args": ["sh", "-c", script], **process}
    config["annotations"] = {"com.example.k": "v"}
    where.joinpath("config.json").write_text(json.dumps(config))
    return where


def forget(fleet: str) -> None:
    """Remove what containers of a fleet have left on this machine."""
    for top in ("/run", "/var/lib"):
        shutil.rmtree(f"{top}/nexcage-oci/{fleet}", ignore_errors=True)
    for link in Path("/var/lib/nexcage-oci/.numbers").glob("*"):
        with suppress(FileNotFoundError):
            if os.readlink(link).startswith(f"{fleet}/"):
                link.unlink()


def until(so: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition that the kernel or somebody else brings about."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


class Runc:
    """The real one."""

    def __init__(self, dir: Path) -> None:
        self.head: list[str] = ["runc", "--root", str(dir / "runc")]

    def __call__(
        self, *words: str, stdin: int = subprocess.DEVNULL, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One command line. Its output goes to files: a container keeps the streams of the command that made it."""
        return _ran([*self.head, *words], stdin=stdin, cwd=cwd)

    @staticmethod
    def env() -> dict[str, str]:
        """The environment of a command line."""
        return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def close(self) -> None:
        for id in self("list", "-q").stdout.split():
            self("delete", "--force", id)


class Cli(Runc):
    """Ours, with the state below a directory."""

    def __init__(self, dir: Path, backend: str = "runc", *, before: Sequence[str] = ()) -> None:
        self.root = dir / f"nexcage-{backend}"
        config = dir / f"{backend}.toml"
        command = f"[backends.crun]\ncommand = {json.dumps(CRUN)}\n" if backend == "crun" else ""
        config.write_text(f'[defaults]\nbackend = "{backend}"\n{command}')
        ours = [sys.executable, "-m", "nexcage", "--config", str(config), "--root", str(self.root)]
        self.head = [*before, *ours]

    @property
    def fleet(self) -> str:
        return re.sub(r"\s", "", (self.root / ".nexcage" / "fleet").read_text())

    def close(self) -> None:
        super().close()
        forget(self.fleet)


def _ran(argv: Sequence[str], *, stdin: int, cwd: Path | None) -> subprocess.CompletedProcess[str]:
    with open(os.memfd_create("out"), "w+b") as out, open(os.memfd_create("err"), "w+b") as err:
        done = subprocess.run(
            argv,
            stdin=stdin,
            stdout=out,
            stderr=err,
            cwd=cwd,
            timeout=200,
            env=Runc.env(),
            check=False,
        )
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode("utf-8", "backslashreplace") for file in (out, err)]
    return subprocess.CompletedProcess(list(argv), done.returncode, *texts)
