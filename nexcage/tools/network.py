"""Addresses and open ports of all containers of a node in one command that only reads files (``/proc/PID/net`` of each init)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from nexcage._core.command import Command, Result
from nexcage._core.inside import Addresses

__all__ = ["NETWORK", "network"]

NETWORK = r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
echo '@nexcage running'
pids=
for id in $(sed -n 's#.* @/var/lib/lxc/\([0-9]\{1,\}\)/command$#\1#p' "$R/proc/net/unix" | sort -nu); do
  m= p=
  read -r m < "$R/sys/fs/cgroup/lxc.monitor/$id/cgroup.procs" && read -r p rest < "$R/proc/$m/task/$m/children"
  case $p in ''|*[!0-9]*) p=$(lxc-info -n "$id" -p -H) ;; esac
  case $p in ''|*[!0-9]*) continue ;; esac
  echo "$id $p"
  pids="$pids $p"
done
cd "$R/proc" || exit
echo '@nexcage four'
for p in $pids; do echo "$p/net/fib_trie"; done | xargs -r awk '$1 == "|--" { a = $2 } /\/32 host LOCAL/ { print FILENAME ":" a }' | sort -u
echo '@nexcage six'
for p in $pids; do echo "$p/net/if_inet6"; done | xargs -r grep -Hs ''
echo '@nexcage ports'
for p in $pids; do echo "$p/net/tcp"; echo "$p/net/tcp6"; done |
  xargs -r grep -HsE '^ *[0-9]+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} 0A '
echo '@nexcage end'
"""

_RUNNING = re.compile(rb"^([1-9][0-9]{2,8}) ([0-9]{1,10})$", re.MULTILINE)
_FOUR = re.compile(rb"^([0-9]{1,10})/net/fib_trie:([0-9.]{7,15})$", re.MULTILINE)
# Address, index, prefix length, scope (00 is global), flags (40: not yet sure that nobody else has it).
_SIX = re.compile(rb"^([0-9]{1,10})/net/if_inet6:([0-9a-f]{32}) [0-9a-f]+ [0-9a-f]+ 00 ([0-9a-f]{2}) ", re.MULTILINE)
_PORT = re.compile(rb"^([0-9]{1,10})/net/tcp6?: *[0-9]+: [0-9A-F]+:([0-9A-F]{4}) ", re.MULTILINE)
_TENTATIVE = 0x40


def network() -> Command[dict[int, Addresses]]:
    """Where each running container of the node can be reached, by VMID."""
    return Command(("sh", "-c", NETWORK, "network"), _network, safe=True, weight="read", timeout=30.0, cap=16 << 20)


def _network(result: Result) -> dict[int, Addresses]:
    head, end, _ = result.stdout.rpartition(b"@nexcage end\n")
    if not end or result.dropped:
        raise ValueError("the answer about addresses is not complete")
    addresses: dict[bytes, list[str]] = {}
    for pid, word in _FOUR.findall(head):
        addresses.setdefault(pid, []).append(word.decode())
    for pid, word, flags in _SIX.findall(head):
        if not int(flags, 16) & _TENTATIVE:
            addresses.setdefault(pid, []).append(str(IPv6Address(int(word, 16))))
    ports: dict[bytes, set[int]] = {}
    for pid, word in _PORT.findall(head):
        ports.setdefault(pid, set()).add(int(word, 16))
    return {
        int(vmid): Addresses(tuple(filter(_reachable, addresses.get(pid, ()))), tuple(sorted(ports.get(pid, ()))))
        for vmid, pid in _RUNNING.findall(head.partition(b"@nexcage four")[0])
    }


def _reachable(word: str) -> bool:
    try:
        address = ip_address(word)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)
