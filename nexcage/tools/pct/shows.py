"""What ``pct`` shows, read without guessing: unknown keys are kept, lines of another form are errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from nexcage import names
from nexcage._core.command import Command
from nexcage.tools import config as configs
from nexcage.tools.pct.call import flags, number, read

__all__ = [
    "Pending",
    "Row",
    "Status",
    "config",
    "cpusets",
    "list_",
    "parse_config",
    "parse_cpusets",
    "parse_list",
    "parse_pending",
    "parse_status",
    "pending",
    "status",
]

_ROW = re.compile(r"([1-9][0-9]{2,8}) +(running|stopped) +(?:([a-z-]+) +)?(\S+) *")
_PAIR = re.compile(r"([a-z][a-z0-9_.-]*): (.*)", re.DOTALL)
_CHANGE = re.compile(r"(cur|new|del) ([a-z][a-z0-9_]*)(?:: (.*))?", re.DOTALL)


class Row(msgspec.Struct, frozen=True):
    """One container in ``pct list``. A frozen one is ``running`` too."""

    vmid: int
    running: bool
    lock: str
    name: str


class Status(msgspec.Struct, frozen=True):
    """``pct status``, with ``facts`` (``pid``, ``mem``, ``uptime`` ...) when asked for all."""

    running: bool
    facts: Mapping[str, str] = {}

    def number(self, key: str) -> int | None:
        """A fact as a number; None when it is not there, as ``pid`` of a stopped container."""
        value = self.facts.get(key, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


class Pending(msgspec.Struct, frozen=True):
    """One key in ``pct pending``: what it is, what it will be after the next start, whether it will be deleted."""

    key: str
    current: str | None = None
    new: str | None = None
    deleted: bool = False


def list_() -> Command[tuple[Row, ...]]:
    """The containers of the node; other nodes' are not shown."""
    return read(parse_list, "list")


def parse_list(text: str) -> tuple[Row, ...]:
    """What ``list`` prints: nothing at all for none, else a header and rows with a lock that is mostly blank."""
    rows: list[Row] = []
    for line in text.splitlines()[1:]:
        match = _ROW.fullmatch(line)
        if match is None:
            raise ValueError(f"not a row of the list: {line[:80]!r}")
        rows.append(Row(int(match[1]), match[2] == "running", match[3] or "", match[4]))
    return tuple(rows)


def status(vmid: int, *, verbose: bool = False) -> Command[Status]:
    """Whether it runs; with ``verbose`` also what it uses."""
    return read(parse_status, "status", number(vmid), *flags(verbose=verbose))


def parse_status(text: str) -> Status:
    """What ``status`` prints, with or without ``--verbose``."""
    facts = dict(_pairs(text))
    if facts.get("status") not in ("running", "stopped"):
        raise ValueError(f"no status in {text[:80]!r}")
    return Status(facts.pop("status") == "running", facts)


def config(vmid: int, *, current: bool = False, snapshot: str = "") -> Command[configs.Config]:
    """Its config: as it will be after the next start, as it is (``current``), or as it was in a snapshot."""
    options = ("--snapshot", names.snapshot(snapshot)) if snapshot else flags(current=current)
    return read(parse_config, "config", number(vmid), *options)


def parse_config(text: str) -> configs.Config:
    """What ``config`` prints, the description decoded, raw ``lxc.*`` lines in their order."""
    values: dict[str, str] = {}
    raw: list[tuple[str, str]] = []
    for key, value in _pairs(text):
        if key.startswith("lxc."):
            raw.append((key, value))
        else:
            values[key] = value
    description = configs.decode_text(values.pop("description", ""))
    return configs.Config(values, description, tuple(raw))


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in text.split("\n") if text else ():
        match = _PAIR.fullmatch(line)
        if match is None:
            raise ValueError(f"not KEY: VALUE: {line[:80]!r}")
        pairs.append((match[1], match[2]))
    return pairs


def pending(vmid: int) -> Command[tuple[Pending, ...]]:
    """Every key with what waits for the next start."""
    return read(parse_pending, "pending", number(vmid))


def parse_pending(text: str) -> tuple[Pending, ...]:
    """What ``pending`` prints: ``cur``, ``new`` and ``del`` lines, the keys sorted."""
    found: dict[str, Pending] = {}
    for line in text.split("\n") if text else ():
        match = _CHANGE.fullmatch(line)
        if match is None:
            raise ValueError(f"not a line of pending: {line[:80]!r}")
        known = found.get(match[2], Pending(match[2]))
        value = configs.decode_text(match[3] or "") if match[2] == "description" else match[3] or ""
        current = value if match[1] == "cur" else known.current
        new = value if match[1] == "new" else known.new
        found[match[2]] = Pending(match[2], current, new, known.deleted or match[1] == "del")
    return tuple(found.values())


def cpusets() -> Command[Mapping[int, tuple[int, ...]]]:
    """The processors of each running container of the node."""
    return read(parse_cpusets, "cpusets")


def parse_cpusets(text: str) -> Mapping[int, tuple[int, ...]]:
    """What ``cpusets`` prints: VMIDs and numbers of processors between two rules."""
    found: dict[int, tuple[int, ...]] = {}
    for line in text.splitlines():
        if line == "no running containers" or not line.strip("-"):
            continue
        match = re.fullmatch(r" *([0-9]{3,9}): ([0-9 ]*)", line, re.ASCII)
        if match is None:
            raise ValueError(f"not a line of cpusets: {line[:80]!r}")
        found[int(match[1])] = tuple(int(word) for word in match[2].split())
    return found
