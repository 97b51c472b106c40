r"""Virtual machines as a look sees them, and signals to their processes, without starting a Perl tool of PVE (pve-commands 7).

Which run is a pid file with a live ``kvm`` behind it. Whether one is paused only its QEMU knows: it is asked by QMP, which takes
one client at a time, so that is asked of machines with a mark of ours only. A node without virtual machines pays nothing for this.
On simulated nodes the QMP socket is a plain file with the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage._core.seen import Guest, Mark
from nexcage.errors import CommandFailed, IllegalTransition, NexcageError, NotOurs

__all__ = ["POWER", "VMS", "alive", "plain", "power_off"]

VMS = r"""echo '@nexcage vms'
for f in "$R"/run/qemu-server/*.pid; do
  id=${f##*/} p= s=
  read -r p < "$f"
  case $p in ''|*[!0-9]*) continue ;; esac
  read -r s < "$R/proc/$p/stat"
  case $s in *' (kvm) '*) echo "${id%.pid} $p ${s##*) }" ;; esac
done
cd "$R/etc/pve/qemu-server" && {
  set -- *.conf
  echo '@nexcage vmconfigs'; printf '%s\n' "$@"
  echo '@nexcage vmtexts'
  [ "$1" = '*.conf' ] || {
    grep -aH '' /dev/null "$@"
    set --
    for f in $(grep -ls '^#nexcage fleet=' *.conf); do
      f=$R/run/qemu-server/${f%.conf}.qmp
      [ ! -e "$f" ] || set -- "$@" "$f"
    done
    echo '@nexcage vmstates'
    [ $# -eq 0 ] || perl -MSocket -e '
      $SIG{ALRM} = sub { die "silent\n" };
      for my $f (@ARGV) {
        my $said = "";
        eval {
          my $q;
          alarm 1;
          if (-S $f) {
            socket($q, PF_UNIX, SOCK_STREAM, 0) && connect($q, pack_sockaddr_un($f)) or die;
            <$q>;
            for my $do ("qmp_capabilities", "query-status") {
              syswrite $q, "{\"execute\":\"$do\"}\n";
              do { $said = <$q> } while defined $said && $said !~ /"(?:return|error)":/;
            }
          } else { open($q, "<", $f) or die; $said = <$q> }
        };
        alarm 0;
        last if $@ && ++$silent > 5;
        print "$1 $2\n" if ($f . ($said // "")) =~ /([0-9]+)\.qmp.*"status": *"([a-z-]+)"/;
      }' "$@"
  }
}
"""
"""The part of a look (`nexcage.tools.lxc.LOOK`) that is about virtual machines; it ends in another directory and without ``$@``.
``vmstates`` is printed only where there are some.
"""

POWER = r"""R=${NEXCAGE_NODE_ROOT-}
sed '/^\[/q' "$R/etc/pve/qemu-server/$2.conf" | grep -qxF -e "#$1" ||
  { echo 'nexcage: the container does not carry our mark' >&2; exit 9; }
pid=
read -r pid < "$R/run/qemu-server/$2.pid" 2>/dev/null
case $pid in ''|*[!0-9]*) pid=0 ;; esac
grep -qsaF "qemu-server/$2.pid" "$R/proc/$pid/cmdline" || { echo "nexcage: virtual machine $2 has no process" >&2; exit 8; }
env kill -9 "$pid" && echo "$pid"
"""

_PENDING = re.compile(rb"^\[PENDING\][ \t]*$", re.MULTILINE | re.IGNORECASE)
_SPECIAL = re.compile(rb"^\[special:[^\]\n]*\][^\n]*\n(?:(?!\[)[^\n]*(?:\n|\Z))*", re.MULTILINE)
_STATE = re.compile(rb"^([0-9]{1,9}) ([a-z-]{1,40})$", re.MULTILINE)


def power_off(mark: Mark) -> Command[int]:
    """Kill the process of the virtual machine, which is pulling its plug; its pid. Raises NotOurs, IllegalTransition."""

    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 8:
            return IllegalTransition(mark.id, "kill", "stopped", reason="it has no process")
        if result.exit == 9 and b"does not carry our mark" in result.stderr:
            return NotOurs(mark.id, node, mark.vmid, "it does not carry our mark")
        return CommandFailed(node, ("kill", str(mark.vmid), "9"), result.exit or 1, shown(result.stderr))

    return Command(("sh", "-c", POWER, "kill", str(mark), str(mark.vmid)), _pid, timeout=30.0, classify=classify)


def _pid(result: Result) -> int:
    word = result.stdout.split()[-1:]
    if not word or not word[0].isdigit():
        raise ValueError("no pid in the answer")
    return int(word[0])


def plain(config: bytes) -> bytes:
    """A config file of a virtual machine in the form that containers have: what is pending has the same name, and what PVE notes for
    itself (``[special:cloudinit]``) is left out.
    """
    return _SPECIAL.sub(b"", _PENDING.sub(b"[pve:pending]", config)) if b"\n[" in config else config


def alive(known: Mapping[int, Guest], vms: bytes, states: bytes) -> dict[int, Guest]:
    """``known`` (what the configs say) with what runs: the parts ``vms`` and ``vmstates`` of a look."""
    said = {int(vmid): word.decode() for vmid, word in _STATE.findall(states)}
    guests = dict(known)
    for line in vms.splitlines():
        words = line.split(None, 22)
        if len(words) < 2 or not (_is_number(words[0]) and _is_number(words[1])):
            continue
        vmid = int(words[0])
        guest, status = guests.get(vmid), said.get(vmid, "")
        # Started to be backed up, or not yet begun: its processors have never run.
        if guest is None or status == "prelaunch":
            continue
        started = int(words[21]) if len(words) > 21 and _is_number(words[21]) else 0
        guests[vmid] = msgspec.structs.replace(
            guest,
            running=True,
            frozen=status == "paused",
            silent=not status and guest.mark is not None,
            pid=int(words[1]),
            started=started,
        )
    return guests


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 19
