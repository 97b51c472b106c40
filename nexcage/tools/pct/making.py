"""Making containers: from a template, and from a backup. Keys and passwords go through standard input, never argv."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from nexcage import names
from nexcage._core.command import Command
from nexcage._core.seen import Mark
from nexcage._core.spec import Net, Spec
from nexcage.errors import InvalidInput, InvalidPath, InvalidSpec
from nexcage.tools import values
from nexcage.tools.config import Section
from nexcage.tools.pct.call import change, flags, number
from nexcage.tools.pct.settings import NOTHING, Settings
from nexcage.tools.pct.snapshots import limit, pool_name

__all__ = ["besides", "create", "hostname_for", "net", "restore", "rootfs"]

_PASSWORD = re.compile(r"[^\x00-\x1f\x7f]{5,512}")
_OURS = frozenset("hostname memory swap cores unprivileged onboot tags description".split())


def create(
    mark: Mark,
    template: str,
    spec: Spec,
    hostname: str,
    settings: Settings = NOTHING,
    *,
    password: str = "",
    key_file: str = "",
    pool: str = "",
    ignore_unpack_errors: bool = False,
    bwlimit: int | None = None,
    held: bool = False,
) -> Command[None]:
    """``pct create`` without starting it (a failing start would still exit 0). Keys go through standard input, never argv.

    ``--unprivileged`` is always given: its default differs between PVE 8 and 9. ``settings`` adds what the Spec does not say.
    A password goes through standard input too; beside keys these must be in a file of the node (``key_file``). ``held``: with its lock
    left on and no mark yet, for what is still to be done to it (`nexcage.tools.bundling.finish`).
    """
    first = f"making {mark}" if held else str(mark)
    description = f"{first}\n{spec.description}" if spec.description else first
    argv = [
        "create",
        str(mark.vmid),
        template,
        "--hostname",
        hostname,
        "--memory",
        str(spec.memory),
        "--swap",
        str(spec.swap),
    ]
    if spec.cores is not None:
        argv += ["--cores", str(spec.cores)]
    argv += rootfs(spec) if settings.rootfs is None else []
    for index, one in enumerate(spec.nets if not settings.nets else ()):
        argv += [f"--net{index}", net(one)]
    argv += ["--unprivileged", "1" if spec.unprivileged else "0"]
    if spec.onboot:
        argv += ["--onboot", "1"]
    argv += ["--tags", ";".join(sorted({"nexcage", *map(names.tag, spec.tags)})), "--description", description]
    argv += _together(besides(spec), settings)
    pool = pool or spec.pool or ""
    argv += ["--pool", pool_name(pool)] if pool else []
    argv += flags(ignore_unpack_errors=ignore_unpack_errors)
    argv += ["--bwlimit", limit(bwlimit)] if bwlimit is not None else []
    argv += ["--lock", "create"] if held else []
    words, stdin = _secrets(spec.ssh_public_keys, key_file, password)
    return change(*argv, *words, timeout=900.0, stdin=stdin, weight="create", tries={"vmid": mark.vmid})


def besides(spec: Spec) -> Settings:
    """What a Spec may say besides what every container has."""
    given = {"features": spec.features, "startup": spec.startup, "timezone": spec.timezone}
    given |= {"hookscript": spec.hookscript, "arch": spec.arch, "ostype": spec.ostype}
    given |= {"nameserver": " ".join(spec.nameserver), "searchdomain": " ".join(spec.searchdomain)}
    texts = {key: text for key, text in {**given, **spec.mounts, **spec.devices}.items() if text}
    if not texts and spec.cpulimit is None and spec.cpuunits is None and not spec.protection:
        return NOTHING
    read = Settings.read(Section(texts))
    protection = True if spec.protection else None
    return msgspec.structs.replace(read, cpulimit=spec.cpulimit, cpuunits=spec.cpuunits, protection=protection)


def _together(said: Settings, settings: Settings) -> tuple[str, ...]:
    """The words of both; raises InvalidSpec for what a Spec says, which would be given twice."""
    twice = sorted(_OURS.union(said.options()).intersection(settings.options())) if settings is not NOTHING else []
    if twice:
        raise InvalidSpec(twice[0], settings.options()[twice[0]], "in the Spec, not in the settings beside it")
    return (*said.words(), *settings.words())


def _secrets(keys: tuple[str, ...], key_file: str, password: str) -> tuple[tuple[str, ...], bytes]:
    """Options and standard input. ``--password`` without a value reads two lines; ``/dev/stdin`` reads to the end."""
    if key_file and (keys or not key_file.startswith("/") or re.search(r"[\x00-\x1f\x7f]", key_file)):
        raise InvalidPath("key_file", key_file, "an absolute path, instead of the keys themselves")
    words = ("--ssh-public-keys", key_file) if key_file else ()
    if password:
        if type(password) is not str or not _PASSWORD.fullmatch(password):
            raise InvalidInput("password", "(not shown)", "5 to 512 characters and no control characters")
        if keys:
            raise InvalidInput("password", "(not shown)", "not together with keys, unless these are in a key_file")
        return (*words, "--password"), f"{password}\n{password}\n".encode()
    if keys:
        return ("--ssh-public-keys", "/dev/stdin"), "".join(f"{key}\n" for key in keys).encode()
    return words, b""


def restore(
    vmid: int,
    archive: str,
    settings: Settings = NOTHING,
    *,
    storage: str = "",
    force: bool = False,
    unique: bool = False,
    ignore_unpack_errors: bool = False,
    pool: str = "",
    bwlimit: int | None = None,
) -> Command[None]:
    """Make a container from a backup. What ``settings`` say replaces what the backup says, the rest is as it was saved:
    the description too, and with it a mark that names the VMID of then. ``force`` replaces a stopped container that exists.
    """
    words = ["restore", number(vmid), _archive(archive), *settings.words()]
    words += ["--storage", names.storage(storage)] if storage else []
    words += flags(force=force, unique=unique, ignore_unpack_errors=ignore_unpack_errors)
    words += ["--pool", pool_name(pool)] if pool else []
    words += ["--bwlimit", limit(bwlimit)] if bwlimit is not None else []
    return change(*words, timeout=12 * 3600.0, weight="create", tries={"vmid": vmid})


def _archive(text: str) -> str:
    volume = r"[A-Za-z][A-Za-z0-9._-]*:[^\s\x00-\x1f]{1,255}|/[^\x00-\x1f]{1,254}"
    if type(text) is not str or not re.fullmatch(volume, text) or len(text) > 255:
        raise InvalidSpec("archive", text, "a volume STORAGE:backup/NAME or an absolute path, at most 255 characters")
    return text


def rootfs(spec: Spec) -> list[str]:
    """The options that place the root file system. ``STORAGE:GiB`` allocates a new volume."""
    if spec.size is not None or spec.mounts:  # beside mount points pct wants the root disk said too: PVE's own default
        return ["--rootfs", f"{spec.storage or 'local'}:{spec.size or 4}"]
    return ["--storage", spec.storage] if spec.storage else []


@lru_cache(maxsize=256)  # a thousand containers mostly have the same few interfaces
def net(value: Net | values.Net) -> str:
    """PVE's ``netN`` text: ``name=eth0,bridge=vmbr0,ip=dhcp``; every part was checked when the Net was made."""
    return str(values.Net.of(value) if isinstance(value, Net) else value)


def hostname_for(id: str, spec: Spec) -> str:
    """The host name: the one asked for, else the id where that is a valid one; raises InvalidSpec that says so."""
    if spec.hostname is not None:
        return spec.hostname
    try:
        return names.hostname(id)
    except InvalidInput:
        raise InvalidSpec(
            "hostname", id, "this id is not a valid host name, so give one with --hostname (Spec.hostname)"
        ) from None
