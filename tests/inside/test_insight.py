"""What is seen of a container from outside: processes, figures, addresses, logs, and when it is ready."""

from __future__ import annotations

import re

import anyio
import pytest

import nexcage
from tests.inside.conftest import Inside

WAYS = ("memory", "asyncssh", "runner", "sshd-exec", "lxc")


async def test_the_processes_are_those_of_the_container(inside: Inside) -> None:
    if inside.real:
        pytest.skip("the cgroups of this machine's real containers are not where those of a PVE node are")
    processes = await inside.web.ps()

    (first,) = processes
    assert first.pid == inside.web.machine.pid
    assert first.inner == 1
    assert first.argv
    assert first.memory > 0


async def test_figures_of_all_containers_come_with_one_command(inside: Inside) -> None:
    if inside.real:
        pytest.skip("the cgroups of this machine's real containers are not where those of a PVE node are")
    (one,) = await inside.fleet.stats()

    assert (one.id, one.node, one.vmid) == ("web-1", inside.web.machine.node, inside.web.machine.vmid)
    assert one.memory > 1 << 20
    assert one.memory_limit == 512 << 20
    assert one.cpu > 0
    assert (one.read, one.written, one.pids) == (12 << 20, 3 << 20, 1)
    assert one.at > 0


async def test_addresses_and_ports_are_seen_without_anything_inside(inside: Inside) -> None:
    if inside.real:
        pytest.skip("these real containers have no network")
    vmid = inside.web.machine.vmid
    with inside.sim["pve-01"].step():
        inside.sim["pve-01"].listen(vmid, 8080)

    assert await inside.web.addresses() == nexcage.Addresses(("10.1.2.3",), (8080,))
    assert await inside.fleet.addresses() == {"web-1": nexcage.Addresses(("10.1.2.3",), (8080,))}
    with inside.sim["pve-01"].step():
        inside.sim["pve-01"].listen(vmid, 8080, still=False)


async def test_ready_when_a_port_is_listened_on(inside: Inside) -> None:
    if inside.real:
        pytest.skip("these real containers have no network")
    with pytest.raises(TimeoutError, match="nothing listens on port 8080"):
        await inside.web.wait_ready(port=8080, timeout=0.5)

    async with inside.web.exec_stream(["nc", "-l", "-p", "8080"]) as service:
        ready = await inside.web.wait_ready(port=8080, timeout=30)
        await service.send_eof()
        await service.wait()

    assert ready == nexcage.Addresses(("10.1.2.3",), (8080,))


async def test_ready_when_a_command_says_so(inside: Inside) -> None:
    web = inside.web
    why = "its check did not end"
    for timeout in (1, 5, 25):  # how long one check takes is the machine's affair
        if "did not end" in why:
            with pytest.raises(TimeoutError, match=rf"not ready after {timeout} s: its check ") as late:
                await web.wait_ready(network=False, command=["cat", "/etc/ready"], timeout=timeout)
            why = str(late.value)
    assert re.search(r"its check exits with 1: cat: .*No such file or directory", why)
    before = inside.fleet.seq

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(web.push, b"", "/etc/ready")
        await web.wait_ready(network=False, command=["cat", "/etc/ready"], timeout=30)

    assert inside.fleet.seq == before + 2  # the push; a check is not journaled


async def test_without_a_console_log_its_journal_is_shown_or_the_way_to_one(inside: Inside) -> None:
    async with inside.web.logs(lines=1) as lines:
        if inside.real:  # busybox keeps none
            with pytest.raises(nexcage.NotFound, match=r"lxc\.console\.logfile"):
                await anext(lines)
        else:
            assert [line async for line in lines] == [
                b"Jan 01 00:00:02 web-1 systemd[1]: Reached target Multi-User System."
            ]


async def test_the_log_of_its_console_is_shown_and_followed(inside: Inside) -> None:
    node, vmid = inside.sim["pve-01"], inside.web.machine.vmid
    with node.step():
        conf = node.model.config(vmid) or ""
        node.model.write_config(vmid, conf + "lxc.console.logfile: /var/log/lxc/web-1.console\n")
        node.model.files.write("/var/log/lxc/web-1.console", "one\ntwo\nthree\n")

    async with inside.web.logs(lines=2) as lines:
        assert [line async for line in lines] == [b"two", b"three"]
    async with inside.web.logs(lines=1, follow=True) as lines:
        assert await anext(lines) == b"three"
        with node.step():
            node.model.files.append("/var/log/lxc/web-1.console", "four\n")
        with anyio.fail_after(20):
            assert await anext(lines) == b"four"
