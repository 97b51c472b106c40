"""Scripts that run inside containers, under whatever shell they have. Only their texts: the pretend tools read them too, and start fast."""

from __future__ import annotations

__all__ = ["DIGEST", "IN_DIRECTORY", "LOGS", "PULL", "PUSH"]

IN_DIRECTORY = 'cd -- "$1" || exit 126; shift; exec "$@"'
"""LXC has no word for the directory a program starts in, so a shell inside goes there first."""

PUSH = r"""t=$1.nexcage-$5
fail() { echo "nexcage: $2" >&2; exit "$1"; }
for tool in cat sha256sum chmod mv rm; do command -v "$tool" >/dev/null || fail 71 "there is no $tool in it"; done
[ ! -d "$1" ] || fail 72 'it is a directory'
trap 'rm -f -- "$t"' EXIT
trap 'exit 143' TERM INT HUP
umask 077
: > "$t" || fail 73 'its directory cannot be written to'
cat > "$t" || fail 73 'it cannot be written'
sum=$(sha256sum < "$t")
[ "${sum%% *}" = "$4" ] || fail 74 "what arrived is not what was sent"
[ -z "$3" ] || chown -- "$3" "$t" || fail 75 "its owner cannot be set"
chmod -- "$2" "$t" || fail 75 'its mode cannot be set'
mv -f -- "$t" "$1" || fail 73 'it cannot be put in its place'
trap - EXIT
"""

PULL = r"""fail() { echo "nexcage: $2" >&2; exit "$1"; }
for tool in cat sha256sum stat; do command -v "$tool" >/dev/null || fail 71 "there is no $tool in it"; done
[ -e "$1" ] || fail 76 'it does not exist'
[ ! -d "$1" ] || fail 72 'it is a directory'
[ -f "$1" ] || fail 72 'it is not a regular file'
exec < "$1" || fail 73 'it cannot be read'
cat || exit
sum=$(sha256sum < "$1")
about=$(stat -L -c '%a %u %g' -- "$1")
echo "@nexcage file ${sum%% *} $about" >&2
"""

DIGEST = r"""rm -f -- "$1.nexcage-$2"
[ ! -f "$1" ] || sha256sum < "$1"
"""

LOGS = r"""if command -v journalctl >/dev/null; then exec journalctl --no-pager -q -n "$1" ${2:+-f}; fi
for file in /var/log/syslog /var/log/messages; do
  [ ! -f "$file" ] || exec tail -n "$1" ${2:+-F} "$file"
done
echo 'nexcage: it has neither a journal nor a log: set lxc.console.logfile in its config' >&2
exit 5
"""
