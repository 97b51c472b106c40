"""``devN``, ``features`` and ``startup`` (pve-commands 2.2, 2.4, 2.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from nexcage.errors import InvalidSpec
from nexcage.tools.values._kinds import Kind, checked, flag, integer, listed, matching
from nexcage.tools.values._property import Value

__all__ = ["Device", "Features", "Startup"]


def _device(field: str, value: object) -> str:
    text = checked(field, value)
    if not text.startswith("/dev/") or re.search(r"/\.\.?(?:/|$)", text) or text.strip() != text:
        raise InvalidSpec(field, value, "/dev/... without . and .. as parts")
    return text


class Device(Value, frozen=True, kw_only=True, omit_defaults=True):
    """``devN``: a device of the node inside the container. ``mode`` as PVE has it, in octal with a leading 0: ``0660``."""

    kinds: ClassVar[Mapping[str, Kind]] = {
        "path": Kind(_device, _device),
        "mode": matching("0[0-7]{3}", "an octal mode such as 0660"),
        "uid": integer(0, (1 << 32) - 2),
        "gid": integer(0, (1 << 32) - 2),
        "deny-write": flag,
    }
    bare: ClassVar[str] = "path"
    label: ClassVar[str] = "dev"

    path: str
    mode: str | None = None
    uid: int | None = None
    gid: int | None = None
    deny_write: bool | None = None


class Features(Value, frozen=True, kw_only=True, omit_defaults=True):
    """``features``; ``mount`` lists file systems that may be mounted inside. Only root may set more than ``nesting``."""

    kinds: ClassVar[Mapping[str, Kind]] = {
        "force_rw_sys": flag,
        "fuse": flag,
        "keyctl": flag,
        "mknod": flag,
        "mount": listed(matching("[a-zA-Z0-9_ ]+", "names of file systems")),
        "nesting": flag,
    }
    label: ClassVar[str] = "features"

    force_rw_sys: bool | None = None
    fuse: bool | None = None
    keyctl: bool | None = None
    mknod: bool | None = None
    mount: tuple[str, ...] = ()
    nesting: bool | None = None


_STARTUP = re.compile(r"(?:order=)?([0-9]{1,9})|(up|down)=([0-9]{1,9})", re.ASCII)


class Startup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``startup``: when it is started at boot; ``up`` and ``down`` are seconds to wait after starting and stopping it."""

    order: int | None = None
    up: int | None = None
    down: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.order, self.up, self.down) if value is not None]
        if not given or any(type(value) is not int or not 0 <= value < 10**9 for value in given):
            raise InvalidSpec("startup", given, "at least one of order, up and down, whole numbers from 0")

    @classmethod
    def parse(cls, text: str) -> Startup:
        """From ``[order=]N,up=N,down=N``; raises InvalidSpec."""
        found: dict[str, int] = {}
        for part in text.split(",") if type(text) is str else [""]:
            match = _STARTUP.fullmatch(part)
            key = (match[2] or "order") if match else ""
            if match is None or key in found or text == "0":  # which Perl takes for nothing
                raise InvalidSpec("startup", text, "[order=]N[,up=SECONDS][,down=SECONDS]")
            found[key] = int(match[1] or match[3])
        return cls(order=found.get("order"), up=found.get("up"), down=found.get("down"))

    def __str__(self) -> str:
        parts = (("order", self.order), ("up", self.up), ("down", self.down))
        return ",".join(f"{key}={value}" for key, value in parts if value is not None)
