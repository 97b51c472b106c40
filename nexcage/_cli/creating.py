"""The options of ``create`` and ``run`` that are settings in PVE's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nexcage import InvalidSpec, Vm
from nexcage._cli.parser import Call

__all__ = ["asked", "is_machines"]

_TEXTS = ("features", "startup", "timezone", "pool", "hookscript", "arch")
_MACHINES = ("vm", "qemu", "proxmox-vm")


def asked(call: Call) -> dict[str, Any]:  # Any: the keywords of Spec
    """What was said; each is checked by the Spec."""
    fields: dict[str, Any] = {name: text for name in _TEXTS if (text := call.text(name)) is not None}
    if (limit := call.text("cpulimit")) is not None:
        fields["cpulimit"] = _decimal("cpulimit", limit)
    if (units := call.text("cpuunits")) is not None:
        fields["cpuunits"] = _whole("cpuunits", units)
    for option, field, example in (
        ("mount", "mounts", "mp0=local-zfs:8,mp=/data"),
        ("dev", "devices", "dev0=/dev/fuse,mode=0660"),
    ):
        if given := call.many(option):
            fields[field] = _keyed(field, given, example)
    for option in ("nameserver", "searchdomain"):
        if given := call.many(option):
            # As in PVE itself, one option may carry several.
            fields[option] = tuple(word for text in given for word in re.split("[,; ]", text) if word)
    if (ostype := call.text("ostype")) is not None and not is_machines(call, ostype):
        fields["ostype"] = ostype
    if call.flag("protection"):
        fields["protection"] = True
    if allow := tuple(field for text in call.many("allow") for field in text.split(",") if field):
        fields["allow"] = allow
    if call.flag("keep_template"):
        fields["keep_template"] = True
    if call.flag("gate"):
        fields["gate"] = True
    return fields


def is_machines(call: Call, ostype: str) -> bool:
    """Whether this is a virtual machine's ``--ostype``: the two have no word in common."""
    if call.text("runtime") in _MACHINES:
        return True
    try:
        Vm(ostype=ostype)
    except InvalidSpec:
        return False
    return True


def _keyed(field: str, given: Sequence[str], example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key in found:
            raise InvalidSpec(field, text, f"KEY=VALUE, each key once: {example}")
        found[key] = value
    return found


def _decimal(field: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6})?", text):
        raise InvalidSpec(field, text, "a number of cores such as 1.5, 0 for no limit")
    return float(text)


def _whole(field: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise InvalidSpec(field, text, "a whole number")
    return int(text)
