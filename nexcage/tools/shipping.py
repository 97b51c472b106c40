"""Content that a node keeps by the checksum of its bytes: what it has, and the script that takes more from its standard input.

What arrives lies beside its place until all of it is there and its checksum was compared; then it takes the place by a rename. So a
file under such a name is whole, whoever looks and whenever the link was lost; and sending the same twice does no harm. What is in the
cache and nobody asked for in 30 days goes when something new arrives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from nexcage._core.command import Command, Result, nothing, shown
from nexcage.errors import CommandFailed, InvalidPath, NexcageError, NodeNotUsable

__all__ = ["CACHE", "DISCARD", "FULL", "HELD", "RECEIVE", "Held", "cached", "discard", "held", "receive"]

CACHE = "/var/lib/nexcage-oci/cache"
"""Where nodes keep root file systems and documents."""

FULL = 28
_WRONG = 74
_SHA256 = re.compile(r"[0-9a-f]{64}")

RECEIVE = r"""dest=${NEXCAGE_NODE_ROOT-}$1
fail() { echo "nexcage: $2" >&2; exit "$1"; }
for tool in cat sha256sum stat df find mv rm; do command -v "$tool" >/dev/null || fail 71 "there is no $tool"; done
dir=${dest%/*}
umask 022
[ -d "$dir" ] || mkdir -p -m "$5" -- "$dir" || fail 73 'its directory cannot be made'
[ -w "$dir" ] || fail 73 'its directory cannot be written to'
find "$dir" -maxdepth 1 -type f -name '.nexcage-*.part' -mmin +1440 -delete 2>/dev/null
case $dir in
  */nexcage-oci/cache) find "$dir" -maxdepth 1 -type f -name 'sha256-*' -mmin +43200 -delete 2>/dev/null ;;
esac
free=$(df -Pk -- "$dir" | { read -r _; read -r _ _ _ free _; echo "$free"; })
case $free in *[!0-9]*|'') free=999999999999 ;; esac
[ "$free" -ge "$(($3 / 1024))" ] || fail 28 "there are $free KiB free of the $(($3 / 1024)) that it takes"
part=$dir/.nexcage-$4.part
trap 'rm -f -- "$part"' EXIT
trap 'exit 143' TERM INT HUP
umask 077
cat > "$part" || fail 28 'it cannot be written to its end'
sum=$(sha256sum < "$part")
[ "${sum%% *}" = "$2" ] || fail 74 "what arrived ($(stat -c %s -- "$part") bytes) is not what was sent ($3)"
chmod "$6" -- "$part" && sync -- "$part" || fail 73 'it cannot be kept'
mv -f -T -- "$part" "$dest" || fail 73 'it cannot be put in its place'
trap - EXIT
sync -- "$dir"
echo "@nexcage kept"
"""

HELD = r"""for file in "$@"; do
  stat -c '@nexcage %s %n' -- "${NEXCAGE_NODE_ROOT-}$file" 2>/dev/null && touch -c -- "${NEXCAGE_NODE_ROOT-}$file"
done
echo '@nexcage end'
"""

DISCARD = r"""for file in "$@"; do rm -f -- "${NEXCAGE_NODE_ROOT-}$file" || exit 73; done
"""


class Held(msgspec.Struct, frozen=True):
    """Which of the files that were asked for are there, with their sizes."""

    sizes: Mapping[str, int]


def cached(digest: str, ending: str = ".tar") -> str:
    """Where a node keeps the content ``sha256:HEX``; raises InvalidPath."""
    name, _, hexadecimal = digest.partition(":")
    if name != "sha256" or not _SHA256.fullmatch(hexadecimal):
        raise InvalidPath("digest", digest, "sha256: and 64 lower-case hex digits")
    return f"{CACHE}/sha256-{hexadecimal}{ending}"


def held(paths: Sequence[str]) -> Command[Held]:
    """Which of these files are there."""
    argv = ("sh", "-c", HELD, "nexcage", *map(_path, paths))
    return Command(argv, lambda result: _held(tuple(paths), result), safe=True, weight="read", timeout=30.0)


def receive(path: str, sha256: str, size: int, nonce: str, *, public: bool = False) -> Command[None]:
    """Standard input becomes the file ``path`` if it has this checksum. ``public``: everybody on the node may read it (a template
    is read by the mapped root of an unprivileged container).
    """
    if not _SHA256.fullmatch(sha256) or not re.fullmatch(r"[0-9a-f]{1,32}", nonce):
        raise InvalidPath("sha256", sha256, "64 lower-case hex digits")
    modes = ("755", "644") if public else ("700", "600")
    argv = ("sh", "-c", RECEIVE, "nexcage", _path(path), sha256, str(size), nonce, *modes)
    return Command(argv, nothing, safe=True, classify=_refused, weight="change")


def discard(*paths: str) -> Command[None]:
    """Remove these files; those that are not there are no error."""
    argv = ("sh", "-c", DISCARD, "nexcage", *map(_path, paths))
    return Command(argv, nothing, safe=True, timeout=60.0)


def _path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or "\0" in path or "/../" in path or len(path) > 4000:
        raise InvalidPath("path", path, "the absolute path of a file on a node")
    return path


def _held(paths: Sequence[str], result: Result) -> Held:
    text = result.stdout.decode("utf-8", "replace")
    if not text.endswith("@nexcage end\n"):
        raise ValueError("it ends before its last line")
    sizes: dict[str, int] = {}
    for size, name in re.findall(r"^@nexcage ([0-9]{1,19}) (.+)$", text, re.MULTILINE):
        for path in paths:
            if name.endswith(path):
                sizes[path] = int(size)
    return Held(sizes)


def _refused(command: Command[None], result: Result, node: str) -> NexcageError:
    said = shown(result.stderr).strip()
    reason = said.rpartition("nexcage: ")[2] or f"exit status {result.exit}"
    place = command.argv[4]
    if result.exit == FULL:
        return NodeNotUsable(node, f"there is no room for {place}: {reason}")
    if result.exit in (71, 73):
        return NodeNotUsable(node, f"{place} cannot be kept: {reason}")
    error = CommandFailed(node, ("receive", place), result.exit or 0, said)
    error.retryable = result.exit == _WRONG  # the link did it, or whoever changed the file while it was read
    return error
