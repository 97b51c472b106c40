"""PVE container config files (``/etc/pve/nodes/NODE/lxc/VMID.conf``): read them, change them as values, write them as PVE does.

The file has a main part, then ``[pve:pending]`` with values that wait for the next start, then one section per snapshot.
A description is kept as ``#`` lines on top of its section. Raw ``lxc.*`` lines come last and keep their order. Lines that
PVE cannot read are kept in :attr:`Config.broken` and are not written again, as PVE loses them too.

Everything here is a ``NamedTuple`` and not a ``msgspec.Struct``: every call of a pretend tool is one process that reads
configs, and importing msgspec would double its start-up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from nexcage.errors import InvalidInput

__all__ = [
    "PENDING",
    "Config",
    "Section",
    "decode_text",
    "encode_text",
    "format_property_string",
    "parse",
    "property_string",
]

PENDING = "pve:pending"
"""The name of the section with values that wait for the next start."""

_HEADER = re.compile(r"\[(pve:pending|[a-z][a-z0-9_-]+)\]\s*", re.IGNORECASE | re.ASCII)
_RAW = re.compile(r"(lxc\.[a-z0-9_.-]+)(?::|\s*=)\s*(.*?)\s*", re.ASCII)
_LINE = re.compile(r"([a-z][a-z_]*[0-9]*):\s*(.+?)\s*", re.ASCII)
_KEY = re.compile(r"[a-z][a-z_]*[0-9]*", re.ASCII)
_RAW_KEY = re.compile(r"lxc\.[a-z0-9_.-]+", re.ASCII)
_SNAPSHOT = re.compile(r"[a-z][a-z0-9_-]+", re.IGNORECASE | re.ASCII)
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25, 0x3A}
_SAFE = re.compile(r"[ -$&-9;-~]*")
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_KEYS = frozenset(
    (
        *"arch cmode console cores cpulimit cpuunits debug entrypoint features hookscript hostname lock memory".split(),
        *"nameserver onboot ostype parent protection rootfs searchdomain snaptime startup swap tags template".split(),
        *"timezone tty unprivileged".split(),
        *(f"{kind}{n}" for kind in ("net", "mp") for n in range(10)),
    )
)


def encode_text(text: str) -> str:
    """One line of a description as PVE stores it: control characters, ``:``, ``%`` and non-ASCII percent-encoded."""
    if _SAFE.fullmatch(text):
        return text
    data = text.encode("utf-8", "replace")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)


def decode_text(text: str) -> str:
    """The opposite of :func:`encode_text`; bytes that are no UTF-8 become replacement characters."""
    if "%" not in text:
        return text
    data = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "replace")


class Section(NamedTuple):
    """One part of a config file: the main one, the pending values, or a snapshot."""

    values: Mapping[str, str] = _NOTHING
    description: str = ""
    raw: tuple[tuple[str, str], ...] = ()

    def render(self) -> str:
        """The lines of this section without its header, in PVE's order. Raises InvalidInput for what would be another line."""
        lines = ["#" + encode_text(line) for line in _lines(self.description)]
        values = self.values
        lines += [f"{key}: {values[key]}" for key in sorted(values)]
        lines += [f"{key}: {value}" for key, value in self.raw]
        lines.append("")
        text = "\n".join(lines)
        if text.count("\n") != len(lines) - 1:
            raise InvalidInput("config", dict(values), "each value on one line")
        for key in values:
            if key not in _KEYS and not _KEY.fullmatch(key):
                raise InvalidInput("config", key, "keys of a-z and _ with a number behind")
        for key, _ in self.raw:
            if not _RAW_KEY.fullmatch(key):
                raise InvalidInput("config", key, "raw keys that begin with lxc.")
        return text


_NO_SNAPSHOTS: Mapping[str, Section] = MappingProxyType({})


