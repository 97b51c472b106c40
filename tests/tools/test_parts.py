"""The version of a part of Proxmox VE, as the real shell reads it from the package manager's file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nexcage import Command, InvalidInput, Result
from nexcage.tools.parts import part

STATUS = """Package: pve-container-doc
Status: install ok installed
Version: 1.0

Package: pve-container
Status: install ok installed
Depends: lxc-pve, x (= 1)
Version: 6.1.10

Package: zlib1g
Version: 1:1.3
"""


def ran(command: Command[str], root: Path) -> str:
    done = subprocess.run(
        command.argv, env={**os.environ, "NEXCAGE_NODE_ROOT": str(root)}, capture_output=True, check=False
    )
    return command.parse(Result(done.returncode, done.stdout, done.stderr))


@pytest.mark.parametrize(
    ("name", "version"), [("pve-container", "6.1.10"), ("zlib1g", "1:1.3"), ("pve-manager", ""), ("pve", "")]
)
def test_a_version_is_that_of_the_package_of_this_name(tmp_path: Path, name: str, version: str) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    assert ran(part(name), tmp_path) == version


def test_a_machine_without_packages_has_none(tmp_path: Path) -> None:
    assert ran(part("pve-container"), tmp_path) == ""


def test_what_is_cut_off_is_no_answer() -> None:
    with pytest.raises(ValueError, match="ends before"):
        part("pve-container").parse(Result(0, b"6.1.10\n"))


@pytest.mark.parametrize("name", ["", "a b", "$(x)", "../x", "A"])
def test_what_is_no_package_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        part(name)
