"""``nexcage list``, ``state`` and ``route``: what is so."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from nexcage import OCI_VERSION, NexcageError, NotFound, OciState, Selector, Spec, names
from nexcage._cli.dialects import Targets, is_term, oci_id, targets
from nexcage._cli.finding import backend_named, foreign, ids_of, of_backend
from nexcage._cli.main import tell
from nexcage._cli.oci_documents import as_listed, as_state, table
from nexcage._cli.parser import Call
from nexcage._cli.render import as_json, print_rows
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet, Guest, Look, Machine

__all__ = ["prepare_list", "prepare_route", "prepare_state"]

Row = Mapping[str, Any]  # Any: whatever JSON can say
_LIST = ("id", "state", "pid", "vmid", "node", "backend", "addresses", "image", "tags")
_STATE = ("id", "status", "pid", "node", "vmid", "backend", "bundle")
_STALE = "org.nexcage.stale"


# ---- list ------------------------------------------------------------------------------------------------------------------


def prepare_list(call: Call, streams: Streams) -> Verb:
    """All containers of the fleet, looked at; those of nodes that are away are stale and the exit status is theirs."""
    for word in call.words:
        if not is_term(word):
            raise call.usage(f"does not take the word {word!a}", f"id={ascii(word)[1:-1]}")
    selector = Selector.parse(" ".join((*call.many("selector"), *call.words)))
    output = call.text("output") or ("name" if call.flag("quiet") else call.text("format") or "table")

    async def verb(fleet: Fleet) -> int:
        backend = None if call.text("runtime") is None else backend_named(fleet, call.text("runtime") or "")
        states, looks = await _look_everywhere(fleet, backend)
        at = await _addresses(fleet, states.values())
        rows: list[Row] = [
            {**_row(fleet.machines[id], state), "addresses": list(at.get(id, ()))}
            for id, state in sorted(states.items())
            if fleet.machines[id].node in fleet.nodes  # the journal may know more nodes than --hosts named
            and selector.matches(fleet.machines[id])
            and backend in (None, fleet.machines[id].backend)
        ]
        if call.flag("all_guests"):
            rows += _foreign(fleet, looks, backend)
        if call.oci:
            _print_oci_list(streams, [as_listed(states[row["id"]], fleet.machines[row["id"]]) for row in rows], output)
        else:
            columns = (*_LIST, "managed") if call.flag("all_guests") else _LIST
            if rows or output != "table" or not all(isinstance(look, NexcageError) for look in looks.values()):
                print_rows(streams, rows, output, columns)
        return _away(call, streams, looks)

    return verb


async def _look_everywhere(
    fleet: Fleet, backend: str | None
) -> tuple[dict[str, OciState], dict[str, Look | NexcageError]]:
    states: dict[str, OciState] = {}
    looks: dict[str, Look | NexcageError] = {}

    async def all_states() -> None:
        await fleet.refresh()
        wanted = [container.id for container in fleet if backend in (None, container.machine.backend)]
        states.update(await fleet.states(*wanted) if wanted else {})

    async def all_nodes() -> None:
        looks.update(await fleet.look(backend=backend))

    async with anyio.create_task_group() as tasks:  # at the same time, so that both share one look per node
        tasks.start_soon(all_states)
        tasks.start_soon(all_nodes)
    return states, looks


async def _addresses(fleet: Fleet, states: Iterable[OciState]) -> Mapping[str, tuple[str, ...]]:
    """Where those are reached that run and were seen. An answer that does not come is no reason to show nothing else."""
    ids = [state.id for state in states if state.pid and _STALE not in state.annotations]
    try:
        found = await fleet.addresses(*ids) if ids else {}
    except NexcageError:
        return {}
    return {id: one.addresses for id, one in found.items() if one.addresses}


def _row(machine: Machine, state: OciState) -> Row:
    spec = machine.spec
    return {
        "id": machine.id,
        "state": str(machine.state),
        "status": state.status,
        "pid": state.pid,
        "vmid": int(state.annotations.get("org.nexcage.vmid", "0")),
        "node": machine.node,
        "backend": machine.backend,
        "image": spec.image if spec else "",
        "tags": list(spec.tags) if spec else [],
        "bundle": state.bundle,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(machine.created_at)) if machine.created_at else "",
        "managed": True,
        "stale": _STALE in state.annotations,
    }


def _foreign(fleet: Fleet, looks: Mapping[str, Look | NexcageError], backend: str | None) -> list[Row]:
    ours = {(machine.node, machine.vmid) for machine in fleet.machines.values() if machine.vmid}
    rows: list[Row] = []
    for node, look in sorted(looks.items()):
        if isinstance(look, NexcageError):
            continue
        for vmid, guest in sorted(look.guests.items()):
            if (node, vmid) not in ours and backend in (None, guest.kind):
                rows.append(_foreign_row(node, guest))
    return rows


def _foreign_row(node: str, guest: Guest) -> Row:
    state = "paused" if guest.running and guest.frozen else "running" if guest.running else "stopped"
    return {
        "id": guest.name or str(guest.vmid),
        "state": state,
        "status": state,
        "pid": guest.pid,
        "vmid": guest.vmid,
        "node": node,
        "backend": guest.kind,
        "addresses": [],
        "image": "",
        "tags": list(guest.tags),
        "bundle": f"/var/lib/lxc/{guest.vmid}" if guest.kind == "lxc" else "/etc/pve/qemu-server",
        "created": "",
        "managed": False,
        "stale": False,
    }


def _away(call: Call, streams: Streams, looks: Mapping[str, Look | NexcageError]) -> int:
    """Tell which nodes could not be seen; the exit status is 3 then (1 for an engine)."""
    failed = [look for look in looks.values() if isinstance(look, NexcageError)]
    for error in failed:
        tell(call, error, streams)
    return (1 if call.oci else 3) if failed else 0


def _print_oci_list(streams: Streams, entries: Sequence[Row], output: str) -> None:
    if output == "json":
        streams.line(as_json(streams, entries or None))  # runc says null
    elif output == "name":
        print_rows(streams, entries, output, ("id",))
    else:
        for line in table(entries):
            streams.line(line)


# ---- state -----------------------------------------------------------------------------------------------------------------


def prepare_state(call: Call, streams: Streams) -> Verb:
    """OCI JSON of each id or VMID, or of what a selector matches; also of containers that are not managed, by VMID."""
    wanted = Targets((oci_id(call, call.words),)) if call.oci else targets(call)
    for word in wanted.words:
        names.container_id(word)
    if wanted.selector is not None:
        Selector.parse(wanted.selector)

    async def verb(fleet: Fleet) -> int:
        if wanted.selector is None:
            ids = [of_backend(fleet, await fleet.find(word), call.text("runtime")) for word in wanted.words]
        else:
            ids = await ids_of(fleet, wanted, call.text("runtime"))
        answers, looks = await _look_at(fleet, ids)
        for index, word in enumerate(wanted.words):
            if isinstance(answers[index], NotFound):
                answers[index] = await _foreign_state(fleet, word) or answers[index]
        documents = [answer for answer in answers if isinstance(answer, OciState)]
        at = await _addresses(fleet, documents)
        documents = [_located(document, at.get(document.id, ())) for document in documents]
        errors = [answer for answer in answers if isinstance(answer, NexcageError)]
        if documents or wanted.selector is not None:
            if call.oci:
                _print_oci_state(streams, fleet, documents[0])
            else:
                _print_states(call, streams, documents, single=len(wanted.words) == 1)
        statuses = [tell(call, error, streams) for error in errors]
        stale = [document.id for document in documents if _STALE in document.annotations]
        if stale:
            statuses.append(_away(call, streams, looks) or (1 if call.oci else 3))
        for id in stale:
            streams.say(f"nexcage: state: container '{id}' could not be looked at; this is the last record")
        return statuses[0] if statuses else 0

    return verb


def _located(document: OciState, addresses: Sequence[str]) -> OciState:
    if not addresses:
        return document
    known = {**document.annotations, "org.nexcage.addresses": ",".join(addresses)}
    return msgspec.structs.replace(document, annotations=known)


async def _look_at(
    fleet: Fleet, ids: Sequence[str]
) -> tuple[list[OciState | NexcageError], dict[str, Look | NexcageError]]:
    """The state of each, or its error; and what their nodes answered, or theirs."""
    answers: dict[str, OciState | NexcageError] = {}
    looks: dict[str, Look | NexcageError] = {}
    nodes = {fleet[id].machine.node for id in ids} & set(fleet.nodes)

    async def one(id: str) -> None:
        try:
            answers[id] = await fleet[id].state()
        except NexcageError as error:
            answers[id] = error

    async def all_nodes() -> None:
        if nodes:
            looks.update(await fleet.look(*nodes))

    async with anyio.create_task_group() as tasks:  # at the same time, so that all share one look per node
        tasks.start_soon(all_nodes)
        for id in ids:
            tasks.start_soon(one, id)
    return [answers[id] for id in ids], looks


async def _foreign_state(fleet: Fleet, word: str) -> OciState | None:
    """What the nodes show of a VMID that nobody manages here."""
    found = await foreign(fleet, word)
    if found is None:
        return None
    node, guest = found
    row = _foreign_row(node, guest)
    notes = {"node": node, "vmid": word, "backend": guest.kind, "managed": "false", "name": guest.name}
    annotations = {f"org.nexcage.{key}": value for key, value in notes.items() if value}
    return OciState(
        ociVersion=OCI_VERSION,
        id=word,
        status=row["status"],
        pid=guest.pid,
        bundle=row["bundle"],
        annotations=annotations,
    )


def _print_oci_state(streams: Streams, fleet: Fleet, document: OciState) -> None:
    machine = fleet.machines.get(document.id)
    plain = msgspec.to_builtins(document) if machine is None else as_state(document, machine)
    streams.write(as_json(streams, plain, indent=2))  # runc prints no newline behind it


def _print_states(call: Call, streams: Streams, documents: Sequence[OciState], *, single: bool) -> None:
    output = call.text("output") or "json"
    plain: list[Row] = [msgspec.to_builtins(document) for document in documents]
    if output == "json":
        streams.line(as_json(streams, plain[0] if single else plain, indent=2))
        return
    rows = plain
    if output == "table":
        noted = ("node", "vmid", "backend")
        rows = [{**row, **{key: row["annotations"].get(f"org.nexcage.{key}", "") for key in noted}} for row in plain]
    print_rows(streams, rows, output, _STATE)


# ---- route -----------------------------------------------------------------------------------------------------------------


def prepare_route(call: Call, streams: Streams) -> Verb:
    """Where a create would go, and why; nothing is contacted."""
    named = call.text("name")
    words = call.words if named is None else (named, *call.words)
    if len(words) != 1:
        raise call.usage("takes one id", "nexcage route ID --image IMAGE")
    id = names.container_id(words[0])
    fields: dict[str, Any] = {"tags": tuple(names.tag(tag) for tag in call.many("tag"))}  # Any: the keywords of Spec
    if (node := call.text("node")) is not None:
        fields["node"] = node
    if (backend := call.text("runtime")) is not None:
        fields["backend"] = backend
    image = call.text("image")
    spec = Spec(image=image or "local:vztmpl/any.tar.zst", **fields)

    async def verb(fleet: Fleet) -> int:
        plan = fleet.route(id, spec)
        row = {"id": id, "backend": plan.backend, "nodes": list(plan.nodes), "image": plan.spec.image if image else ""}
        output = call.text("output") or "text"
        if output != "text":
            print_rows(streams, [{**row, "why": list(plan.why)}], output, ("id", "backend", "nodes", "image"))
            return 0
        streams.line(
            f"{id}: backend {plan.backend}, on {_places(plan.nodes)}" + (f", from {plan.spec.image}" if image else "")
        )
        for reason in plan.why:
            streams.line(f"  {reason}")
        return 0

    return verb


def _places(nodes: Sequence[str]) -> str:
    shown = ", ".join(nodes[:8]) + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")
    return shown if len(nodes) == 1 else f"one of {shown}"
