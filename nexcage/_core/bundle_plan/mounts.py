"""``mounts`` of config.json on LXC: ``lxc.mount.entry`` lines in the document's order.

PVE's ``mpN`` would be mounted before all of these, whatever the order, and takes no file as a target; so all of them are entries.
What LXC mounts by itself (/proc, /sys, /dev, /dev/pts, /sys/fs/cgroup) is recognised and not mounted twice.
"""

from __future__ import annotations

from posixpath import normpath

from msgspec import UNSET

from nexcage._core.bundle import Mount
from nexcage._core.bundle.shapes import leads_out, names_type
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.words import entry_word
from nexcage.errors import escaped

__all__ = ["LINKED", "inside", "map_mounts"]

_LONGEST = 4000  # LXC reads entries with getmntent_r and a buffer of 4096 bytes
_PROPAGATION = frozenset("private rprivate shared rshared slave rslave unbindable runbindable".split())
_FLAGS = frozenset(
    """async atime defaults dev diratime dirsync exec lazytime mand noatime nodev nodiratime noexec nomand norelatime
    nostrictatime nosuid relatime ro rw strictatime suid sync""".split()
)
_WORDLESS = frozenset(("iversion", "nosymfollow", "silent"))  # flags that LXC has no word for
_WORDLESS_DEFAULTS = frozenset(("loud", "noiversion", "nolazytime", "symfollow"))  # what they ask for is so anyhow
_SAID = frozenset(("bind", "rbind", "")) | _FLAGS | _PROPAGATION | _WORDLESS_DEFAULTS
_RECURSIVE = frozenset(
    """rro rrw ratime rnoatime rdev rnodev rdiratime rnodiratime rexec rnoexec rrelatime rnorelatime rstrictatime
    rnostrictatime rsuid rnosuid rsymfollow rnosymfollow""".split()
)
_LXCS_OWN = frozenset(("create", "optional", "relative", "idmap", "ridmap", "upperdir", "workdir", "lowerdir"))
_OWN = {
    ("/proc", "proc"): ("lxc.mount.auto = proc:mixed", "LXC mounts it, /proc/sys and /proc/sysrq-trigger read-only"),
    ("/sys", "sysfs"): ("lxc.mount.auto = sys:mixed", "LXC mounts it, read-only but for /sys/devices/virtual/net"),
    ("/dev", "tmpfs"): ("lxc.autodev", "LXC mounts it with its own options and the default devices"),
    ("/dev", "devtmpfs"): ("lxc.autodev", "LXC mounts a tmpfs with the default devices"),
    ("/dev/pts", "devpts"): ("lxc.pty.max", "LXC mounts a new instance with its own options"),
    ("/sys/fs/cgroup", "cgroup"): ("lxc.mount.auto = cgroup:mixed", "LXC mounts the container's own cgroup"),
    ("/sys/fs/cgroup", "cgroup2"): ("lxc.mount.auto = cgroup:mixed", "LXC mounts the container's own cgroup"),
}


LINKED = "it goes through a symbolic link of the root file system, and LXC follows none: name the path that it leads to"


def map_mounts(draft: Draft, mounts: tuple[Mount, ...]) -> None:
    for index, mount in enumerate(mounts):
        _mount(draft, f"/mounts/{index}", mount)


