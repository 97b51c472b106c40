"""The OCI view of a machine: ``state.json`` (runtime-spec 1.3.0, "State")."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nexcage._core.machine import Machine
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.states import Op, State

__all__ = ["OCI_VERSION", "OURS", "OciState", "oci_state", "oci_status", "same_state", "theirs"]

OCI_VERSION = "1.3.0"
OURS = "org.nexcage."
"""How the annotations begin that only we make."""

_STATUS: dict[State, str] = {
    State.CREATING: "creating",
    State.CREATED: "created",
    State.STARTING: "created",
    State.RUNNING: "running",
    State.PAUSING: "running",
    State.STOPPING: "running",
    State.PAUSED: "paused",
    State.RESUMING: "paused",
    State.STOPPED: "stopped",
    State.DELETING: "stopped",
    State.ABSENT: "stopped",
}
_ALIVE = frozenset({State.RUNNING, State.PAUSING, State.PAUSED, State.RESUMING, State.STOPPING})
_WAITING = frozenset({State.CREATED, State.STARTING})
"""Where some backends have a process that waits to be started."""


class OciState(msgspec.Struct, frozen=True):
    """The document, in the order people read it. ``pid`` is init's on the host, 0 when there is no process."""

    ociVersion: str  # noqa: N815 (the specification's spelling)
    id: str
    status: str
    pid: int
    bundle: str
    annotations: Mapping[str, str] = {}


def oci_status(machine: Machine) -> str:
    """The OCI word for where it is; in UNKNOWN the last one that was true (an annotation says so)."""
    if machine.state is State.UNKNOWN:
        before = machine.was
        if before is State.ABSENT:
            return "creating"
        return _STATUS.get(before, "creating")
    if machine.state is State.DELETING and machine.was in _ALIVE:
        return _STATUS[machine.was]
    return _STATUS[machine.state]


def oci_state(machine: Machine, *, run_dir: str, stale: bool = False) -> OciState:
    """``state.json`` for ``machine``; ``run_dir`` (absolute) stands in for a bundle that it does not have."""
    spec = machine.spec
    annotations = dict(spec.annotations) if spec else {}
    ours = {
        "node": machine.node,
        "vmid": str(machine.vmid) if machine.vmid and machine.backend not in RUNTIMES else "",
        "backend": machine.backend,
        "image": spec.image if spec else "",
        "op": _op(machine),
        "state": str(machine.state),
        "stale": "true" if stale else "",
        "gate": _without_process(machine),
    }
    annotations |= {f"{OURS}{key}": value for key, value in ours.items() if value}
    where = machine.was if machine.state in (State.UNKNOWN, State.DELETING) else machine.state
    alive = where in _ALIVE or (where in _WAITING and machine.state is not State.DELETING)
    return OciState(
        ociVersion=spec.oci_version if spec and spec.oci_version else OCI_VERSION,
        id=machine.id,
        status=oci_status(machine),
        pid=machine.pid if alive else 0,
        bundle=(spec.bundle if spec and spec.bundle else f"{run_dir.rstrip('/')}/{machine.id}"),
        annotations=annotations,
    )


def theirs(annotations: Mapping[str, str]) -> dict[str, str]:
    """What state.json takes of a bundle's annotations: none that begin as ours do, since they would be believed."""
    return {key: value for key, value in annotations.items() if not key.startswith(OURS)}


def _without_process(machine: Machine) -> str:
    """Why one from a bundle, which would wait at its gate, was created without a process."""
    step = machine.last
    if machine.state is not State.CREATED or machine.pid or step is None or step.op is not Op.CREATE:
        return ""
    return str(step.tries.get("gate", ""))


def same_state(one: Machine, other: Machine) -> bool:
    """Whether both have the same document."""
    return _shown(one) == _shown(other)


def _shown(machine: Machine) -> tuple[object, ...]:
    """All that `oci_state` reads of a machine."""
    return (
        machine.id,
        machine.state,
        machine.was,
        machine.pid,
        machine.node,
        machine.vmid,
        machine.backend,
        machine.spec,
        _op(machine),
    )


def _op(machine: Machine) -> str:
    if machine.running is not None:
        return machine.running.op_id
    return machine.done[-1].op_id if machine.done else ""
