"""What ``runc state`` and ``runc list`` print: the same fields in the same order, the same table."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nexcage import Machine, OciState
from nexcage._cli.streams import one_line

__all__ = ["as_listed", "as_state", "has_terminal", "said_of", "table"]

Json = dict[str, Any]  # Any: whatever JSON can say
_LARGEST = 1 << 20  # of a config.json that is looked into
_HEADER = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_NARROWEST, _GAP = 12, 3  # of a column, as Go's tabwriter is told by runc


def as_state(state: OciState, machine: Machine) -> Json:
    """The document of ``state``."""
    document = as_listed(state, machine)
    document["owner"] = ""
    return document


def as_listed(state: OciState, machine: Machine) -> Json:
    """An entry of ``list --format json``."""
    rootfs = _rootfs(state.bundle)
    return {
        "ociVersion": state.ociVersion,
        "id": state.id,
        "pid": state.pid,
        "status": state.status,
        "bundle": state.bundle,
        **({"rootfs": rootfs} if rootfs else {}),
        "created": _at(machine.created_at),
        **({"annotations": dict(state.annotations)} if state.annotations else {}),
        "owner": "root",
    }


def table(entries: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The lines of ``list``."""
    keys = [name.lower() for name in _HEADER]
    rows = [_HEADER, *(tuple(one_line(str(entry[key])) for key in keys) for entry in entries)]
    widths = [_width(row[at] for row in rows) for at in range(len(_HEADER) - 1)]
    for row in rows:
        yield "".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True))


def _width(cells: Iterable[str]) -> int:
    return max(_NARROWEST, max(len(cell) for cell in cells) + _GAP)


def _at(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}{_fraction(seconds)}Z"


def _fraction(seconds: float) -> str:
    # As Go writes it: no zeros at the end, and nothing for none.
    return f".{int(seconds % 1 * 1e9):09d}".rstrip("0").rstrip(".")


def has_terminal(bundle: str) -> bool:
    """Whether the program of a bundle wants a terminal; False when the bundle cannot be read."""
    return _said(bundle, "process", "terminal") is True


def said_of(bundle: str) -> tuple[str | None, dict[str, str]]:
    """The version and the annotations of a bundle, as far as they are such; whether it is valid is said by whoever takes it.

    Annotations that begin as ours do are left out: they would be believed.
    """
    version, notes = _said(bundle, "ociVersion"), _said(bundle, "annotations")
    try:
        annotations = msgspec.convert(notes or {}, dict[str, str])
    except msgspec.ValidationError:
        annotations = {}
    theirs = {key: text for key, text in annotations.items() if not key.startswith("org.nexcage.")}
    return (version or None) if isinstance(version, str) else None, theirs


def _rootfs(bundle: str) -> str:
    """Where the bundle's root file system is; empty when the bundle is not here, or is none."""
    root = _said(bundle, "root", "path")
    return os.path.normpath(os.path.join(bundle, root)) if isinstance(root, str) else ""


def _said(bundle: str, *keys: str) -> object:
    try:
        fd = os.open(os.path.join(bundle, "config.json"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            value: Any = json.loads(file.read(_LARGEST))  # Any: a document of somebody else's
        for key in keys:
            value = value[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return value
