"""``nexcage plan``: what would become of a bundle. It looks at the bundle and touches nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec

import nexcage
from nexcage import BundlePlan
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, print_rows
from nexcage._cli.streams import Streams, one_line

__all__ = ["document", "plan"]

_ALIASES = {"proxmox-lxc": "lxc", "pct": "lxc"}
_PROPERTY = re.compile(
    r"/?(?:ociVersion|process|root|hostname|domainname|mounts|hooks|annotations|linux|solaris|windows|vm|zos|freebsd)(?:[/.].*)?"
)


def plan(call: Call, streams: Streams) -> int:
    """0 when a create would go on, 1 when not; the answer is on standard output either way."""
    bundle, fields = _words(call)
    backend = call.text("runtime") or "lxc"
    made = nexcage.plan_bundle(bundle, backend=_ALIASES.get(backend, backend), allow=fields)
    if call.text("output") == "json":
        streams.line(as_json(streams, document(made), indent=2))
    else:
        _table(streams, made)
    return 0 if made.accepted else 1


def _words(call: Call) -> tuple[str, tuple[str, ...]]:
    """The bundle, and what may be dropped: ``--allow`` takes several fields, by commas, words or repetition."""
    fields = tuple(field for value in call.many("allow") for field in value.split(",") if field)
    words = list(call.words)
    if not words:
        raise call.usage("which bundle?", "nexcage plan BUNDLE")
    bundle = next((word for word in words if os.path.exists(word)), words[0])
    words.remove(bundle)
    if os.path.exists(f"{bundle}/oci-layout") and not os.path.exists(f"{bundle}/config.json"):
        raise call.usage(f"{bundle!a} is the layout of images, not a bundle", "umoci unpack --image LAYOUT:TAG BUNDLE")
    if words and not fields:
        raise call.usage(f"takes one bundle, not {words[0]!a} too")
    wrong = next((field for field in (*fields, *words) if not _PROPERTY.fullmatch(field)), None)
    if wrong is not None:
        raise call.usage(f"{wrong!a} is no property of config.json", "--allow /linux/intelRdt")
    return bundle, (*fields, *words)


def document(made: BundlePlan) -> Mapping[str, Any]:  # Any: whatever JSON can say
    """The plan as JSON has it."""
    return {
        "verdict": "accept" if made.accepted else "reject",
        "applied": msgspec.to_builtins(made.applied),
        "approximated": msgspec.to_builtins(made.approximated),
        "refused": msgspec.to_builtins(made.refused),
        "warnings": list(made.warnings),
        "error": msgspec.to_builtins(made.error),
    }


def _table(streams: Streams, made: BundlePlan) -> None:
    rows = [
        *({"verdict": "applied", "field": one.pointer, "as": one.as_} for one in made.applied),
        *(
            {"verdict": "approximated", "field": one.pointer, "as": one.as_, "note": one.how}
            for one in made.approximated
        ),
        *({"verdict": _refused(made, one.pointer), "field": one.pointer, "note": one.reason} for one in made.refused),
    ]
    if made.error is not None:
        rows.append({"verdict": "invalid", "field": made.error.pointer, "note": made.error.reason})
    print_rows(streams, rows, "table", ("verdict", "field", "as", "note"))
    for warning in made.warnings:
        streams.say(f"nexcage: plan: warning: {one_line(warning)}")
    counts = (len(made.applied), len(made.approximated), len(made.refused))
    streams.say(
        "nexcage: plan: {}: {} applied, {} approximated, {} refused".format(
            "accept" if made.accepted else "reject", *counts
        )
    )
    left = [one.pointer for one in made.refused if one.pointer not in made.allowed]
    if left := [pointer for pointer in left if not pointer.startswith("/root")]:
        streams.say(f"  to do without: --allow {one_line(left[0])}{' --allow ...' if len(left) > 1 else ''}")


def _refused(made: BundlePlan, pointer: str) -> str:
    """What crun and runc get is the file as it stands: what becomes of an allowed field is theirs."""
    if pointer not in made.allowed:
        return "refused"
    return "dropped" if made.backend == "lxc" else "unchanged"
