"""Single properties on lxc, crun and runc: the values where a plain copy would be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nexcage._core.bundle_plan.decide import plan
from nexcage._core.bundle_plan.model import Bundle, BundlePlan
from nexcage._core.bundle_plan.runtimes import Runtime
from nexcage._core.bundle_plan.weights import weight
from nexcage._core.spec import Spec

NEW = ("pid", "network", "ipc", "uts", "mount", "cgroup")
MAPPED = (*NEW, "user")
Json = dict[str, Any]  # Any: whatever JSON can say


def planned(backend: str = "lxc", runtime: Runtime | None = None, **more: object) -> BundlePlan:
    document = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sh"]}} | more
    made = plan(json.dumps(document).encode(), Bundle("/srv/b"), backend=backend, runtime=runtime)
    assert made.error is None, made.error
    return made


def resources(**given: object) -> BundlePlan:
    return planned(linux={"resources": given})


@pytest.mark.parametrize(("shares", "units"), [(2, 1), (1024, 100), (262144, 10000), (512, 59), (2048, 174)])
def test_shares_become_the_weight_that_runc_and_crun_give(shares: int, units: int) -> None:
    assert weight(shares) == units


def test_swap_is_what_is_left_of_memory_plus_swap() -> None:
    made = resources(memory={"limit": 512 << 20, "swap": 768 << 20})

    assert dict(made.options)["memory"] == "512"
    assert dict(made.options)["swap"] == "256"


def test_memory_is_rounded_up_to_mebibytes_and_says_so() -> None:
    made = resources(memory={"limit": (64 << 20) + 1})

    assert dict(made.options)["memory"] == "65"
    assert any("become 65 MiB" in one.how for one in made.approximated)


def test_a_quota_of_another_period_is_exact_at_start_and_seen_by_pve() -> None:
    made = resources(cpu={"quota": 1_000_000, "period": 500_000})

    assert dict(made.options)["cpulimit"] == "2"
    assert ("lxc.cgroup2.cpu.max", "1000000 500000") in made.raw


def test_blanks_commas_and_newlines_of_a_mount_stay_in_their_field() -> None:
    made = planned(mounts=[{"destination": "/a b,c", "source": "/s\nx", "type": "bind", "options": ["bind", "ro"]}])

    assert ("lxc.mount.entry", "/s\\012x a\\040b,c none bind,ro,create=dir 0 0") in made.raw


def test_mounts_keep_their_order_and_what_lxc_mounts_is_not_mounted_twice() -> None:
    kinds = [("/proc", "proc"), ("/tmp", "tmpfs"), ("/sys", "sysfs"), ("/tmp/x", "tmpfs")]
    made = planned(mounts=[{"destination": place, "source": kind, "type": kind} for place, kind in kinds])

    entries = [value.split()[1] for key, value in made.raw if key == "lxc.mount.entry"]
    assert entries == ["tmp", "tmp/x"]


def test_an_argv_reaches_the_shim_byte_for_byte() -> None:
    argv = ["", "two words", "'\"", "a\nb", "é"]
    made = planned(process={"cwd": "/w", "args": argv, "env": ["A= x\ny"], "noNewPrivileges": True})

    assert made.launch is not None
    assert made.launch.argv == tuple(word.encode() for word in argv)
    assert (made.launch.env, made.launch.cwd, made.launch.no_new_privs) == ((b"A= x\ny",), b"/w", True)


def test_capabilities_are_exact_by_the_shim_and_lxcs_own_drops_are_emptied_first() -> None:
    made = planned(process={"cwd": "/", "args": ["x"], "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"]}})

    keys = [line for line in made.raw if line[0].startswith("lxc.cap")]
    assert keys == [("lxc.cap.drop", ""), ("lxc.cap.keep", "chown kill setgid setpcap setuid")]
    assert made.launch is not None
    assert made.launch.capabilities == (0b100001, 0, 0, 0, 0)


def test_a_seccomp_profile_becomes_the_same_policy() -> None:
    masked = {"index": 1, "value": 15, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}
    rules = [
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["clone"], "action": "SCMP_ACT_KILL", "args": [masked]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
    ]
    made = planned(linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}})

    assert made.seccomp == "2\ndenylist allow\n[all]\nchmod errno 13\nclone kill [1,3,SCMP_CMP_MASKED_EQ,15]\n"
    assert ("lxc.seccomp.profile", "/d/seccomp") in made.lines("/d")


def test_a_filter_under_which_nothing_could_start_is_refused() -> None:
    made = planned(linux={"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}})

    assert [one.pointer for one in made.refused] == ["/linux/seccomp/defaultAction"]
    assert "sendto" in made.refused[0].reason


def test_a_kernel_parameter_of_the_whole_node_is_refused_and_others_cannot_leave_their_quotes() -> None:
    made = planned(linux={"sysctl": {"kernel.panic": "1", "net.core.somaxconn": "1' ; reboot '"}})

    assert [one.pointer for one in made.refused] == ["/linux/sysctl/kernel.panic"]
    assert made.include[0][1].endswith("net/core/somaxconn '1'\\'' ; reboot '\\'''")


@pytest.mark.parametrize(("host", "pointers"), [(100000, []), (1000, ["/linux/uidMappings/0", "/linux/gidMappings/0"])])
def test_only_the_map_that_pct_unpacks_for_is_taken(host: int, pointers: list[str]) -> None:
    mapping = [{"containerID": 0, "hostID": host, "size": 65536}]
    made = planned(linux={"namespaces": ALL, "uidMappings": mapping, "gidMappings": mapping})

    assert dict(made.options)["unprivileged"] == "1"
    assert [one.pointer for one in made.refused] == pointers


ALL = [{"type": kind} for kind in ("mount", "pid", "network", "uts", "ipc", "cgroup", "user")]


@pytest.mark.parametrize(
    ("backend", "version", "refused"),
    [
        ("runc", "", True),
        ("runc", "1.2.0", False),
        ("crun", "", False),
        ("crun", "1.6", True),
        ("runc", "1.1.5+ds1", True),
    ],
)
def test_what_a_version_would_drop_without_a_word_is_refused(backend: str, version: str, refused: bool) -> None:
    made = planned(backend, Runtime(backend, version), domainname="x.test")

    assert [one.pointer for one in made.refused] == (["/domainname"] if refused else [])


@pytest.mark.parametrize("name", ["Linux", "LINUX"])
def test_a_property_that_differs_by_case_only_is_ignored_except_by_runc(name: str) -> None:
    other: Json = {name: {}}
    made = {backend: planned(backend, linux={}, **other) for backend in ("lxc", "crun", "runc")}

    for backend in ("lxc", "crun"):
        assert made[backend].accepted
        assert any(text.startswith(f"/{name}: ") for text in made[backend].warnings)
    assert [one.pointer for one in made["runc"].refused] == [f"/{name}"]
    assert "in any case" in made["runc"].refused[0].reason


def test_a_container_without_a_user_namespace_is_privileged_and_the_plan_warns() -> None:
    made = {kinds: planned(linux={"namespaces": [{"type": kind} for kind in kinds]}) for kinds in (NEW, MAPPED)}

    assert dict(made[NEW].options)["unprivileged"] == "0"
    assert [text for text in made[NEW].warnings if "privileged" in text]
    assert dict(made[MAPPED].options)["unprivileged"] == "1"
    assert not [text for text in made[MAPPED].warnings if "privileged" in text]


@pytest.mark.parametrize(("memory", "told"), [({}, True), ({"swap": 0}, True), ({"swap": 64 << 20}, False)])
def test_a_memory_limit_says_what_swap_comes_with_it(memory: dict[str, int], told: bool) -> None:
    made = resources(memory={"limit": 64 << 20, **memory})
    default = dict(zip(reversed(Spec.__struct_fields__), reversed(Spec.__struct_defaults__), strict=False))["swap"]

    (how,) = [one.how for one in made.approximated if one.pointer == "/linux/resources/memory/limit"]
    assert (f"swap: {default} MiB" in how) is told
    assert ("swap" in dict(made.options)) is not told


@pytest.mark.parametrize("kinds", [(), ("pid",), NEW[1:]])
def test_a_list_of_namespaces_that_leaves_one_out_is_refused_as_a_whole(kinds: tuple[str, ...]) -> None:
    made = planned(linux={"namespaces": [{"type": kind} for kind in kinds]})

    assert [one.pointer for one in made.refused] == ["/linux/namespaces"]
    assert all(kind in made.refused[0].reason for kind in {*NEW} - {*kinds} - {"cgroup"})


@pytest.mark.parametrize("more", [{}, {"linux": {}}])
def test_a_document_without_a_list_of_namespaces_gets_new_ones_and_a_warning(more: Json) -> None:
    made = planned(**more)

    assert made.accepted
    assert any("no namespaces are listed" in text for text in made.warnings)


@pytest.mark.parametrize("backend", ["lxc", "crun", "runc"])
@pytest.mark.parametrize("more", [{}, {"source": "/etc"}, {"type": "none", "options": ["shared"]}, {"type": "a b"}])
def test_a_mount_that_no_kernel_can_make_is_refused(more: Json, backend: str) -> None:
    made = planned(backend, mounts=[{"destination": "/x", **more}])

    assert [one.pointer for one in made.refused] == ["/mounts/0"]
    assert "lxc.mount.entry" not in dict(made.raw)


def test_a_file_system_that_is_not_usual_is_a_warning() -> None:
    made = planned(mounts=[{"destination": f"/{kind}", "type": kind, "source": "x"} for kind in ("tmpfs", "lustre")])

    assert made.accepted
    assert [text for text in made.warnings if text.startswith("/mounts/1/type") and "lustre" in text]
    assert not [text for text in made.warnings if text.startswith("/mounts/0")]


@pytest.mark.parametrize(("options", "place"), [(["ro"], "/mounts/0"), (["ro", "rro"], "/mounts/0/source")])
def test_a_bind_source_that_climbs_out_of_the_bundle_names_the_path_of_the_node(options: list[str], place: str) -> None:
    made = planned(mounts=[{"destination": "/x", "type": "bind", "source": "../../etc", "options": options}])

    (how,) = [one.how for one in made.approximated if one.pointer == place]
    assert "'/etc' of the node" in how
    assert any(text.startswith("/mounts/0/source: ") for text in made.warnings)


@pytest.mark.parametrize("backend", ["crun", "runc"])
def test_a_flaw_in_a_section_is_refused_alone_and_at_the_place_of_lxc(backend: str) -> None:
    rules = [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": number} for number in (5000, 1)]
    notify = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
    more: Json = {
        "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 1, "gid": 2, "umask": 512}},
        "linux": {
            "resources": {"pids": {"limit": -2}, "cpu": {"quota": 5, "shares": 2}},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [*rules, notify]},
        },
    }
    made = planned(backend, **more)
    refused = {one.pointer for one in made.refused}
    others = {one.pointer for one in made.applied} | {one.pointer for one in made.approximated}

    assert refused == {one.pointer for one in planned(**more).refused}
    assert refused == {
        "/process/user/umask",
        "/linux/resources/pids/limit",
        "/linux/resources/cpu/quota",
        "/linux/seccomp/syscalls/0",
        "/linux/seccomp/syscalls/2",
    }
    assert {"/process/user/uid", "/process/user/gid", "/linux/seccomp/syscalls/1"} <= others


@pytest.mark.parametrize("backend", ["crun", "runc"])
def test_a_document_without_a_process_is_refused_by_programs_that_create_none_without(backend: str) -> None:
    made = plan(b'{"ociVersion": "1.0.2", "root": {"path": "rootfs"}}', Bundle("/srv/b"), backend=backend)
    empty = planned(backend, process={"cwd": "/"})

    assert (made.error, made.accepted) == (None, False)
    assert [one.pointer for one in made.refused] == ["/process"]
    assert [one.pointer for one in empty.refused] == (["/process/args"] if backend == "runc" else [])


@pytest.mark.parametrize(
    ("backend", "version", "told"),
    [("runc", "1.1.5+ds1", "during create"), ("runc", "1.2.0", ""), ("crun", "1.8.1", "crun goes on")],
)
def test_a_plan_says_when_a_program_runs_poststart_hooks_otherwise(backend: str, version: str, told: str) -> None:
    made = planned(backend, Runtime(backend, version), hooks={"poststart": [{"path": "/bin/true"}]})

    near = [one.how for one in made.approximated if one.pointer.startswith("/hooks/poststart")]
    assert len(near) == bool(told)
    assert told in "".join(near)