class Config(NamedTuple):
    """A whole config file as a value; change it with ``config._replace(...)`` or :meth:`with_values`."""

    values: Mapping[str, str] = _NOTHING
    description: str = ""
    raw: tuple[tuple[str, str], ...] = ()
    pending: Section | None = None
    snapshots: Mapping[str, Section] = _NO_SNAPSHOTS
    broken: tuple[str, ...] = ()

    @property
    def main(self) -> Section:
        """The main part as a section."""
        return Section(self.values, self.description, self.raw)

    def get(self, key: str) -> str | None:
        """The running value of ``key`` (not the pending one), or None."""
        return self.values.get(key)

    def with_values(self, **changes: str | None) -> Config:
        """A copy with these keys of the main part set, or dropped where the value is None."""
        values = {**self.values, **changes}
        return self._replace(values={key: value for key, value in values.items() if value is not None})

    def effective(self) -> Mapping[str, str]:
        """The values as they will be after the next start: what ``pct config`` shows."""
        if self.pending is None:
            return self.values
        waiting = dict(self.pending.values)
        dropped = {name.lstrip("!") for name in _names(waiting.pop("delete", ""))}
        return {**{key: value for key, value in self.values.items() if key not in dropped}, **waiting}

    def render(self) -> str:
        """The text of the file as PVE writes it: keys sorted, snapshots sorted, broken lines gone."""
        parts = [self.main.render()]
        pending = self.pending
        if pending is not None and (pending.values or pending.description or pending.raw):
            parts.append(f"\n[{PENDING}]\n{pending.render()}")
        for name in sorted(self.snapshots):
            if not _SNAPSHOT.fullmatch(name):
                raise InvalidInput("config", name, "names of snapshots")
            parts.append(f"\n[{name}]\n{self.snapshots[name].render()}")
        return "".join(parts)


def parse(text: str) -> Config:
    """The config in ``text``. Takes any text: what is no line of a config is listed in ``broken`` and otherwise ignored."""
    if not isinstance(text, str):
        raise InvalidInput("config", text, "must be text")
    values: dict[str, str] = {}
    main = values
    raw: list[tuple[str, str]] = []
    description: list[str] = []
    broken: list[str] = []
    done: list[tuple[str, Section]] = []
    name = ""
    for line in text.split("\n"):
        key, colon, value = line.partition(": ")
        if colon and key in _KEYS and value == value.strip() != "":  # the common case, without a regular expression
            values[key] = value
            continue
        if not line or line.isspace():
            continue
        first = line[0]
        if first == "#":
            description.append(decode_text(line[1:]) + "\n")
        elif first == "[" and (header := _HEADER.fullmatch(line)):
            done.append((name, Section(values, "".join(description), tuple(raw))))
            name, values, raw, description = header[1], {}, [], []
        elif line.startswith("lxc.") and (found := _RAW.fullmatch(line)):
            raw.append((found[1], found[2]))
        elif line.startswith("description:") and line[12:].strip():
            description.append(decode_text(line[12:].strip()))
        elif found := _LINE.fullmatch(line):
            values[found[1]] = found[2]
        else:
            broken.append(line)
    if not done:
        return Config(main, "".join(description), tuple(raw), None, _NO_SNAPSHOTS, tuple(broken))
    done.append((name, Section(values, "".join(description), tuple(raw))))
    return _assemble(done, tuple(broken))


def _assemble(sections: list[tuple[str, Section]], broken: tuple[str, ...]) -> Config:
    """Main part first; a section that appears twice counts as it was read last, as in PVE."""
    main = sections[0][1]
    pending: Section | None = None
    snapshots: dict[str, Section] = {}
    for name, section in sections[1:]:
        if name.lower() == PENDING:
            pending = section
        else:
            snapshots[name] = section
    return Config(main.values, main.description, main.raw, pending, snapshots, broken)


def _lines(text: str) -> list[str]:
    r"""Perl's ``split /\n/``: empty lines at the end do not count."""
    lines = text.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[,;\s\0]+", text) if name]


def property_string(text: str, default_key: str = "", field: str = "property string") -> dict[str, str]:
    """``a=1,b=2`` as a dict in the written order; a part without ``=`` is the value of ``default_key``.

    :raises InvalidInput: a key appears twice, a part has no key or no value, or there is no default key to take it.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals:
            if not default_key:
                raise InvalidInput(field, text, "value without key, but schema does not define a default key")
            key, value = default_key, part
            if key in found:
                raise InvalidInput(field, text, f"duplicate key in comma-separated list property: {key}")
        elif not key or not value:
            raise InvalidInput(field, text, "a key and a value on both sides of each =")
        elif key in found:
            raise InvalidInput(field, text, f"duplicate key in comma-separated list property: {key}")
        found[key] = value
    return found


def format_property_string(values: Mapping[str, str], default_key: str = "", required: tuple[str, ...] = ()) -> str:
    """``values`` in the order PVE writes: the default key bare, required keys, then the rest by name.

    :raises InvalidInput: a key or value holds what would end it: a comma, a line break or another control character.
    """
    first = [default_key] if default_key and default_key in values else []
    middle = sorted(key for key in required if key in values and key not in first)
    rest = sorted(key for key in values if key not in first and key not in middle)
    parts = [values[default_key]] if first else []
    parts += [f"{key}={values[key]}" for key in (*middle, *rest)]
    if any("," in part or _CONTROL.search(part) for part in parts):
        raise InvalidInput("property string", parts, "a value must not contain a comma or a control character")
    return ",".join(parts)
