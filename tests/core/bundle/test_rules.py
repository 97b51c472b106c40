"""Rules of the specification's text: each is shown by one change of a valid document, and names the place that was changed."""

from __future__ import annotations

import json

import pytest

from nexcage import InvalidBundle, oci
from nexcage._core.bundle_plan.decide import BACKENDS, plan
from nexcage._core.bundle_plan.model import Bundle
from tests.core.bundle.documents import EXAMPLE, MINIMAL, MISSING, put

MAP = {"containerID": 0, "hostID": 1000, "size": 10}
FATAL = [
    # place that is changed, its value, place of the error if it is another one
    ("/ociVersion", MISSING, None),
    ("/ociVersion", "", None),
    ("/ociVersion", "1.0", None),
    ("/ociVersion", "v1.0.0", None),
    ("/ociVersion", "1.0.0\n", None),
    ("/ociVersion", "01.0.0", None),
    ("/ociVersion", "1.0.0-", None),
    ("/ociVersion", "١.0.0", None),
    ("/ociVersion", "2.0.0", None),
    ("/ociVersion", "10.0.0", None),
    ("/ociVersion", f"{'9' * 5000}.0.0", None),
    ("/root", MISSING, None),
    ("/root/path", "", None),
    ("/root/path", MISSING, None),
    ("/process/cwd", "", None),
    ("/process/cwd", "srv", None),
    ("/process/cwd", "./srv", None),
    ("/process/cwd", MISSING, None),
    ("/process/args", [], None),
    ("/process/args/0", 1, None),
    ("/process/args/0", "a\0b", None),
    ("/process/env/0", "PATH", None),
    ("/process/env/0", "=x", None),
    ("/process/env/0", "", None),
    ("/process/user/uid", 2**32, None),
    ("/process/user/uid", -1, None),
    ("/process/user/uid", True, None),
    ("/process/user/uid", 1.0, None),
    ("/process/user/uid", "1", None),
    ("/process/user/uid", None, None),
    ("/process/user/additionalGids/1", 2**32, None),
    ("/process/user/uid", MISSING, None),
    ("/process/user", {"umask": 7}, "/process/user/uid"),
    ("/process/consoleSize", {"height": 70}, "/process/consoleSize/width"),
    ("/process/rlimits/0/type", "RLIMIT_NICENESS", None),
    ("/process/rlimits/0/type", "rlimit_core", None),
    ("/process/rlimits/0/type", "RLIMIT_CORE\n", None),
    ("/process/rlimits/1/type", "RLIMIT_CORE", None),
    ("/process/rlimits/0/soft", 1025, None),
    ("/process/rlimits/0/hard", 2**64, None),
    ("/process/oomScoreAdj", 1001, None),
    ("/process/oomScoreAdj", -1001, None),
    ("/process/oomScoreAdj", -(10**30), None),
    ("/process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "/process/ioPriority/priority"),
    ("/process/ioPriority", {"class": "BE"}, "/process/ioPriority/class"),
    ("/process/ioPriority", {"class": "IOPRIO_CLASS_BE"}, "/process/ioPriority/priority"),
    ("/process/execCPUAffinity", {"initial": "3-1"}, "/process/execCPUAffinity/initial"),
    ("/process/execCPUAffinity", {"final": "1 - - 2"}, "/process/execCPUAffinity/final"),
    ("/mounts/0/destination", "", None),
    ("/mounts/0/destination", MISSING, None),
    ("/mounts/-", {"destination": "/x", "options": ["rbind"]}, "/mounts/7/source"),
    ("/mounts/-", {"destination": "/x", "type": "bind"}, "/mounts/7/source"),
    ("/mounts/0/uidMappings", [MAP], "/mounts/0/gidMappings"),
    ("/hooks/poststop/0/path", "cleanup.sh", None),
    ("/hooks/poststart/0/timeout", 0, None),
    ("/hooks/poststart/0/timeout", -1, None),
    ("/hooks/poststart/0/timeout", 2**63, None),
    ("/hooks/prestart/0/env/0", "key1", None),
    ("/annotations/", "x", None),
    ("/annotations/a~1b~0c", 1, None),
    ("/annotations/a~1b~0c", "x\0", None),
    ("/annotations/a\0b", "x", None),
    ("/linux/namespaces/1/type", "pid", None),
    ("/linux/namespaces/0/type", "pids", None),
    ("/linux/namespaces/0/type", "PID", None),
    ("/linux/namespaces/0/path", "proc/1/ns/pid", None),
    ("/linux/namespaces/0/path", "", None),
    ("/linux/uidMappings/0/size", 2**32 - 1, None),
    ("/linux/uidMappings/-", {"containerID": 5, "hostID": 100000, "size": 1}, "/linux/uidMappings/1/containerID"),
    ("/linux/gidMappings/-", {"containerID": 40000, "hostID": 1001, "size": 1}, "/linux/gidMappings/1/hostID"),
    ("/linux/devices/0/path", "dev/fuse", None),
    ("/linux/devices/0/major", MISSING, None),
    ("/linux/devices/0/minor", -1, None),
    ("/linux/devices/0/fileMode", 512, None),
    ("/linux/devices/1/path", "/dev/fuse", None),
    ("/linux/netDevices", {"eth 0": {}}, "/linux/netDevices/eth 0"),
    ("/linux/netDevices", {"eth0": {"name": "x" * 16}}, "/linux/netDevices/eth0/name"),
    ("/linux/netDevices", {"eth0": {"name": "a"}, "a": {}}, "/linux/netDevices/a"),
    ("/linux/resources/devices/0/type", "x", None),
    ("/linux/resources/devices/0/access", "rx", None),
    ("/linux/resources/devices/1/major", -2, None),
    ("/linux/resources/memory/swap", 536870911, None),
    ("/linux/resources/memory/limit", -2, None),
    ("/linux/resources/memory/limit", 2**63, None),
    ("/linux/resources/memory/swappiness", 101, None),
    ("/linux/resources/cpu/cpus", "2-", None),
    ("/linux/resources/cpu/mems", "٣", None),
    ("/linux/resources/cpu/shares", 2**64, None),
    ("/linux/resources/cpu/idle", 2, None),
    ("/linux/resources/pids/limit", MISSING, None),
    ("/linux/resources/blockIO/throttleReadBpsDevice/0/rate", MISSING, None),
    ("/linux/resources/blockIO/weightDevice/-", {"major": 8, "minor": 1}, "/linux/resources/blockIO/weightDevice/2"),
    ("/linux/resources/network/priorities/0/name", "", None),
    ("/linux/resources/rdma", {"mlx": {}}, "/linux/resources/rdma/mlx"),
    ("/linux/resources/unified", {"../cpu.max": "1"}, "/linux/resources/unified/..~1cpu.max"),
    ("/linux/sysctl/net..x", "1", None),
    ("/linux/sysctl/..~1..~1x", "1", None),
    ("/linux/sysctl/a b", "1", None),
    ("/linux/maskedPaths/0", "proc/kcore", None),
    ("/linux/readonlyPaths/0", "", None),
    ("/linux/rootfsPropagation", "rshared", None),
    ("/linux/seccomp/listenerMetadata", "x", None),
    ("/linux/seccomp/defaultErrnoRet", 1, None),
    ("/linux/seccomp/syscalls/0/action", "SCMP_ACT_DENY", None),
    ("/linux/seccomp/syscalls/0/names", [], None),
    ("/linux/seccomp/syscalls/0/names/0", "", None),
    ("/linux/intelRdt", {"closID": "a/b"}, "/linux/intelRdt/closID"),
    ("/linux/intelRdt", {"schemata": ["MB:0=1\nL3:0=f"]}, "/linux/intelRdt/schemata/0"),
    ("/linux/memoryPolicy", {"nodes": "0"}, "/linux/memoryPolicy/mode"),
    ("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "x"}, "/linux/memoryPolicy/nodes"),
    ("/linux/personality", {}, "/linux/personality/domain"),
    ("/linux/personality", {"domain": "LINUX", "flags": ["x"]}, "/linux/personality/flags/0"),
]
UNTAKEN = [
    # place that is changed, its value, place that is refused if it is another one
    ("/process/user/umask", 0o1000, None),
    ("/process/scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "/process/scheduler/nice"),
    ("/process/scheduler", {"policy": "SCHED_OTHER", "priority": 3}, "/process/scheduler/priority"),
    ("/process/scheduler", {"policy": "SCHED_FIFO", "runtime": 3}, "/process/scheduler/runtime"),
    ("/process/consoleSize", {"height": 70000, "width": 80}, "/process/consoleSize/height"),
    ("/hostname", "x" * 65, None),
    ("/domainname", "x" * 65, None),
    ("/linux/uidMappings", MISSING, "/linux/gidMappings"),
    ("/linux/gidMappings", MISSING, "/linux/uidMappings"),
    ("/linux/uidMappings/0/size", 0, None),
    ("/linux/resources/memory/limit", MISSING, "/linux/resources/memory/swap"),
    ("/linux/resources/memory/limit", -1, "/linux/resources/memory/swap"),
    ("/linux/resources/pids/limit", -2, None),
    ("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY", None),
    ("/linux/seccomp/syscalls/0/action", "SCMP_ACT_NOTIFY", None),
    ("/linux/seccomp/syscalls/0/errnoRet", 4096, None),
    (
        "/linux/seccomp/syscalls/0/args",
        [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}],
        "/linux/seccomp/syscalls/0/args/0/index",
    ),
    ("/linux/timeOffsets/boottime/nanosecs", 10**9, None),
]
WARNED = [
    ("/ociVersion", "1.4.0", None, "newer"),
    ("/ociVersion", "0.1.0", None, "older"),
    ("/root/path", "../elsewhere", None, "out of the bundle"),
    ("/root/path", "a/../../b", None, "out of the bundle"),
    ("/mounts/0/destination", "proc", None, "deprecated"),
    ("/process/env/-", "TERM=dumb", "/process/env/2", "second time"),
    ("/process/capabilities/bounding/0", "CAP_FLY", None, "CAP_FLY"),
    ("/process/capabilities/bounding/0", "cap_chown", None, "cap_chown"),
    ("/process/capabilities/effective/-", "CAP_CHOWN", "/process/capabilities/effective", "CAP_CHOWN"),
    ("/linux/namespaces/5", MISSING, "/linux/uidMappings", "user namespace"),
    ("/linux/namespaces/7", MISSING, "/linux/timeOffsets", "time namespace"),
    ("/linux/resources/memory/reservation", 2**40, None, "more than"),
    (
        "/linux/devices/-",
        {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
        "/linux/devices/2/path",
        "already",
    ),
]
FINE = [
    ("/ociVersion", "1.0.0-rc5+dirty.1"),
    ("/ociVersion", "1.3.9"),
    ("/root/path", "/var/lib/x"),
    ("/root/path", "a/../rootfs"),
    ("/process", MISSING),
    ("/process/args", ["", "a b", "q\"'", "line\nbreak", "-x"]),
    ("/process/env/0", "A=b=c\nd"),
    ("/process/rlimits/0/hard", 2**64 - 1),
    ("/process/user/umask", 0o777),
    ("/process/oomScoreAdj", -1000),
    ("/hostname", ""),
    ("/annotations/org.opencontainers.unknown", "kept"),
    ("/linux/resources/pids/limit", -1),
    ("/linux/resources/pids/limit", 0),
    ("/linux/resources/memory/swap", -1),
    ("/linux/resources/cpu/cpus", "0-3,7, 9"),
    ("/linux/resources/cpu/shares", 2**64 - 1),
    ("/linux/resources/devices/0/access", ""),
    ("/linux/sysctl/net~1ipv4~1conf~1eth0.100~1forwarding", "1"),
    ("/unknown", {"deep": [None, 1e300, -0.0]}),
    ("/linux/resources/memory/unknown", None),
    ("/process/unknown", 10**30),
]


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def valid() -> dict[str, object]:
    return put(EXAMPLE, "/ociVersion", "1.3.0")


def ids(cases: list) -> list[str]:
    return [f"{number}-{case[0]}"[:60] for number, case in enumerate(cases)]


@pytest.mark.parametrize(("pointer", "value", "place"), FATAL, ids=ids(FATAL))
def test_what_the_specification_forbids_is_an_error_at_its_place(pointer, value, place):
    with pytest.raises(InvalidBundle) as caught:
        oci.decode_config(text(put(valid(), pointer, value)))

    assert caught.value.pointer == (place or pointer)
    assert caught.value.reason
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("pointer", "value", "place"), UNTAKEN, ids=ids(UNTAKEN))
def test_what_only_a_kernel_refuses_makes_no_document_invalid(pointer, value, place):
    decoded = oci.decode_config(text(put(valid(), pointer, value)))

    assert [note.pointer for note in decoded.untaken] == [place or pointer]
    assert decoded.untaken[0].reason


@pytest.mark.parametrize(("pointer", "value", "place"), UNTAKEN, ids=ids(UNTAKEN))
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_only_a_kernel_refuses_is_refused_by_every_plan(pointer, value, place, backend):
    made = plan(text(put(valid(), pointer, value)), Bundle("/srv/bundle"), backend=backend)

    assert made.error is None
    assert any(f"{place or pointer}/".startswith(f"{one.pointer}/") for one in made.refused)


@pytest.mark.parametrize(("pointer", "value", "place", "words"), WARNED, ids=ids(WARNED))
def test_what_is_odd_is_a_warning_at_its_place(pointer, value, place, words):
    warnings = oci.decode_config(text(put(valid(), pointer, value))).warnings

    assert [note.pointer for note in warnings] == [place or pointer]
    assert words in str(warnings[0])


@pytest.mark.parametrize(("pointer", "value"), FINE, ids=ids(FINE))
def test_what_the_specification_allows_is_silent(pointer, value):
    assert oci.decode_config(text(put(valid(), pointer, value))).warnings == ()


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_a_mount_is_mapped_only_where_there_is_a_mapping(option):
    mount = {"destination": "/data", "source": "/srv", "options": ["bind", option]}
    alone = {**MINIMAL, "mounts": [mount]}
    of_its_own = {**MINIMAL, "mounts": [{**mount, "uidMappings": [MAP], "gidMappings": [MAP]}]}
    of_the_container = {**alone, "linux": {"namespaces": [{"type": "user"}]}}

    with pytest.raises(InvalidBundle) as caught:
        oci.decode_config(text(alone))

    assert caught.value.pointer == "/mounts/0/options/1"
    assert oci.decode_config(text(of_its_own)).warnings == ()
    assert oci.decode_config(text(of_the_container)).warnings == ()


def test_a_document_for_windows_needs_no_root_and_has_paths_of_its_own():
    document = {"ociVersion": "1.3.0", "process": {"cwd": "C:\\"}, "windows": {"layerFolders": ["C:\\layer"]}}

    assert oci.decode_config(text(document)).document.windows


def test_one_error_tells_of_the_others():
    document = put(put(valid(), "/process/cwd", "x"), "/linux/maskedPaths/0", "y")

    with pytest.raises(InvalidBundle) as caught:
        oci.decode_config(text(document))

    assert caught.value.pointer == "/process/cwd"
    assert "/linux/maskedPaths/0" in caught.value.__notes__[0]


@pytest.mark.parametrize(("count", "said"), [(50, "and 41 more"), (1000, "and more")])
def test_many_errors_are_not_as_many_notes(count, said):
    with pytest.raises(InvalidBundle) as caught:
        oci.decode_config(text({**MINIMAL, "linux": {"maskedPaths": ["x"] * count}}))

    assert len(caught.value.__notes__) == 9
    assert caught.value.__notes__[-1] == said


def test_a_thousand_warnings_are_counted_and_hide_no_error():
    document = {**MINIMAL, "process": {"cwd": "/", "env": ["A=1"] * 1001}}

    warnings = oci.decode_config(text(document)).warnings

    assert (len(warnings), str(warnings[-1])) == (101, "and 900 warnings more")
    with pytest.raises(InvalidBundle):
        oci.decode_config(text({**document, "linux": {"maskedPaths": ["x"]}}))


@pytest.mark.parametrize(
    ("decode", "document", "pointer"),
    [
        (oci.decode_process, {"cwd": "x", "args": ["a"]}, "/cwd"),
        (oci.decode_process, {"args": ["a"]}, "/cwd"),
        (oci.decode_process, {"cwd": "/", "env": ["a"]}, "/env/0"),
        (oci.decode_process, {"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0, "umask": 512}}, "/user/umask"),
        (oci.decode_resources, {"memory": {"limit": 2, "swap": 1}}, "/memory/swap"),
        (oci.decode_resources, {"pids": {"limit": -2}}, "/pids/limit"),
        (oci.decode_resources, {"unified": {"a/b": "1"}}, "/unified/a~1b"),
        (oci.decode_state, {"ociVersion": "1.0.0", "id": "a", "status": "running", "bundle": "/b"}, "/pid"),
        (oci.decode_state, {"ociVersion": "1.0.0", "id": "", "status": "stopped", "bundle": "/b"}, "/id"),
        (oci.decode_state, {"ociVersion": "1.0.0", "id": "a", "status": "stopped", "bundle": "b"}, "/bundle"),
        (oci.decode_state, {"ociVersion": "1.0.0", "id": "a", "status": "stopped", "bundle": "/b", "pid": -1}, "/pid"),
        (oci.decode_features, {"ociVersionMin": "1.0.0"}, "/ociVersionMax"),
        (oci.decode_features, {"ociVersionMin": "1.0.0", "ociVersionMax": "3"}, "/ociVersionMax"),
        (
            oci.decode_features,
            {"ociVersionMin": "1.0.0", "ociVersionMax": "1.0.0", "linux": {"cgroup": {"v1": 1}}},
            "/linux/cgroup/v1",
        ),
    ],
)
def test_other_documents_have_rules_too(decode, document, pointer):
    with pytest.raises(InvalidBundle) as caught:
        decode(text(document))

    assert caught.value.pointer == pointer


def test_a_status_of_a_runtimes_own_is_only_noted():
    document = {"ociVersion": "1.0.0", "id": "a", "status": "frozen", "bundle": "/b"}

    assert [note.pointer for note in oci.decode_state(text(document)).warnings] == ["/status"]


def test_null_in_features_is_not_known_and_empty_is_known_to_be_missing():
    document = {"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "hooks": [], "linux": {"cgroup": None}}

    features = oci.decode_features(text(document)).document

    assert features.hooks == ()
    assert features.mount_options is None
    assert features.linux
    assert features.linux.cgroup is None
