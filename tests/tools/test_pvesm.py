"""PVE's storage tools: what they print is read, and what they refuse is an error that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from nexcage import Command, CommandFailed, InvalidSpec, NexcageError, NodeNotUsable, NotFound, Result
from nexcage._core.images import Template
from nexcage._engine.node import answer
from nexcage.testing import SimCluster
from nexcage.tools import pveam, pvesh, pvesm

STATUS = b"""\
Name             Type     Status     Total (KiB)      Used (KiB) Available (KiB)        %
local             dir     active        98497780         8123404        85324828    8.25%
off               nfs   disabled               0               0               0      N/A
"""
LIST = b"""\
Volid                                             Format  Type            Size VMID
local:vztmpl/debian-12-standard_12.7-1.tar.zst    tzst    vztmpl     126129049
local-zfs:subvol-100-disk-0                       subvol  rootdir   4294967296 100
nfs:iso/x.iso                                     iso     iso             ~512
nfs:iso/y.iso                                     iso     iso                -
"""


def test_storages_are_read_with_their_sizes_in_bytes() -> None:
    local, off = pvesm.status().parse(Result(0, b"a banner\n" + STATUS))

    assert local == pvesm.Storage("local", "dir", "active", 98497780 * 1024, 8123404 * 1024, 85324828 * 1024)
    assert (off.status, off.total) == ("disabled", 0)


def test_volumes_are_read_also_where_the_size_is_not_exact_or_not_known() -> None:
    rows = pvesm.list_("local").parse(Result(0, LIST))

    assert [(row.id.partition(":")[0], row.content, row.size, row.vmid) for row in rows] == [
        ("local", "vztmpl", 126129049, 0),
        ("local-zfs", "rootdir", 4294967296, 100),
        ("nfs", "iso", 512, 0),
        ("nfs", "iso", None, 0),
    ]


@pytest.mark.parametrize("command", [pvesm.status(), pvesm.list_("local")])
def test_an_answer_without_its_head_is_none(command: Command[Any]) -> None:
    with pytest.raises(ValueError, match="no line that begins with"):
        command.parse(Result(0, b"something else\n"))


def test_templates_are_read_with_and_without_the_column_of_architectures() -> None:
    new = b"system          alpine-3.22-default_20250617_amd64.tar.xz                    amd64\n"
    old = b"mail            proxmox-mailgateway-8.1-standard_8.1-1_amd64.tar.zst\n"

    assert pveam.available().parse(Result(0, new + old)) == (
        Template("alpine-3.22-default_20250617_amd64.tar.xz", "system", "amd64"),
        Template("proxmox-mailgateway-8.1-standard_8.1-1_amd64.tar.zst", "mail"),
    )
    head = f"{'NAME':<60} {'SIZE':<6}\n".encode()
    assert pveam.list_("local").parse(Result(0, head + b"local:vztmpl/a.tar.xz   2.50MB\n")) == (
        pveam.Stored("local:vztmpl/a.tar.xz", 2621440),
    )


@pytest.mark.parametrize(
    ("command", "exit", "stderr", "kind", "words"),
    [
        (
            pvesm.list_("nosuch"),
            2,
            "storage 'nosuch' does not exist\n",
            NotFound,
            "storage 'nosuch' does not exist on pve",
        ),
        (pveam.list_("tank"), 25, "Storage does not support templates!\n", InvalidSpec, "'tank'"),
        (pveam.download("tank", "x.tar.xz"), 2, "storage 'tank' does not support templates\n", InvalidSpec, "'tank'"),
        (pveam.download("local", "x.tar.xz"), 255, "template: no such template\n", NotFound, "'x.tar.xz'"),
        (pveam.list_("local"), 255, "please run as root\n", NodeNotUsable, "root"),
        (pveam.list_("local"), 127, "sh: 1: pveam: not found\n", NodeNotUsable, "no `pveam`"),
        (pvesm.status(), 2, "something else\n", CommandFailed, "something else"),
        (
            pvesh.oci_pull("pve", "local", "docker.io/library/nginx:1", "nginx_1"),
            1,
            "No 'create' handler defined for '/nodes/pve/storage/local/oci-registry-pull'\n",
            NodeNotUsable,
            "9.1",
        ),
    ],
)
def test_refusals_are_told_apart(
    command: Command[Any], exit: int, stderr: str, kind: type[NexcageError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        answer(command, Result(exit, b"", stderr.encode()), "pve")


def test_an_update_that_failed_with_exit_status_0_is_an_error() -> None:
    said = b"update failed - see /var/log/pveam.log for details\n"

    with pytest.raises(CommandFailed, match="update failed"):
        answer(pveam.update(), Result(0, b"", said), "pve")
    assert answer(pveam.update(), Result(0, b"update successful\n"), "pve") is None


def test_the_task_of_a_pull_is_found_below_what_it_printed() -> None:
    upid = "UPID:pve1:0000AAAA:00BBBBBB:69242E00:ociregistrypull:local:root@pam:"

    command = pvesh.oci_pull("pve1", "local", "docker.io/library/nginx:1.29", "nginx_1.29")
    assert command.parse(Result(0, f'starting pull\n"{upid}"\n'.encode())) == upid
    assert pvesh.task("pve1", upid).argv[2] == f"/nodes/pve1/tasks/{upid}/status"
    assert pvesh.Task("stopped", "OK").failed is False
    assert pvesh.Task("stopped", "WARNINGS: 1").failed is False
    assert pvesh.Task("stopped", "no space").failed is True


async def test_the_simulated_node_speaks_what_is_read() -> None:
    sim = SimCluster(1)

    async def told(command: Command[Any]) -> Any:
        return answer(command, await sim["pve-01"].run(command.argv), "pve-01")

    assert {row.name for row in await told(pvesm.status())} == {"local", "local-zfs"}
    assert "alpine-3.22-default_20250617_amd64.tar.xz" in {row.name for row in await told(pveam.available("system"))}
    with pytest.raises(NotFound, match="debian-13"):
        await told(pveam.download("local", "debian-13-standard_13.1-2_amd64.tar.zst"))
    await told(pveam.update())
    assert "finished" in await told(pveam.download("local", "debian-13-standard_13.1-2_amd64.tar.zst"))
    volume = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst"
    assert volume in {row.volume for row in await told(pveam.list_("local"))}
    await told(pveam.remove(volume))
    assert volume not in {row.id for row in await told(pvesm.list_("local", "vztmpl"))}
    assert await told(pvesh.oci_tags("pve-01", "docker.io/library/nginx")) == ("1.28", "1.29", "latest")
    good = await told(pvesh.oci_pull("pve-01", "local", "docker.io/library/nginx:1.29", "nginx_1.29"))
    bad = await told(pvesh.oci_pull("pve-01", "local", "docker.io/library/nginx:9", "nginx_9"))
    assert not (await told(pvesh.task("pve-01", good))).failed
    assert "exit code 1" in (await told(pvesh.task("pve-01", bad))).exitstatus
    assert await told(pvesm.path("local:vztmpl/nginx_1.29.tar")) == "/var/lib/vz/template/cache/nginx_1.29.tar"
