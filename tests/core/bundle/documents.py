"""The documents that tests of bundles begin with, and how one place of them is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "oci"
SAMPLES = DATA / "samples"
MISSING = object()
MINIMAL: dict[str, Any] = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}}
EXAMPLE: dict[str, Any] = json.loads((SAMPLES / "config/good/spec-example.json").read_text())


def samples(kind: str, verdict: str) -> list[Any]:
    return sorted((SAMPLES / kind / verdict).glob("*.json"))


def parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def put(document: Any, pointer: str, value: object) -> Any:
    """A copy with another value at ``pointer``; objects on the way are made, ``-`` appends, `MISSING` takes the place away."""
    if not pointer:
        return value
    copy = json.loads(json.dumps(document))  # no place of it is another one too
    place = copy
    *way, last = parts(pointer)
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        if last == "-":
            place.append(value)
        elif value is MISSING:
            del place[int(last)]
        else:
            place[int(last)] = value
    elif value is MISSING:
        del place[last]
    else:
        place[last] = value
    return copy


def pointers(value: object, pointer: str = "") -> list[str]:
    """Every place of a document."""
    found = [pointer]
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in members:
        found += pointers(child, f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}")
    return found


def resolved(document: Any, pointer: str) -> Any:
    for part in parts(pointer):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document
