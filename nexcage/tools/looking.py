r"""What the looks at nodes of every kind begin with, and how they find the processes of an operation: parts of their scripts.

Starting a process costs a node more than everything else in a look. So the shell reads by itself what is one line; but it takes a
system call for each byte, so what may be long is read by one program for all of it.
"""

from __future__ import annotations

__all__ = ["BOOT", "MEMORY", "OPS"]

BOOT = r"""m= p=
read -r m < "$R/proc/sys/kernel/random/boot_id"
read -r p < /proc/uptime
printf '@nexcage %s\n%s\n' boot "$m" uptime "$p"
"""
"""Which boot it is, and since when."""

MEMORY = r"""echo '@nexcage memory'
while read -r m p || [ "$m" ]; do
  case $m in MemAvailable:) printf '%s\n' "$p"; break ;; esac
done < "$R/proc/meminfo"
"""
"""What is available."""

OPS = r"""echo '@nexcage ops'
for op in "$@"; do
  m= s=$op
  while :; do
    case $s in *.*) m="$m${s%%.*}[.]" s=${s#*.} ;; *) break ;; esac
  done
  # [D], so that grep does not find its own command line; cmdline shows a shell that has not come to its exec yet.
  # A simulated node on this machine runs its tools as real processes: those are in the real /proc, which is only read.
  # The whole id: order-1 is not order-17.
  grep -qsazE -e "NEXCAGE_OP_I[D]=$m$s([^A-Za-z0-9_.-]|\$)" \
    "$R"/proc/[0-9]*/environ /proc/[0-9]*/environ /proc/[0-9]*/cmdline && printf '%s\n' "$op"
done
"""
"""Those operations among the arguments that have a process."""
