"""What the lxc backend runs about datasets: one look at pools, datasets and storages; commands that check the mark; who holds one.

Every path is below ``${NEXCAGE_NODE_ROOT-}``, which real nodes never set.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from nexcage._core.command import Command, Result, nothing, shown
from nexcage._core.datasets import MARK, Choice, Found, Place, Survey, asked
from nexcage._core.seen import Mark
from nexcage.errors import AlreadyExists, Blocked, NexcageError, NotOurs
from nexcage.tools import pct, zfs
from nexcage.tools.zfs_words import classify, unusable

__all__ = [
    "GONE",
    "GUARD",
    "HOLDERS",
    "MAKE",
    "SURVEY",
    "add_place",
    "destroyed",
    "guarded",
    "holders",
    "make",
    "marked",
    "survey",
]

T = TypeVar("T")

SURVEY = r"""R=${NEXCAGE_NODE_ROOT-}
echo '@nexcage pools'; zpool list -H -o name,health 2>&1
echo '@nexcage found'; zfs get -Hp -o name,property,value,source available,mountpoint,mounted,org.nexcage:mark "$@" 2>&1
echo '@nexcage places'; cat "$R/etc/pve/storage.cfg" 2>/dev/null
echo '@nexcage end'
"""

# A child inherits user properties, so only the dataset's own value is its mark.
GUARD = r"""said=$(zfs get -H -s local -o value org.nexcage:mark "$1") || exit
[ "$said" = "$2" ] || { echo 'nexcage: the dataset does not carry our mark' >&2; exit 9; }
shift 2
exec "$@"
"""

# The same, and looked at afterwards: what is still there was not destroyed, whatever the tool said.
GONE = r"""said=$(zfs get -H -s local -o value org.nexcage:mark "$1") || exit
[ "$said" = "$2" ] || { echo 'nexcage: the dataset does not carry our mark' >&2; exit 9; }
name=$1
shift 2
"$@" || exit
said=$(zfs list -H -o name "$name" 2>/dev/null) || exit 0
echo "nexcage: $said is still there" >&2
exit 8
"""

# A bind mount is not shifted: what root of an unprivileged container is to own belongs to its id on the host.
MAKE = r"""R=${NEXCAGE_NODE_ROOT-} path=$1 owner=$2
shift 2
"$@" || exit
[ -n "$R" ] || chown "$owner:$owner" "$path"
"""

# From /proc only: fuser need not be there. A mount that another mount namespace still has is only a hint, and comes last.
HOLDERS = r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
name() { echo "$1 $(tr '\t ' '__' < "/proc/$1/comm") $2"; }
find /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/fd -maxdepth 1 \( -lname "$R$1" -o -lname "$R$1/*" \) |
  sed -n 's#^/proc/\([0-9]*\)/.*#\1#p' | sort -nu | head -n 8 | while read -r p; do name "$p" file; done
own=$(readlink /proc/self/ns/mnt)
grep -lsF -e " $R$1 " /proc/[0-9]*/mounts | sed 's#/proc/##; s#/mounts##' | while read -r p; do
  n=$(readlink "/proc/$p/ns/mnt") && [ "$n" != "$own" ] && name "$p" mount
done | head -n 8
echo '@nexcage end'
"""


def survey(base: str, dataset: str) -> Command[Survey]:
    """Pools, the levels of the base, the container's dataset, and PVE's storages, in one command that changes nothing."""
    argv = ("sh", "-c", SURVEY, "nexcage", *asked(base, dataset))
    return Command(argv, _survey, safe=True, weight="read", timeout=60.0)


def marked(base: str) -> Command[tuple[tuple[str, Mark], ...]]:
    """The datasets below the base that carry a mark of nexcage, with it. Raises NotFound without a base."""

    def parse(result: Result) -> tuple[tuple[str, Mark], ...]:
        rows = [line.split("\t") for line in result.stdout.decode("utf-8", "backslashreplace").splitlines()]
        return tuple((row[0], mark) for row in rows if len(row) == 2 and (mark := Mark.find(row[1])) is not None)

    argv = ("zfs", "get", "-H", "-s", "local", "-r", "-d", "1", "-o", "name,value", MARK, base)
    return Command(argv, parse, safe=True, weight="read", timeout=60.0, cap=16 << 20, classify=classify)


def make(choice: Choice, mark: Mark, owner: int | None) -> Command[None]:
    """Make the container's dataset with its mark; ``owner``: the host's id that is to own a data disk."""
    command = zfs.create(choice.dataset, {MARK: str(mark), **choice.properties})
    tries = {"vmid": mark.vmid, "dataset": choice.dataset}
    argv = command.argv
    if owner is not None:
        argv = ("sh", "-c", MAKE, "nexcage", choice.mountpoint, str(owner), *argv)
    return msgspec.structs.replace(command, argv=argv, tries=tries)


