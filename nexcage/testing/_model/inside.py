"""What can be seen of a simulated container from its node's files: cgroup figures, addresses, open ports, processes.

In memory they are made when somebody asks; a node on disk has them as files, which scripts of the library read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_interface

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.conf import parse_net

__all__ = ["addresses", "files_of", "listen", "network_files", "process_files", "show", "usage_files"]

_MIB = 1 << 20
_NET = re.compile(r"^net[0-9]+: (.*)$", re.MULTILINE)
_MEMORY = re.compile(r"^memory: ([0-9]+)$", re.MULTILINE)


def _main(node: Node, vmid: int) -> str:
    return (node.config(vmid) or "").split("\n[")[0]


def addresses(node: Node, vmid: int) -> list[str]:
    """Its addresses with their prefix lengths; what DHCP gives is a function of the VMID."""
    found: list[str] = []
    for index, text in enumerate(_NET.findall(_main(node, vmid))):
        net = parse_net(text)
        four, six = net.get("ip", "manual"), net.get("ip6", "manual")
        if four == "dhcp":
            four = f"10.{77 + index}.{vmid // 250 % 250}.{vmid % 250 + 2}/16"
        if six in ("auto", "dhcp"):
            six = f"fd00:{index + 1:x}::{vmid:x}/64"
        found += [address for address in (four, six) if "/" in address]
    return found


def _ports(node: Node, vmid: int) -> list[int]:
    return [int(word) for word in (node.files.read(f"{SIM}/ports/{vmid}") or "").split()]


def listen(node: Node, vmid: int, port: int, *, still: bool = True) -> None:
    """Something inside listens on a TCP port, or does no longer."""
    ports = sorted({*_ports(node, vmid), port} if still else {*_ports(node, vmid)} - {port})
    node.files.write(f"{SIM}/ports/{vmid}", " ".join(map(str, ports)))
    pid = node.init_pid(vmid)
    if pid is not None and isinstance(node.files, DiskFiles):
        for path, text in network_files(node, vmid, pid):
            node.files.write(path, text)


def network_files(node: Node, vmid: int, pid: int) -> Iterator[tuple[str, str]]:
    """``/proc/PID/net`` of its init."""
    interfaces = [ip_interface(word) for word in addresses(node, vmid)]
    trie = ["Main:", "  +-- 0.0.0.0/0 3 0 5", "     |-- 0.0.0.0", "        /0 universe UNICAST"]
    for one in interfaces:
        if one.version == 4:
            trie += [f"     |-- {one.network.network_address}", f"        /{one.network.prefixlen} link UNICAST"]
            trie += [f"     |-- {one.ip}", "        /32 host LOCAL"]
    trie += ["     |-- 127.0.0.1", "        /32 host LOCAL"]
    six = [(one.ip, "00") for one in interfaces if one.version == 6] + [(IPv6Address("::1"), "10")]
    table = "".join(f"{int(ip):032x} 02 40 {scope} 80     eth0\n" for ip, scope in six)
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    rows = (f"{n:4}: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1\n"
            for n, port in enumerate(_ports(node, vmid)))  # fmt: skip
    yield f"/proc/{pid}/net/fib_trie", "\n".join(trie) + "\n"
    yield f"/proc/{pid}/net/if_inet6", table
    yield f"/proc/{pid}/net/tcp", head + "".join(rows)


def usage_files(node: Node, vmid: int, pid: int) -> Iterator[tuple[str, str]]:
    """Its cgroup's figures (version 2), below ``/sys/fs/cgroup/lxc/VMID``."""
    elapsed = max(0.0, (node.steady() - node.booted) - _started(node, pid))
    limit = _MEMORY.search(_main(node, vmid))
    yield "memory.current", f"{48 * _MIB + vmid % 1000 * 4096}\n"
    yield "memory.max", f"{int(limit[1]) * _MIB if limit else 'max'}\n"
    yield "memory.swap.current", "0\n"
    yield "memory.stat", f"anon {32 * _MIB}\nfile {16 * _MIB}\ninactive_file {8 * _MIB}\n"
    yield "cpu.stat", f"usage_usec {400_000 + int(elapsed * 20_000)}\nuser_usec 300000\nsystem_usec 100000\n"
    yield "io.stat", f"230:0 rbytes={12 * _MIB} wbytes={3 * _MIB} rios=900 wios=200 dbytes=0 dios=0\n"
    yield "pids.current", "1\n"


def process_files(node: Node, vmid: int, pid: int) -> Iterator[tuple[str, str]]:
    """``/proc/PID`` of its init, beyond ``stat``."""
    init = "systemd" if (node.files.read(f"{SIM}/init/{vmid}") or "systemd") == "systemd" else "init"
    uid = 100_000 if "\nunprivileged: 1" in f"\n{_main(node, vmid)}" else 0
    status = f"Name:\t{init}\nState:\tS (sleeping)\nPPid:\t{node.monitor_pid(vmid) or 1}\n"
    yield f"/proc/{pid}/status", f"{status}Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nVmRSS:\t   11264 kB\nNSpid:\t{pid}\t1\n"
    yield f"/proc/{pid}/cmdline", "/sbin/init\0"


def _started(node: Node, pid: int) -> float:
    fields = (node.files.read(f"/proc/{pid}/stat") or "").rpartition(") ")[2].split()
    return int(fields[19]) / 100 if len(fields) > 19 else 0.0


def files_of(node: Node, vmid: int, pid: int) -> Iterator[tuple[str, str]]:
    """All of them by their paths."""
    yield from network_files(node, vmid, pid)
    yield from process_files(node, vmid, pid)
    for name, text in usage_files(node, vmid, pid):
        yield f"/sys/fs/cgroup/lxc/{vmid}/{name}", text


def show(node: Node, vmid: int, pid: int) -> None:
    """A container has started: a node on disk shows what is inside."""
    if isinstance(node.files, DiskFiles):
        for path, text in files_of(node, vmid, pid):
            node.files.write(path, text)
