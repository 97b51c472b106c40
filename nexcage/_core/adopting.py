"""Guests that somebody else made: finding the one that is meant, and whether it may become ours."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from nexcage._core.census import twice
from nexcage._core.changes import described
from nexcage._core.details import Details
from nexcage._core.intents import Adopt
from nexcage._core.seen import Guest, Look
from nexcage.errors import AlreadyExists, Busy, IllegalTransition, InvalidInput, NoRoute, NotFound, NotOurs

__all__ = ["adoptable", "adopted", "sought"]

_OURS = "nexcage fleet="


def sought(intent: Adopt, looks: Mapping[str, Look]) -> tuple[str, Guest]:
    """The node that has the guest, by its key, and the guest. Raises NotFound, InvalidInput when several have one, NoRoute."""
    doubled = twice(looks)
    having = {key: look.guests[intent.vmid] for key, look in looks.items() if intent.vmid in look.guests}
    places = [key for key in having if key not in doubled]
    if intent.node and intent.node in having:
        places = [intent.node]
    elif intent.node:
        raise NotFound("guest", intent.vmid, _missing(intent.vmid, {intent.node: looks[intent.node]}))
    if len(places) > 1:
        raise InvalidInput("vmid", intent.vmid, f"one guest: it is on {', '.join(places)}; name the node")
    if not places:
        _raise_if_elsewhere(intent.vmid, looks)
        raise NotFound("guest", intent.vmid, _missing(intent.vmid, looks))
    return places[0], having[places[0]]


def _missing(vmid: int, looks: Mapping[str, Look]) -> str:
    known = sorted({str(one) for look in looks.values() for one in look.guests})
    near = get_close_matches(str(vmid), known, cutoff=0.5) or known[:3]
    where = f"is not on {', '.join(looks)}"
    return f"{where}; the nearest: {', '.join(near)}" if near else where


def _raise_if_elsewhere(vmid: int, looks: Mapping[str, Look]) -> None:
    owner = next((look.vmids[vmid] for look in looks.values() if vmid in look.vmids), None)
    if owner is not None:
        raise NoRoute(f"guest {vmid} is on node '{owner}', which is not in this fleet")


def adoptable(intent: Adopt, key: str, look: Look, fleet: str) -> Guest:
    """The guest as that look shows it. Raises what makes it impossible to adopt: NotFound, NotOurs, AlreadyExists, IllegalTransition,
    Busy while it is locked. A template may be adopted, and a copy of one of ours or of another fleet too.
    """
    guest = look.guests.get(intent.vmid)
    if guest is None or intent.vmid not in look.details:
        raise NotFound("guest", intent.vmid, _missing(intent.vmid, {key: look}))
    mark = guest.mark
    if mark is not None and not guest.copy and mark.fleet != fleet:
        why = f"it is container '{mark.id}' of fleet {mark.fleet}"
        raise NotOurs(intent.id, key, intent.vmid, why).noted(
            "if that fleet is no more, take the line 'nexcage fleet=...' out of its description"
        )
    if mark is not None and not guest.copy:
        raise AlreadyExists("guest", intent.vmid, f"on {key} is container '{mark.id}' of this fleet already")
    if guest.half:
        raise IllegalTransition(intent.id, "adopt", "", reason=f"{intent.vmid} on {key} is {guest.half}")
    if guest.lock:
        raise Busy(f"{intent.vmid} on {key}", f"it is locked ({guest.lock})")
    return guest


def adopted(mark: str, details: Details, description: str = "") -> dict[str, str]:
    """What is to be set so that it is ours, by PVE's keys: its tags and its text stay, and of a copy the line that it came with goes.
    ``description`` instead of its text, if given.
    """
    text = "\n".join(line for line in details.description.rstrip("\n").split("\n") if not line.startswith(_OURS))
    tags = filter(None, details.values.get("tags", "").replace(",", ";").replace(" ", ";").split(";"))
    return {"tags": ";".join(sorted({"nexcage", *tags})), "description": described(mark, description or text)}
