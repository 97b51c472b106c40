r"""Making a container out of a bundle, and removing all of it.

The mark is made first, so that nothing of ours is ever without one; what a killed create leaves is a mark without its container.
A delete says so beside the mark before it begins, so that the two can be told apart, and takes the mark away at the very end.
"""

from __future__ import annotations

from nexcage._core.command import Command, Result, nothing
from nexcage._core.contents import Content
from nexcage._core.seen import Mark
from nexcage.errors import InvalidPath
from nexcage.tools import shipping
from nexcage.tools.runtime.call import OURS, PLACES, RUN, Runtime
from nexcage.tools.runtime.words import classify

__all__ = ["CREATE", "DELETE", "create", "delete"]

CREATE = (
    PLACES
    + RUN
    + r"""exec </dev/null
umask 066
read -r boot < "$R/proc/sys/kernel/random/boot_id"
numbers=$R/var/lib/nexcage-oci/.numbers vmid=${mark#* vmid=}
vmid=${vmid%% *}
mkdir -p "$numbers" "${kept%/*}" "$root" || exit
if [ -f "$kept/mark" ] && ! grep -qxF -e "$mark" "$kept/mark" && [ ! -e "${root%/*}/crun/$id" ] && [ ! -e "${root%/*}/runc/$id" ]; then
  rm -rf --one-file-system "$kept" # a reboot has taken its container, or somebody who used the program itself
fi
if ! ln -s "$fleet/$id" "$numbers/$vmid" 2>/dev/null; then
  owner=$(readlink "$numbers/$vmid")
  if [ "$owner" != "$fleet/$id" ]; then
    ! grep -qs " vmid=$vmid " "${numbers%/*}/$owner/mark" || { echo 'nexcage: the number is taken' >&2; exit 7; }
    ln -sfn "$fleet/$id" "$numbers/$vmid"
  fi
fi
mkdir -p "$kept" || exit
printf '%s\n%s\n%s\n' "$mark" "$runtime" "$boot" > "$kept/mark.$$"
if ! ln "$kept/mark.$$" "$kept/mark" 2>/dev/null && ! grep -qxF -e "$mark" "$kept/mark"; then
  rm -f "$kept/mark.$$"
  grep -qs " vmid=$vmid " "$kept/mark" || rm -f "$numbers/$vmid"
  echo 'container with given ID already exists' >&2
  exit 1
fi
rm -f "$kept/mark.$$" "$kept/going"
undo() { # a container that could not be made leaves nothing
  [ -e "$root/$id" ] || { rm -f "$numbers/$vmid" && rm -rf --one-file-system "$kept"; }
  exit "$1"
}
# Without a cgroupsPath the program takes the cgroup of that name, whosever it is, and a pause would freeze all that is below it.
used() { # whether a cgroup has processes, or others below it
  [ -d "$1" ] || return 1
  p=
  read -r p < "$1/cgroup.procs"
  set -- "$1"/*/
  [ -n "$p" ] || [ -d "$1" ]
} 2>/dev/null
for c in "$R/sys/fs/cgroup/$id" "$R"/sys/fs/cgroup/*/"$id"; do
  [ "$c" = "$R/sys/fs/cgroup/$id" ] || [ -d "$R/sys/fs/cgroup/memory" ] || continue # one hierarchy, or one of each controller
  if [ ! -e "$root/$id" ] && used "$c"; then
    echo "nexcage: others use the cgroup $id" >&2
    undo 6
  fi
done
shift
if [ "$1" = --content ]; then
  bundle=$kept/bundle
  rm -rf --one-file-system "$bundle"
  mkdir -p "$bundle/rootfs" && cp "$R$3" "$bundle/config.json" &&
    tar --extract --file="$R$2" --directory="$bundle/rootfs" --preserve-permissions --numeric-owner \
      --xattrs --xattrs-include='*' --acls || undo $?
  shift 3
else
  bundle=$2
  shift 2
fi
: > "$log"
# Without the operation's id: the init is the program's own child, and a look would take it for the command.
(unset NEXCAGE_OP_ID; call create --bundle "$bundle" --pid-file "$kept/pid" "$@" >> "$kept/log" 2>&1)
x=$?
[ $x -eq 0 ] || [ -s "$log" ] || tail -n 20 "$kept/log" >&2
said $x || undo $x
cat "$kept/pid"
"""
)

DELETE = (
    PLACES
    + OURS
    + RUN
    + r"""umask 077
: > "$kept/going"
if [ -e "$root/$id" ]; then
  call "$@"
  said $? || { x=$?; rm -f "$kept/going"; exit $x; }
  rm -rf "$root/$id" # what a create that was killed has left, and the program does not know
fi
vmid=${mark#* vmid=}
vmid=${vmid%% *}
numbers=$R/var/lib/nexcage-oci/.numbers
[ "$(readlink "$numbers/$vmid")" != "$fleet/$id" ] || rm -f "$numbers/$vmid"
for f in "$kept"/* "$kept"/.[!.]*; do
  case ${f##*/} in mark|going) ;; *) rm -rf --one-file-system "$f" || exit ;; esac
done
rm -f "$kept/mark"
rm -rf "$kept" || exit
rmdir "$root" "${root%/*}" "${kept%/*}" 2>/dev/null # of the last one; a create that comes now makes them again
exit 0
"""
)


def create(runtime: Runtime, mark: Mark, bundle: str | Content, *options: str, timeout: float = 600.0) -> Command[int]:
    """Make the container that ``mark`` names out of a bundle of the node (its absolute path) or out of content of its cache; the pid
    of its init, which waits to be started. Raises AlreadyExists for the id, or for the number (``VMID``).
    """
    if isinstance(bundle, Content):
        if not bundle.config:
            raise InvalidPath("content.config", "", "a config.json beside the root file system")
        source: tuple[str, ...] = ("--content", shipping.cached(bundle.rootfs), shipping.cached(bundle.config, ".json"))
    else:
        if not bundle.startswith("/") or "\0" in bundle:
            raise InvalidPath("bundle", bundle, "an absolute path")
        source = ("--bundle", bundle)
    words = ("create", *source, *options, mark.id)
    argv = ("sh", "-c", CREATE, "nexcage", str(mark), runtime.program, runtime.name, *words)
    return Command(argv, _pid, timeout=timeout, weight="create", classify=classify, tries={"vmid": mark.vmid})


def delete(runtime: Runtime, mark: Mark, *, force: bool = False) -> Command[None]:
    """Remove the container and all that is kept beside it. ``force``: whatever state it is in, and what a killed command left of it.
    Raises IllegalTransition for a running one, NotOurs when nothing carries ``mark``.
    """
    words = ("delete", *(("--force",) if force else ()), mark.id)
    argv = ("sh", "-c", DELETE, "nexcage", str(mark), runtime.program, runtime.name, *words)
    return Command(argv, nothing, timeout=300.0, classify=classify)


def _pid(result: Result) -> int:
    word = result.stdout.strip()
    if not word.isdigit() or len(word) > 10:
        raise ValueError("no pid in the answer")
    return int(word)
