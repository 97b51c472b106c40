"""``state.json``: valid by the specification's own schema in every state, and never a pid without a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from nexcage import OCI_VERSION, Machine, Spec, State
from nexcage._core.events import Began
from nexcage._core.oci import oci_state, oci_status, same_state, theirs
from nexcage._core.states import OBSERVABLE

OCI = Path(__file__).parent.parent / "data" / "oci"
SPEC = Spec("debian-12.tar.zst", annotations={"a": "b", "org.nexcage.node": "a liar"})


def checker() -> jsonschema.Draft4Validator:
    schema: dict[str, Any] = json.loads((OCI / "state-schema.json").read_text())
    # The specification says that other values than these are allowed (runtime-spec, State); `paused` is ours.
    schema["properties"]["status"]["enum"].append("paused")
    defs = Resource.from_contents(json.loads((OCI / "defs.json").read_text()), default_specification=DRAFT4)
    return jsonschema.Draft4Validator(schema, registry=Registry().with_resource("defs.json", defs))


CHECKER = checker()
MACHINES = [
    Machine("web-1", state=state, was=was, pid=pid, node="pve-01", vmid=104, backend="lxc", spec=spec, seq=7)
    for state in State
    for was in OBSERVABLE
    for pid in (0, 8123)
    for spec in (None, SPEC)
]


@pytest.mark.parametrize("state", State)
def test_every_state_gives_a_document_that_fits_the_schema(state: State) -> None:
    for machine in MACHINES:
        if machine.state is state:
            for stale in (False, True):
                document = json.loads(msgspec.json.encode(oci_state(machine, run_dir="/run/nexcage", stale=stale)))
                CHECKER.validate(document)
                assert document["ociVersion"] == OCI_VERSION
                assert list(document)[:5] == ["ociVersion", "id", "status", "pid", "bundle"]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("creating", "creating"), ("created", "created"), ("starting", "created"), ("running", "running"), ("pausing", "running"),
        ("stopping", "running"), ("paused", "paused"), ("resuming", "paused"), ("stopped", "stopped"), ("deleting", "stopped"),
        ("absent", "stopped"),
    ],
)  # fmt: skip
def test_the_word_for_each_state(state: str, status: str) -> None:
    assert oci_status(Machine("web-1", state=State(state), was=State.STOPPED)) == status


@pytest.mark.parametrize(
    ("was", "status"),
    [
        ("absent", "creating"),
        ("created", "created"),
        ("running", "running"),
        ("paused", "paused"),
        ("stopped", "stopped"),
    ],
)
def test_what_nobody_knows_is_what_was_true_last_and_says_so(was: str, status: str) -> None:
    machine = Machine("web-1", state=State.UNKNOWN, was=State(was), pid=8123)
    document = oci_state(machine, run_dir="/run/nexcage")
    assert document.status == status
    assert document.annotations["org.nexcage.state"] == "unknown"


def test_a_running_container_that_is_being_deleted_runs_until_it_is_gone() -> None:
    machine = Machine("web-1", state=State.DELETING, was=State.RUNNING, pid=8123)
    document = oci_state(machine, run_dir="/run/nexcage")
    assert (document.status, document.pid) == ("running", 8123)


def test_a_pid_is_shown_only_where_there_is_a_process() -> None:
    for machine in MACHINES:
        document = oci_state(machine, run_dir="/run/nexcage")
        if document.status in ("creating", "stopped"):
            assert document.pid == 0, machine.state


def test_a_created_container_has_the_pid_of_a_process_that_waits() -> None:
    for state in (State.CREATED, State.STARTING):
        assert oci_state(Machine("a", state=state, pid=8123), run_dir="/run").pid == 8123
        assert oci_state(Machine("a", state=state), run_dir="/run").pid == 0


def test_a_container_of_a_runtime_has_no_number_to_show() -> None:
    for backend, shown in (("crun", None), ("runc", None), ("lxc", "104")):
        document = oci_state(Machine("a", state=State.RUNNING, backend=backend, vmid=104), run_dir="/run")
        assert document.annotations.get("org.nexcage.vmid") == shown


def test_the_bundle_is_absolute_and_never_missing() -> None:
    assert oci_state(Machine("a"), run_dir="/run/nexcage/").bundle == "/run/nexcage/a"
    assert oci_state(Machine("a", spec=Spec("x.tar", bundle="/b")), run_dir="/run").bundle == "/b"


def test_annotations_are_the_users_and_ours_and_ours_cannot_be_forged() -> None:
    machine = next(m for m in MACHINES if m.state is State.RUNNING and m.spec)
    found = dict(oci_state(machine, run_dir="/run").annotations)
    assert found == {
        "a": "b", "org.nexcage.node": "pve-01", "org.nexcage.vmid": "104", "org.nexcage.backend": "lxc",
        "org.nexcage.image": "debian-12.tar.zst", "org.nexcage.state": "running",
    }  # fmt: skip
    assert oci_state(machine, run_dir="/run", stale=True).annotations["org.nexcage.stale"] == "true"


def test_the_operation_under_way_is_named() -> None:
    machine = Machine("web-1")
    began: Began = machine.begin(_create(), op_id="op-1")
    assert oci_state(machine.apply(began), run_dir="/run").annotations["org.nexcage.op"] == "op-1"


def test_machines_that_show_the_same_have_equal_documents() -> None:
    some = MACHINES[::5]
    changes: list[dict[str, Any]] = [
        {"node": "pve-02"}, {"vmid": 105}, {"backend": "vm"}, {"seq": 8, "steps": 3, "at": 9.0}, {"ran": True},
        {"running": Machine("web-1").begin(_create(), op_id="op-1")}, {"id": "web-2"},
    ]  # fmt: skip
    for one in some:
        for other in [*some, *(msgspec.structs.replace(one, **change) for change in changes)]:
            if same_state(one, other):
                assert oci_state(one, run_dir="/run") == oci_state(other, run_dir="/run")
    for change, alike in zip(changes, (False, False, False, True, True, False, False), strict=True):
        assert same_state(some[0], msgspec.structs.replace(some[0], **change)) is alike


def _create() -> Any:
    from nexcage import Create

    return Create("web-1", SPEC)


def test_of_a_bundle_no_annotation_is_taken_that_looks_like_ours() -> None:
    assert theirs({"org.nexcage.stale": "true", "org.nexcagex": "a", "com.example.k": "v"}) == {
        "org.nexcagex": "a",
        "com.example.k": "v",
    }