def add_place(place: Place) -> Command[None]:
    """Add a directory storage that counts as offline while nothing is mounted at its path. Raises AlreadyExists."""

    def refused(command: Command[Any], result: Result, node: str) -> NexcageError:
        if re.search(rb"storage ID '[^']*' already defined", result.stderr):
            return AlreadyExists("storage", place.id)
        return pct.classify(command, result, node)

    options = ("--path", place.path, "--content", "rootdir,images", "--is_mountpoint", "1")
    return Command(("pvesm", "add", "dir", place.id, *options), nothing, timeout=60.0, cancel="term", classify=refused)


def destroyed(dataset: str, mark: Mark) -> Command[None]:
    """Destroy it with its snapshots and children, and look. Raises what `guarded` raises, and Blocked when it is still there."""
    command = guarded(dataset, mark, zfs.destroy(dataset, recursive=True))
    return msgspec.structs.replace(command, argv=(*command.argv[:2], GONE, *command.argv[3:]))


def guarded(dataset: str, mark: Mark, command: Command[T], note: str = "") -> Command[T]:
    """``command``, run only while the dataset itself carries ``mark``. Raises NotOurs, and NotFound when it is gone."""

    def refused(_: Command[Any], result: Result, node: str) -> NexcageError:
        if result.exit == 9 and b"does not carry our mark" in result.stderr:
            return NotOurs(mark.id, node, mark.vmid, f"dataset {dataset} does not carry our mark")
        if result.exit == 8 and b"is still there" in result.stderr:
            return Blocked(f"dataset {dataset} on {node}", "something that does not say so: it is still there")
        return command.classify(command, result, node)

    argv = ("sh", "-c", GUARD, "nexcage", dataset, str(mark), *command.argv)
    tries = {"dataset": dataset, **({"note": note} if note else {})}
    return msgspec.structs.replace(command, argv=argv, classify=refused, tries=tries)


def holders(mountpoint: str) -> Command[tuple[str, ...]]:
    """Who uses what is mounted there: ``PID NAME file`` has a file or directory open, ``PID NAME mount`` only has the mount."""

    def parse(result: Result) -> tuple[str, ...]:
        lines = shown(result.stdout, len(result.stdout)).splitlines()
        if not lines or lines.pop() != "@nexcage end":
            raise ValueError("the list of holders is not whole")
        return tuple(lines)

    return Command(("sh", "-c", HOLDERS, "nexcage", mountpoint), parse, safe=True, weight="read", timeout=60.0)


# ---- reading a survey ----------------------------------------------------------------------------------------------------------


def _survey(result: Result) -> Survey:
    text = result.stdout.decode("utf-8", "backslashreplace")
    sections: dict[str, str] = {}
    for block in ("\n" + text).split("\n@nexcage ")[1:]:
        name, _, body = block.partition("\n")
        sections.setdefault(name, body)
    if result.dropped or not {"pools", "found", "places", "end"} <= sections.keys():
        raise ValueError("the look at ZFS is not whole")
    pools = [line.split("\t") for line in sections["pools"].splitlines()]
    return Survey(
        {row[0]: row[1] for row in pools if len(row) == 2},
        _found(sections["found"]),
        tuple(_places(sections["places"])),
        unusable(sections["pools"]),
    )


def _found(text: str) -> dict[str, Found]:
    said: dict[str, dict[str, tuple[str, str]]] = {}
    for row in (line.split("\t") for line in text.splitlines()):
        if len(row) == 4:
            said.setdefault(row[0], {})[row[1]] = (row[2], row[3])
    found: dict[str, Found] = {}
    for name, properties in said.items():
        (room, _), (path, source), (mounted, _), (mark, whose) = (
            properties.get(key, ("-", "-")) for key in ("available", "mountpoint", "mounted", MARK)
        )
        found[name] = Found(
            name,
            int(room) if room.isascii() and room.isdigit() else 0,
            mark if whose == "local" else "",
            path if path.startswith("/") else "",
            mounted == "yes",
            source == "local",
        )
    return found


def _places(text: str) -> list[Place]:
    places: list[Place] = []
    for part in re.split(r"\n(?=\S)", text.strip()):
        head, *lines = part.split("\n")
        kind, colon, name = head.partition(":")
        if colon:
            given = {key: value.strip() for key, _, value in (line.strip().partition(" ") for line in lines)}
            places.append(Place(name.strip(), kind.strip(), given.get("path", ""), given.get("pool", "")))
    return places
