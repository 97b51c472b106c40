"""Machines that are no PVE nodes, or whose login may not drive one: the error says so, and what to do."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import nexcage
from nexcage import NodeNotUsable, Spec
from nexcage.testing.real_sshd import RealSshd, missing
from nexcage.tools import lxc

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[RealSshd]:
    """A machine with nothing installed."""
    if missing():
        pytest.skip(missing())
    (tmp_path / "empty").mkdir()
    with RealSshd(tmp_path / "ssh", name="bare") as server:
        yield server


@pytest.mark.skipif(Path("/etc/pve").exists(), reason="this machine is a PVE node")
async def test_a_machine_with_nothing_installed_is_named_and_what_to_do(bare: RealSshd, tmp_path: Path) -> None:
    missing = {name: nexcage.BackendConfig(command=(f"{tmp_path}/{name}",)) for name in ("crun", "runc")}
    config = nexcage.Config(ssh_config="none", backends=missing)
    async with nexcage.open_fleet([bare.host], config=config, state_dir=tmp_path / "state") as fleet:
        with pytest.raises(NodeNotUsable) as refused:
            await fleet["web-1"].create(SPEC)
        seen = await fleet.look()

    for error in (refused.value, seen["bare"]):
        assert isinstance(error, NodeNotUsable)
        assert not error.retryable
        assert "bare" in str(error)
        assert "there is no `pct`" in str(error)
        assert "--hosts" in str(error)
    assert list(nexcage.read_journal(tmp_path / "state")) == []


async def test_a_pct_that_may_not_be_run_is_told_from_one_that_fails(site) -> None:  # type: ignore[no-untyped-def]
    here = site()
    launcher = here.dir / "sim/nodes/pve-01/bin/pct"
    launcher.chmod(0o644)
    async with here.open() as fleet:
        with pytest.raises(NodeNotUsable) as refused:
            await fleet["web-1"].create(SPEC)

        assert "pct needs root; log in as root or allow `sudo -n` there" in str(refused.value)
        assert fleet["web-1"].machine.state is nexcage.State.ABSENT
        launcher.chmod(0o755)
        assert (await fleet["web-1"].create(SPEC)).state is nexcage.State.CREATED


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="nexcage-open-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("pve", "pct", "root", "says"),
    [
        (False, False, False, "this is not a Proxmox VE node"),
        (True, False, False, "its login is not root and may not read /etc/pve"),
        (False, True, False, "its login is not root and may not read /etc/pve"),
        (True, True, True, "pmxcfs is down"),
        (False, False, True, "this is not a Proxmox VE node"),
    ],
)
def test_what_a_look_finds_in_the_place_of_pve_says_what_to_do(
    open_place: Path, pve: bool, pct: bool, root: bool, says: str
) -> None:
    place = open_place
    (place / "bin").mkdir()
    if pve:
        (place / "root/etc/pve").mkdir(parents=True)
    if pct:
        (place / "bin/pct").write_text("#!/bin/sh\n")
        (place / "bin/pct").chmod(0o755)
    env = {"PATH": f"{place}/bin:/usr/bin:/bin", "NEXCAGE_NODE_ROOT": str(place / "root")}
    ids = {} if root else {"user": 65534, "group": 65534, "extra_groups": []}
    command = lxc.look("pve-01")

    said = subprocess.run(command.argv, env=env, stdout=subprocess.PIPE, check=True, **ids)  # type: ignore[call-overload]

    with pytest.raises(NodeNotUsable, match=says):
        command.parse(nexcage.Result(0, said.stdout))
