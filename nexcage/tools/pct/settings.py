"""Every option that is a key of the config: as typed values, as words of ``pct create`` and ``pct set``, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from nexcage import names
from nexcage._core.command import Command
from nexcage._core.settings import ARCHES, OSTYPES
from nexcage.errors import InvalidSpec
from nexcage.tools import config, values
from nexcage.tools.pct.call import change, number
from nexcage.tools.pct.snapshots import note
from nexcage.tools.pct.volumes import checked_digest
from nexcage.tools.values._kinds import Kind, checked, choice, flag, integer, matching
from nexcage.tools.values._kinds import number as decimal

__all__ = ["NOTHING", "Settings", "set_"]

V = TypeVar("V", bound=values.Value)

_NUMBERED = re.compile(r"(net|mp|dev)(0|[1-9][0-9]{0,2})", re.ASCII)
_MOST = {"net": 32, "mp": 256, "dev": 256}
_KEY = re.compile(r"[a-z][a-z_]*[0-9]{0,3}", re.ASCII)
_REQUIRED = ("rootfs", "memory", "ostype", "unprivileged")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TEXT = "text without control characters"


def _listed() -> Kind:
    def read(_: str, text: str) -> tuple[str, ...]:
        return values.split(text)

    def write(field: str, value: object) -> str:
        words: tuple[str, ...] = cast("tuple[str, ...]", value) if isinstance(value, tuple) else ()
        if field == "tags":
            return values.tags(words)
        return values.nameservers(words) if field == "nameserver" else values.joined(field, map(names.hostname, words))

    return Kind(read, write)


def _hostname(_: str, value: object) -> str:
    return names.hostname(value)


def _note(field: str, value: object) -> str:
    return note(checked(field, value, "") if value == "" else str(value))


def _entrypoint(field: str, value: object) -> str:
    if type(value) is not str or not value or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise InvalidSpec(field, value, "text without control characters but the tab")
    return value


def _read_env(_: str, text: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in text.split("\0") if part]
    return {name: value for name, _, value in pairs}


def _write_env(field: str, value: object) -> str:
    if not isinstance(value, Mapping):
        raise InvalidSpec(field, value, "a mapping of names to texts")
    parts: list[str] = []
    for name, text in cast("Mapping[object, object]", value).items():
        if type(name) is not str or type(text) is not str or not _VARIABLE.fullmatch(name):
            raise InvalidSpec(field, name, "names of A-Z a-z 0-9 _ with text values")
        parts.append(f"{name}={_entrypoint(field, text) if text else ''}")
    return "\0".join(parts)


def _struct(kind: type[values.Features | values.Startup]) -> Kind:
    def read(_: str, text: str) -> values.Features | values.Startup:
        return kind.parse(text)

    def write(field: str, value: object) -> str:
        if type(value) is not kind:
            raise InvalidSpec(field, value, f"a {kind.__name__}")
        return str(value)

    return Kind(read, write)


_SCALARS: Mapping[str, Kind] = {
    "arch": choice(*ARCHES),
    "cmode": choice("tty", "console", "shell"),
    "console": flag,
    "cores": integer(1, 8192),
    "cpulimit": decimal(0, 8192),
    "cpuunits": integer(0, 500000),
    "debug": flag,
    "description": Kind(_note, _note),
    "entrypoint": Kind(_entrypoint, _entrypoint),
    "env": Kind(_read_env, _write_env),
    "features": _struct(values.Features),
    "hookscript": matching(r"[A-Za-z][A-Za-z0-9._-]*:snippets/[^/,\s]+", "a script STORAGE:snippets/NAME"),
    "hostname": Kind(_hostname, _hostname),
    "memory": integer(16, 1 << 30),
    "nameserver": _listed(),
    "onboot": flag,
    "ostype": choice(*OSTYPES),
    "protection": flag,
    "searchdomain": _listed(),
    "startup": _struct(values.Startup),
    "swap": integer(0, 1 << 30),
    "tags": _listed(),
    "timezone": matching(r"host|UTC|[A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}", "host or a zone such as Europe/Berlin"),
    "tty": integer(0, 6),
    "unprivileged": flag,
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a container's config says; None and empty are PVE's default. Checked when made: raises InvalidInput.

    ``rootfs`` and ``unprivileged`` are for creating only. ``more`` holds keys that are not known here, as they were read.
    ``env`` of several variables can be read but not given: it would need NUL in an argument (pve-commands 2.2).
    """

    arch: str | None = None
    cmode: str | None = None
    console: bool | None = None
    cores: int | None = None
    cpulimit: float | None = None
    cpuunits: int | None = None
    debug: bool | None = None
    description: str | None = None
    entrypoint: str | None = None
    env: Mapping[str, str] = {}
    features: values.Features | None = None
    hookscript: str | None = None
    hostname: str | None = None
    memory: int | None = None
    nameserver: tuple[str, ...] = ()
    onboot: bool | None = None
    ostype: str | None = None
    protection: bool | None = None
    searchdomain: tuple[str, ...] = ()
    startup: values.Startup | None = None
    swap: int | None = None
    tags: tuple[str, ...] = ()
    timezone: str | None = None
    tty: int | None = None
    unprivileged: bool | None = None
    rootfs: values.Rootfs | None = None
    mounts: Mapping[int, values.MountPoint] = {}
    nets: Mapping[int, values.Net] = {}
    devices: Mapping[int, values.Device] = {}
    more: tuple[tuple[str, str], ...] = ()

    keys: ClassVar[Mapping[str, Kind]] = _SCALARS

    def __post_init__(self) -> None:
        self.options()

    def options(self) -> dict[str, str]:
        """Every key that is set with PVE's text of its value, the keys sorted."""
        found: dict[str, str] = {}
        for key, kind in self.keys.items():
            value: object = getattr(self, key)
            if value is not None and value not in ((), {}):
                found[key] = kind.write(key, value)
        for label, numbered, kind_of in self._families():
            for index, one in numbered.items():
                if type(index) is not int or not 0 <= index < _MOST[label] or type(one) is not kind_of:
                    raise InvalidSpec(label, index, f"0 to {_MOST[label] - 1}, each a {kind_of.__name__}")
                found[f"{label}{index}"] = str(one)
        if self.rootfs is not None:
            found["rootfs"] = str(self.rootfs)
        for key, text in self.more:
            if key in found or not _KEY.fullmatch(key):
                raise InvalidSpec("more", key, "a key that is not known here, once")
            found[key] = checked(key, text, "")
        return dict(sorted(found.items()))

    def _families(self) -> tuple[tuple[str, Mapping[int, values.Value], type[values.Value]], ...]:
        return (
            ("net", self.nets, values.Net),
            ("mp", self.mounts, values.MountPoint),
            ("dev", self.devices, values.Device),
        )

    def words(self) -> tuple[str, ...]:
        """The options as words of a command line. Raises InvalidSpec for what no command line can say."""
        if len(self.env) > 1:
            raise InvalidSpec("env", tuple(self.env), "one variable: pct takes more only from an image")
        if self.more:
            raise InvalidSpec(self.more[0][0], self.more[0][1], "an option of pct that is known here")
        return tuple(word for key, text in self.options().items() for word in (f"--{key}", text))

    @classmethod
    def read(cls, section: config.Config | config.Section) -> Settings:
        """What one part of a config file says; raises InvalidSpec for a value that PVE could not read either.

        Volumes in ``unusedN`` and what PVE keeps for itself (``lock``, ``parent``, ...) are in ``more``; raw ``lxc.*`` lines but
        the environment stay in the section.
        """
        fields: dict[str, Any] = {}  # Any: of the type that the attribute has
        more: list[tuple[str, str]] = []
        for key, text in section.values.items():
            if key == "rootfs":
                fields[key] = values.Rootfs.parse(text)
            elif key in cls.keys:
                fields[key] = cls.keys[key].read(key, text)
            elif not _index(key):
                more.append((key, text))
        if section.description:
            fields["description"] = section.description.removesuffix("\n")
        variables = [text for key, text in section.raw if key == "lxc.environment.runtime"]
        if variables:
            fields["env"] = _read_env("env", "\0".join(variables))
        return cls(
            **fields,
            nets=_numbered("net", values.Net, section),
            mounts=_numbered("mp", values.MountPoint, section),
            devices=_numbered("dev", values.Device, section),
            more=tuple(more),
        )


