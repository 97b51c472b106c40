"""A mount point in PVE's words: ``SRC,mp=/DST[,key=value...]``, as ``--mp0`` takes it and the config file keeps it.

PVE splits this text at commas, each part at its first ``=``, and its file at line breaks: none of them fits in a value.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from nexcage.errors import InvalidInput, InvalidSpec, escaped
from nexcage.names import _words
from nexcage.names._checks import text
from nexcage.names._paths import path_fault

_FLAGS = ("acl", "backup", "keepattrs", "quota", "replicate", "ro", "shared")
_OPTIONS = ("idmap", "mountoptions", "size")
_BOOLEANS: dict[str, bool] = {"1": True, "on": True, "yes": True, "true": True}
_BOOLEANS.update({"0": False, "off": False, "no": False, "false": False})
_MOUNT_OPTIONS = frozenset(("discard", "lazytime", "noatime", "nodev", "noexec", "nosuid"))

_NEW = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_VOLUME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*"
_TARGET = r"/[!-~](?:[ -~]*[!-~])?"
_SIZE = r"[0-9]{1,15}(?:\.[0-9]{1,9})?[KMGT]?"
_RANGE = r"[ug]:[0-9]{1,10}:[0-9]{1,10}:[1-9][0-9]{0,9}"
_IDMAP = rf"passthrough|{_RANGE}(?:;{_RANGE}){{0,339}}"  # the kernel takes 340 lines


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is mounted where; ``None`` is PVE's default. However it was made, ``render()`` is one safe ``mpN`` value."""

    source: str
    """A volume ``SID:NAME``, a new one ``SID:GIB``, a device ``/dev/...``, or a directory of the node."""
    target: str
    """The absolute path in the container."""
    acl: bool | None = None
    backup: bool | None = None
    keepattrs: bool | None = None
    quota: bool | None = None
    replicate: bool | None = None
    ro: bool | None = None
    shared: bool | None = None
    idmap: str | None = None
    mountoptions: tuple[str, ...] = ()
    size: str | None = None
    """Informational, as PVE writes it: ``8G``."""

    def __post_init__(self) -> None:
        if fault := _source_fault(self.source) or _target_fault(self.target) or _option_fault(self):
            raise InvalidSpec("mount", (self.source, self.target), fault)

    @property
    def kind(self) -> Literal["volume", "new", "device", "bind"]:
        """What ``source`` is."""
        if self.source.startswith("/"):
            return "device" if self.source.startswith("/dev/") else "bind"
        return "new" if re.fullmatch(_NEW, self.source.partition(":")[2]) else "volume"

    @property
    def storage(self) -> str | None:
        """The storage of a volume, old or new."""
        return None if self.source.startswith("/") else self.source.partition(":")[0]

    def render(self) -> str:
        """PVE's text; ``mount()`` of it gives an equal value."""
        parts = [self.source, f"mp={self.target}"]
        parts += [f"{flag}={int(value)}" for flag in _FLAGS if (value := getattr(self, flag)) is not None]
        parts += [f"idmap={self.idmap}"] if self.idmap else []
        parts += [f"mountoptions={';'.join(self.mountoptions)}"] if self.mountoptions else []
        parts += [f"size={self.size}"] if self.size else []
        return ",".join(parts)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<Mount {escaped(self.render())}: {self.kind}>"


def mount(value: object) -> Mount:
    """The mount point that ``value`` (PVE's ``SRC,mp=/DST[,...]``, or a ``Mount``) describes.

    The source may hold any script's letters when it is a path; everything else is ASCII. Unknown, repeated and empty
    options are refused.
    """
    if type(value) is Mount:
        return value
    given = text("mount", value, InvalidSpec)
    source, *rest = given.split(",")
    options: dict[str, Any] = {}  # the keywords of Mount, each checked there
    for part in rest:
        key, equals, word = part.partition("=")
        if not equals or key in options or key not in ("mp", *_FLAGS, *_OPTIONS):
            allowed = "= ".join((*_FLAGS, *_OPTIONS))
            raise InvalidSpec("mount", given, f"SRC,mp=/DST and each of these at most once: {allowed}=")
        options[key] = _read(given, key, word)
    try:
        return Mount(source, options.pop("mp", ""), **options)
    except InvalidInput as error:
        raise InvalidSpec("mount", given, error.reason) from None


def _read(given: str, key: str, word: str) -> bool | str | tuple[str, ...]:
    if key == "mountoptions":
        return tuple(word.split(";"))
    if key not in _FLAGS:
        return word or " "  # never the default: an empty option is an error, not an absent one
    flag = _BOOLEANS.get(word.lower()) if word.isascii() else None
    if flag is None:
        raise InvalidSpec("mount", given, f"{key} is 0 or 1")
    return flag


def _source_fault(source: object) -> str:
    if type(source) is not str:
        return "the source must be text"
    if source.startswith("/"):
        # A blank at the end would be lost, a comma or an = would begin something else.
        if "," in source or "=" in source or source[-1].isspace() or not source.strip("/"):
            return "a source path must not be /, hold a comma or =, or end with a blank"
        fault = path_fault(source)
        return f"the source path {fault}" if fault else ""
    storage, colon, name = source.partition(":")
    try:
        _words.storage(storage)
    except InvalidInput:
        colon = ""
    if colon and (re.fullmatch(_NEW, name) or (len(source) <= 255 and re.fullmatch(_VOLUME, name))):
        return ""
    return "the source is STORAGE:VOLUME, STORAGE:GIB for a new volume, /dev/... or another absolute path"


def _target_fault(target: object) -> str:
    if type(target) is not str or len(target) > 4095 or not re.fullmatch(_TARGET, target):
        return "mp= is an absolute path of printable ASCII, not / itself, without a blank at its end"
    if "," in target or not target.strip("/") or not {".", ".."}.isdisjoint(target.split("/")):
        return "mp= must not be / or hold a comma, a . or a .. component"
    return ""


def _option_fault(mount: Mount) -> str:
    for flag in _FLAGS:
        if type(getattr(mount, flag)) not in (bool, type(None)):
            return f"{flag} is true or false"
    size, idmap, words = mount.size, mount.idmap, mount.mountoptions
    if size is not None and (type(size) is not str or not re.fullmatch(_SIZE, size)):
        return "size is a number with K, M, G, T or nothing behind it"
    if idmap is not None and (type(idmap) is not str or not _idmap(idmap)):
        return "idmap is passthrough or u|g:CONTAINER:DISK:COUNT;... with ids below 4294967296"
    if type(words) is not tuple or any(type(word) is not str for word in words):
        return "mountoptions is a tuple of text"
    if len(set(words)) != len(words) or not _MOUNT_OPTIONS.issuperset(words):
        return f"mountoptions are {';'.join(sorted(_MOUNT_OPTIONS))}, each at most once"
    return ""


def _idmap(value: str) -> bool:
    if len(value) > 16_384 or not re.fullmatch(_IDMAP, value):
        return False
    return all(int(number) < 2**32 for number in re.findall("[0-9]+", value))
