"""Runs the tests in order; none is skipped, and what one leaves behind is what the next finds."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.e2e.checks import Wrong
from tests.e2e.image import build as build_image
from tests.e2e.pack import PROBE, Python, build, needed
from tests.e2e.report import Result
from tests.e2e.rows import ROWS, Row
from tests.e2e.site import Said, Site

__all__ = ["Run", "environment"]


_HYBRID = """
[backends.crun]
command = ["unshare", "-m", "sh", "-c", "umount /sys/fs/cgroup/unified; exec crun \\"$@\\"", "crun"]
"""
"""Where both kinds of cgroups are mounted, crun before 1.9 needs this."""


class Run:
    """One run on one node."""

    def __init__(self, site: Site, root: Path, work: Path) -> None:
        self._site = site
        self._root = root
        self._work = work
        self._wheels: list[Path] = []

    def rows(self, only: range) -> Iterator[Result]:
        """The results, as they come; of those before ``only`` just the first three, which all others need."""
        for row in ROWS:
            if row.number in only or row.number <= 3:
                yield self._one(row)

    def _one(self, row: Row) -> Result:
        command = row.command.replace("{etc}", self._site.etc)
        began = time.monotonic()
        try:
            match row.number:
                case 1:
                    message = self._build()
                case 2:
                    message = self._copy()
                case 3:
                    message = self._configure()
                case _:
                    site = self._site.without_pve() if row.plain else self._site
                    for needed_first in row.before:
                        self._must(needed_first.replace("{etc}", self._site.etc))
                    began = time.monotonic()
                    said = site.run(command)
                    took = time.monotonic() - began
                    message = row.check(said, site)
                    for clean in row.after:
                        self._must(clean)
                    return Result(row.number, row.name, command, "PASS", round(took * 1000), message)
        except (Wrong, OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
            why = str(error) if isinstance(error, (Wrong, OSError)) else f"{type(error).__name__}: {error}"
            return Result(row.number, row.name, command, "FAIL", _ms(began), why)
        return Result(row.number, row.name, command, "PASS", _ms(began), message)

    def _must(self, command: str, stdin: bytes = b"") -> Said:
        said = self._site.run(command, stdin=stdin)
        if said.exit:
            lines = (said.err or said.out).strip().splitlines()
            raise Wrong(f"{command}: {lines[0] if lines else f'exit status {said.exit}'}")
        return said

    def _build(self) -> str:
        words = self._must(f"python3 -c {shlex.quote(PROBE)}").out.split()
        if len(words) != 3:
            raise Wrong(f"the node's python3 said {' '.join(words) or 'nothing'}")
        python = Python(*words)
        if tuple(map(int, python.version.split("."))) < (3, 11):
            raise Wrong(f"the node's python3 is {python.version}; nexcage needs 3.11")
        self._wheels = [build(self._root, self._work), *needed(python, self._work)]
        return f"{len(self._wheels)} wheels for Python {python.version} on {python.machine}"

    def _copy(self) -> str:
        """A virtual environment there, and the wheels unpacked into it: a wheel is an archive of what it installs."""
        opt = self._site.opt
        self._must(f"rm -rf -- {opt} {self._site.state} {self._site.run_dir} && python3 -m venv --without-pip {opt}")
        for wheel in self._wheels:
            self._site.write(f"{opt}/wheels/{wheel.name}", wheel.read_bytes())
        self._must(
            f"cd {opt} && for wheel in wheels/*.whl; do bin/python -m zipfile -e $wheel lib/python3*/site-packages || exit; done"
        )
        program = f"#!{opt}/bin/python\nimport sys\nfrom nexcage._cli.main import main\nsys.exit(main())\n"
        self._site.write(f"{opt}/bin/nexcage", program.encode())
        self._must(f"chmod 755 {opt}/bin/nexcage")
        said = self._must("nexcage version").out.strip()
        if not said.startswith("nexcage "):
            raise Wrong(f"nexcage version said {said!r}")
        return said

    def _configure(self) -> str:
        """The aliases of the suite lead to images that the node has; the state of the suite lies apart from everybody else's."""
        template = self._chosen("vztmpl", ("ubuntu-20.04", "ubuntu-", "debian-", "alpine-", ""))
        disk = self._chosen("import", ("ubuntu-20.04", "ubuntu-", "")) or self._chosen("iso", ("ubuntu", ""))
        if not template:
            raise Wrong("the node has no template: pveam update; pveam download local NAME")
        storages = self._must("pvesm status --content rootdir").out.splitlines()[1:]
        active = [line.split()[0] for line in storages if " active " in line]
        preferred = [name for name in active if "zfs" in name] or active
        if not preferred:
            raise Wrong("the node has no active storage for containers")
        images = f'lxc = "{template}"' + (f', vm = "{disk}"' if disk else "")
        layout = self._sent(build_image(self._work))
        config = (
            f'state_dir = "{self._site.state}"\nrun_dir = "{self._site.run_dir}"\nvmids = [900000, 900999]\n\n'
            f'[defaults]\nstorage = "{preferred[0]}"\n\n[images]\n"ubuntu:20.04" = {{ {images} }}\nnginx = "{layout}"\n'
            + (_HYBRID if self._site.run("test -d /sys/fs/cgroup/unified").exit == 0 else "")
        )
        self._site.write(f"{self._site.etc}/config.toml", config.encode())
        vmid = (
            101
            if '"101"' not in self._must("cat ${NEXCAGE_NODE_ROOT-" + self._site.root + "}/etc/pve/.vmlist").out
            else 999
        )
        self._site.write(
            f"{self._site.etc}/e2e-vmid.toml", config.replace("[900000, 900999]", f"[{vmid}, {vmid}]").encode()
        )
        old = {"log_level": "info", "container_config": {"default_container_type": "lxc", "routing": []}}
        self._site.write(f"{self._site.etc}/config.json", json.dumps(old).encode())
        self._must("nexcage config check")
        return f"ubuntu:20.04 is {template}" + (f" and {disk}" if disk else ", and no disk image for virtual machines")

    def _sent(self, directory: Path) -> str:
        """Its place on the node."""
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(directory, arcname=".")
            file.seek(0)
            there = f"{self._site.opt}/{directory.name}"
            self._must(f"rm -rf -- {there} && mkdir -p -- {there} && tar -x -C {there}", stdin=file.read())
        return there

    def _chosen(self, content: str, wanted: tuple[str, ...]) -> str:
        """The volume of that kind whose name begins with the first of ``wanted`` that there is; empty when there is none."""
        found: list[str] = []
        for line in self._site.run(f"pvesm status --content {content}").out.splitlines()[1:]:
            storage = line.split()[0]
            listed = self._site.run(f"pvesm list {storage} --content {content}").out
            found += re.findall(rf"^({re.escape(storage)}:{content}/\S+)", listed, re.MULTILINE)
        for start in wanted:
            for volume in sorted(found):
                if volume.partition("/")[2].startswith(start):
                    return volume
        return ""


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def environment(site: Site, root: Path) -> Mapping[str, str]:
    """Where the suite ran, and of what."""
    commit = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "node": site.name,
        "pve": site.run("pveversion").out.strip(),
        "kernel": site.run("uname -sr").out.strip(),
        "python": site.run("python3 --version").out.strip(),
        "nexcage": site.run("nexcage version").out.strip().removeprefix("nexcage "),
        "commit": commit.stdout.strip(),
        "driver": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
