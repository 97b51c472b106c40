"""``nexcage images`` (and ``images push``), ``pull`` and ``rmi``: what containers are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nexcage import NexcageError, NotFound, names
from nexcage._cli.main import exit_status, tell
from nexcage._cli.parser import Call
from nexcage._cli.render import print_rows
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet, Image

__all__ = ["prepare"]

_SHOWN = ("volume", "node", "kind", "size", "at", "alias")
_OFFERED = ("name", "section", "arch", "node")


def prepare(call: Call, streams: Streams) -> Verb:
    """Check the words; raises before anything is opened."""
    if call.name == "images":
        if call.words[:1] == ("push",):
            return _push(call, streams)
        if call.words:
            raise call.usage(f"does not take the word {call.words[0]!a}")
        return _available(call, streams) if call.flag("available") else _images(call, streams)
    if not call.words or (call.name == "pull" and len(call.words) > 1):
        raise call.usage("which image?" if not call.words else "takes one image", f"nexcage {call.name} IMAGE")
    if (storage := call.text("storage")) is not None:
        names.storage(storage)
    return _pull(call, streams) if call.name == "pull" else _rmi(call, streams)


def _images(call: Call, streams: Streams) -> Verb:
    storage = call.text("storage")
    there = f"{names.storage(storage)}:" if storage is not None else ""

    async def verb(fleet: Fleet) -> int:
        found = await fleet.images(*call.many("node"))
        seen = [image for some in found.values() if not isinstance(some, NexcageError) for image in some]
        rows = [_row(fleet, image) for image in seen if image.volume.startswith(there)]
        _print(call, streams, rows, _SHOWN, "volume")
        return _told(call, streams, found)

    return verb


def _available(call: Call, streams: Streams) -> Verb:
    async def verb(fleet: Fleet) -> int:
        found = await fleet.available(*call.many("node"))
        rows = [
            {"name": one.name, "section": one.section, "arch": one.arch, "node": key}
            for key, some in found.items()
            if not isinstance(some, NexcageError)
            for one in some
        ]
        _print(call, streams, rows, _OFFERED, "name")
        return _told(call, streams, found)

    return verb


def _pull(call: Call, streams: Streams) -> Verb:
    async def verb(fleet: Fleet) -> int:
        found = await fleet.pull(call.words[0], *call.many("node"), storage=call.text("storage") or "")
        rows = [_row(fleet, image) for image in found.values() if not isinstance(image, NexcageError)]
        if (output := call.text("output")) is not None:
            _print(call, streams, rows, _SHOWN, "volume", output)
        return _told(call, streams, found)

    return verb


def _push(call: Call, streams: Streams) -> Verb:
    if len(call.words) != 2:
        raise call.usage("which image?" if len(call.words) < 2 else "takes one image", "nexcage images push IMAGE")
    if (storage := call.text("storage")) is not None:
        names.storage(storage)

    async def verb(fleet: Fleet) -> int:
        found = await fleet.push_image(call.words[1], *call.many("node"), storage=storage or "")
        rows = [_row(fleet, image) for image in found.values() if not isinstance(image, NexcageError)]
        _print(call, streams, rows, _SHOWN, "volume", call.text("output") or "name")
        return _told(call, streams, found)

    return verb


def _rmi(call: Call, streams: Streams) -> Verb:
    async def verb(fleet: Fleet) -> int:
        status = 0
        for image in dict.fromkeys(call.words):
            try:
                found = await fleet.rmi(image, *call.many("node"), storage=call.text("storage") or "")
            except NexcageError as error:
                status = tell(call, error, streams) or status
                continue
            if not any(found.values()) and not call.flag("force"):
                where = ", ".join(found) if len(found) < 4 else f"any of {len(found)} nodes"
                status = tell(call, NotFound("image", image, f"is not on {where}"), streams)
            status = _told(call, streams, found) or status
        return status

    return verb


def _told(call: Call, streams: Streams, found: Mapping[str, object]) -> int:
    """Each failure on a line; the worst exit status."""
    errors = [error for error in found.values() if isinstance(error, NexcageError)]
    for error in errors:
        tell(call, error, streams)
    return max(map(exit_status, errors), default=0)


def _row(fleet: Fleet, image: Image) -> dict[str, Any]:  # Any: whatever JSON can say
    aliases = [alias for alias, to in fleet.config.images.items() if image.volume in _targets(to)]
    return {
        "volume": image.volume,
        "node": image.node,
        "kind": image.kind,
        "size": image.size,
        "at": datetime.fromtimestamp(image.at, UTC).isoformat(timespec="seconds") if image.at else None,
        "alias": aliases,
    }


def _targets(to: str | Mapping[str, str]) -> Sequence[str]:
    return (to,) if isinstance(to, str) else tuple(to.values())


def _print(
    call: Call,
    streams: Streams,
    rows: list[dict[str, Any]],
    columns: Sequence[str],
    name: str,
    output: str | None = None,
) -> None:
    output = output or call.text("output") or "table"
    if output == "table":
        rows = [{**row, "size": _human(row["size"])} if "size" in row else row for row in rows]
    if output == "name":
        rows = list({row[name]: row for row in rows}.values())
    print_rows(streams, rows, output, columns, name=name)


def _human(size: int) -> str:
    """A size for people, in binary units."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
