"""The state of a container as the runtime specification prints it: what other runtimes say, and what hooks get on stdin."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET, UnsetType

from nexcage._core.bundle.decode import Decoded, decoded
from nexcage._core.bundle.flaws import Flaw
from nexcage._core.bundle.kinds import Section, Texts, Uint64
from nexcage._core.bundle.rules import version_flaws
from nexcage._core.bundle.shapes import not_absolute
from nexcage.errors import escaped

__all__ = ["ContainerState", "decode_state"]

_STATUS = ("creating", "created", "running", "stopped")
_MORE = "paused"  # runc, crun and nexcage have it


class ContainerState(Section, frozen=True, kw_only=True):
    """``status`` may be another word than the specification's four; ``pid`` is `UNSET` or 0 when there is no process."""

    oci_version: str
    id: str
    status: str
    bundle: str
    pid: Uint64 | UnsetType = UNSET
    annotations: Texts = {}  # noqa: RUF012 (msgspec copies it)


def decode_state(data: bytes | str) -> Decoded[ContainerState]:
    """A state document. Raises InvalidBundle."""
    return decoded("state.json", data, ContainerState, _flaws)


def _flaws(state: ContainerState) -> Iterator[Flaw]:
    yield from version_flaws(state.oci_version, "/ociVersion")
    if not state.id:
        yield Flaw("/id", "must not be empty")
    if not state.status:
        yield Flaw("/status", "must not be empty")
    elif state.status not in (*_STATUS, _MORE):
        yield Flaw("/status", f"{escaped(state.status)} is a word of that runtime's own", fatal=False)
    if reason := not_absolute(state.bundle):
        yield Flaw("/bundle", reason)
    if not state.pid and state.status in ("created", "running"):
        yield Flaw("/pid", f"is required while the container is {state.status}", fatal=state.pid is UNSET)
    if "" in state.annotations:
        yield Flaw("/annotations/", "a key must not be empty")