def inside(path: str) -> str | None:
    """``path`` as LXC wants the target: relative to the root file system, without empty and dot segments; None for one that climbs."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


def _mount(draft: Draft, pointer: str, mount: Mount) -> None:
    target, kind = inside(mount.destination), mount.type or "none"
    own = _OWN.get((f"/{target}", kind))
    bind = _binds(mount)
    problem = _problem(target, kind, mount, bind=bind)
    if not problem and draft.bundle.root is not None and pointer in draft.bundle.root.links:
        problem = LINKED
    if problem:
        draft.refuse(pointer, problem)
    elif own and not bind:
        draft.near(pointer, *own)
    else:
        _entry(draft, pointer, mount, target or "", bind=bind)


def _binds(mount: Mount) -> bool:
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def _problem(target: str | None, kind: str, mount: Mount, *, bind: bool) -> str:
    if target is None:
        return "the destination climbs out of the root file system"
    if not target:
        return "the root file system itself cannot be mounted over"
    if "remount" in mount.options:
        return "LXC has no step in which a mount could be changed again"
    if kind == "none" and not bind:
        return "it is no bind mount, and without a type no kernel mounts anything"
    if not bind and not names_type(kind):
        return "the type cannot be the name of a file system"
    if kind in ("cgroup", "cgroup2") and f"/{target}" != "/sys/fs/cgroup" and not bind:
        return "LXC mounts the cgroup at /sys/fs/cgroup only"
    return ""


def _entry(draft: Draft, pointer: str, mount: Mount, target: str, *, bind: bool) -> None:
    source = _source(draft, mount, bind=bind)
    words, refused = _options(mount, bind=bind)
    kind = "none" if bind else mount.type or "none"
    create = "file" if bind and (source, "file") in draft.bundle.kinds else "dir"
    fields = (entry_word(source), entry_word(target), entry_word(kind))
    if None in fields:
        draft.refuse(pointer, "a path has control characters, or begins with #: it cannot be written to a mount entry")
        return
    line = " ".join((*map(str, fields), ",".join((*words, f"create={create}")), "0 0"))
    if len(line.encode()) > _LONGEST:
        draft.refuse(pointer, f"the entry would be longer than {_LONGEST} bytes")
        return
    if source.startswith("/"):
        draft.need(pointer, "path", source)
    text = draft.line("lxc.mount.entry", line)
    outside = _outside(source) if bind and leads_out(mount.source or "") else ""
    _told(draft, pointer, mount, text, refused, outside)


def _outside(source: str) -> str:
    return f"the source is {escaped(normpath(source))} of the node, outside of the bundle"


def _told(draft: Draft, pointer: str, mount: Mount, text: str, refused: dict[int, str], how: str) -> None:
    """One entry for the mount; one for each property when some of them cannot be had. ``how``: what is to be said of the source."""
    maps = {"uidMappings": mount.uid_mappings, "gidMappings": mount.gid_mappings}
    if not refused and not any(maps.values()):
        draft.near(pointer, text, how) if how else draft.apply(pointer, text)
        return
    given = {"destination": True, "type": mount.type is not UNSET, "source": mount.source is not UNSET}
    for name in (name for name, there in given.items() if there):
        place = f"{pointer}/{name}"
        draft.near(place, text, how) if how and name == "source" else draft.apply(place, text)
    for index in range(len(mount.options)):
        place = f"{pointer}/options/{index}"
        draft.refuse(place, refused[index]) if index in refused else draft.apply(place, text)
    for name in (name for name, mapping in maps.items() if mapping):
        draft.refuse(f"{pointer}/{name}", "LXC maps the ids of a mount only as those of the container")


def _source(draft: Draft, mount: Mount, *, bind: bool) -> str:
    source = mount.source or mount.type or "none"
    if bind and not source.startswith("/"):
        return f"{draft.bundle.path.rstrip('/')}/{source}"
    return source


def _options(mount: Mount, *, bind: bool) -> tuple[list[str], dict[int, str]]:
    """The words for the entry, and why the options with these indices are none of them."""
    words: list[str] = ["rbind" if "rbind" in mount.options else "bind"] if bind else []
    refused: dict[int, str] = {}
    for index, option in enumerate(mount.options):
        why = _no_option(option, bind=bind)
        if why:
            refused[index] = why
        elif option not in ("bind", "rbind", "", *_WORDLESS_DEFAULTS, *words):
            words.append(option)
    return words, refused


def _no_option(option: str, *, bind: bool) -> str:
    name = option.partition("=")[0]
    if option in _RECURSIVE:
        return "LXC does not set mount attributes recursively"
    if option in _WORDLESS:
        return "LXC has no word for this flag, and would hand it to the file system"
    if option == "tmpcopyup":
        return "LXC cannot copy the directory below into a tmpfs"
    if option in _SAID:
        return ""
    if name in _LXCS_OWN and not (name.endswith("dir") and "=" in option):
        return f"{name} is a word of LXC's own in a mount entry"
    if bind:
        return "LXC does not know it, and a bind mount has no options of a file system"
    if "," in option or entry_word(option) != option:
        return "it cannot be written in a mount entry"
    return ""