def _index(key: str) -> tuple[str, int] | None:
    """``net0`` taken apart; None when it is no such key, or one beyond PVE's last."""
    match = _NUMBERED.fullmatch(key)
    return (match[1], int(match[2])) if match and int(match[2]) < _MOST[match[1]] else None


def _numbered(label: str, kind: type[V], section: config.Config | config.Section) -> dict[int, V]:
    found = ((_index(key), text) for key, text in section.values.items())
    return {index[1]: kind.parse(text) for index, text in found if index and index[0] == label}


NOTHING = Settings()


def set_(
    vmid: int,
    settings: Settings = NOTHING,
    *,
    delete: Iterable[str] = (),
    revert: Iterable[str] = (),
    digest: str = "",
) -> Command[None]:
    """Change a config. What cannot be changed while it runs waits for its next start: compare ``pending``.

    With ``digest``, only if the file is still the one that was read, else Changed. ``rootfs`` is
    refused: ``pct set`` would put any text there and the container would not start again (pct-observed 5).
    """
    for key in ("rootfs", "unprivileged"):
        if getattr(settings, key) is not None:
            raise InvalidSpec(key, getattr(settings, key), "only at creation: pct set would break the container")
    words = [*settings.words(), *_keys("delete", delete), *_keys("revert", revert)]
    if not words:
        raise InvalidSpec("settings", None, "something to change")
    words += ["--digest", checked_digest(digest)] if digest else []
    return change("set", number(vmid), *words, timeout=120.0)


def _keys(option: str, given: Iterable[str]) -> tuple[str, ...]:
    names_ = sorted(set(given)) if not isinstance(given, str) else [given]
    for key in names_:
        if not _KEY.fullmatch(key) or (option == "delete" and key in _REQUIRED):
            raise InvalidSpec(option, key, "keys of the config, and none that every container has")
    return (f"--{option}", ",".join(names_)) if names_ else ()
