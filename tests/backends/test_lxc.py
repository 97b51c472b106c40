"""The lxc backend against a scripted node: each verb is the list of commands that an operator would type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import AlreadyExists, Guest, InvalidSpec, Look, Mark, NotFound, Ref, Spec, UnsupportedImage
from nexcage._backends.lxc import Lxc
from nexcage._backends.numbers import TRIES, candidates
from nexcage._core.command import Command, Result
from nexcage.names import image
from nexcage.tools import lxc
from tests.backends.scripted import ScriptedNode

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(DEBIAN)
REF = Ref("web-1", 104, "pve-01")
GUARDED = ("sh", "-c", lxc.GUARD, "nexcage", "nexcage fleet=f1 id=web-1 vmid=104 op=op-1", "104")


class Node(ScriptedNode):
    guarded: tuple[str, ...] = GUARDED  # by its very mark


@pytest.mark.parametrize(
    ("verb", "options", "typed"),
    [
        ("start", {}, [("pct", "start", "104")]),
        (
            "stop",
            {"timeout": 30.0, "force": False},
            [("pct", "shutdown", "104", "--timeout", "30", "--forceStop", "1")],
        ),
        ("stop", {"timeout": 30.0, "force": True}, [("pct", "stop", "104")]),
        ("pause", {}, [("lxc-freeze", "-n", "104")]),
        ("resume", {}, [("lxc-unfreeze", "-n", "104")]),
        ("delete", {"force": False, "purge": False}, [("pct", "destroy", "104")]),
        ("delete", {"force": True, "purge": True}, [("pct", "destroy", "104", "--force", "1", "--purge", "1")]),
    ],
)
async def test_a_verb_is_what_an_operator_would_type_and_is_guarded(
    verb: str, options: Any, typed: list[tuple[str, ...]]
) -> None:
    node = Node()
    await getattr(Lxc(), verb)(node, REF, **options)

    assert node.typed == typed
    for command in node.commands:
        assert command.argv[: len(GUARDED)] == GUARDED
        assert not command.safe


async def test_a_frozen_container_is_thawed_before_it_is_asked_to_stop() -> None:
    node = Node(Guest(104, running=True, frozen=True, pid=5))
    await Lxc().stop(node, REF, timeout=5.0, force=False)
    assert [words[0:2] for words in node.typed] == [("lxc-unfreeze", "-n"), ("pct", "shutdown")]


async def test_a_stop_that_is_hurried_overrules_its_own_shutdown() -> None:
    node = Node(hurried=True)
    await Lxc().stop(node, REF, timeout=600.0, force=False)
    assert node.typed[-1] == ("pct", "stop", "104", "--overrule-shutdown", "1")


async def test_a_signal_goes_by_the_script_that_checks_the_mark() -> None:
    node = Node()
    node.answer = lambda _: Result(0, b"4194400\n")
    await Lxc().kill(node, REF, 10)
    assert node.commands[0].argv == ("sh", "-c", lxc.SIGNAL, "kill", GUARDED[4], "104", "10")


async def test_a_create_carries_the_mark_of_its_own_number() -> None:
    node = Node()
    made = await Lxc().create(node, Ref("web-1", 0, "pve-01"), SPEC)
    (argv,) = node.typed
    assert argv[:4] == ("pct", "create", str(made.vmid), DEBIAN)
    assert argv[argv.index("--description") + 1] == str(Mark("f1", "web-1", made.vmid, "op-1"))
    assert (made.id, made.node) == ("web-1", "pve-01")


async def test_a_number_that_is_taken_makes_it_try_the_next() -> None:
    node = Node(vmids=range(100, 104))
    taken: list[str] = []

    def answer(command: Command[Any]) -> Result:
        taken.append(command.argv[2])
        said = f"CT {command.argv[2]} already exists on node 'pve2'\n".encode()
        return Result(0) if len(taken) == 3 else Result(255, b"", said)

    node.answer = answer
    made = await Lxc().create(node, Ref("web-1", 0, "pve-01"), SPEC)
    assert str(made.vmid) == taken[2]
    assert len(set(taken)) == 3


async def test_no_free_number_is_said_with_the_range_and_tries_are_bounded() -> None:
    node = Node()
    node.answer = lambda command: Result(255, b"", f"VM {command.argv[2]} already exists on node 'x'".encode())
    with pytest.raises(AlreadyExists, match="100-999"):
        await Lxc().create(node, Ref("web-1", 0, "pve-01"), SPEC)
    assert len(node.commands) == TRIES


async def test_another_failure_of_a_create_is_not_tried_again() -> None:
    node = Node()
    node.answer = lambda _: Result(255, b"", b"storage 'nosuch' does not exist\n")
    with pytest.raises(NotFound, match="nosuch"):
        await Lxc().create(node, Ref("web-1", 0, "pve-01"), SPEC)
    assert len(node.commands) == 1


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    st.integers(100, 200),
    st.integers(1, 80),
    st.sets(st.integers(100, 300)),
    st.sets(st.integers(100, 300)),
)
def test_numbers_to_try_are_free_distinct_in_range_and_always_the_same(
    id: str, low: int, size: int, cluster: set[int], here: set[int]
) -> None:
    seen = Look("n", "p", "b", {vmid: Guest(vmid) for vmid in here}, dict.fromkeys(cluster, "p"))
    vmids = range(low, low + size)
    found = list(candidates(id, vmids, seen))
    assert found == list(candidates(id, vmids, seen))
    assert len(set(found)) == len(found) == min(TRIES, len(set(vmids) - cluster - here))
    assert set(found) <= set(vmids) - cluster - here


def test_two_containers_rarely_begin_with_the_same_number() -> None:
    seen = Look("n", "p", "b", {}, {})
    first = {next(candidates(f"web-{n}", range(10_000, 1_000_000), seen)) for n in range(1000)}
    assert len(first) > 990


@pytest.mark.parametrize("text", ["./bundle", "/srv/layouts/nginx:1.29", "oci-archive:/srv/nginx.tar"])
def test_what_lies_on_this_machine_is_the_engines_to_judge(text: str) -> None:
    Lxc().check("web-1", Spec(text, backend="lxc"))


@pytest.mark.parametrize("text", ["ubuntu:20.04", "local:iso/x.iso"])
def test_only_templates_are_taken(text: str) -> None:
    assert not Lxc().accepts(image(text))
    with pytest.raises(UnsupportedImage, match="vztmpl"):
        Lxc().check("web-1", Spec(text, backend="lxc"))


@pytest.mark.parametrize("text", [DEBIAN, "/srv/debian.tar.gz", "debian.tar"])
def test_every_spelling_of_a_template_is_taken(text: str) -> None:
    Lxc().check("web-1", Spec(text))
    with pytest.raises(InvalidSpec, match="hostname"):
        Lxc().check("web_1", Spec(text))


async def test_beside_mount_points_the_root_disk_is_said_too() -> None:
    node = Node()

    await Lxc().create(node, REF, Spec(DEBIAN, storage="tank", mounts={"mp0": "tank:8,mp=/data"}, pool="web"))

    (argv,) = node.typed
    assert argv[argv.index("--rootfs") + 1] == "tank:4"
    assert argv[argv.index("--mp0") + 1] == "tank:8,mp=/data"
    assert argv[argv.index("--pool") + 1] == "web"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Spec("local:backup/vzdump-lxc-104-2026_01_01-00_00_00.tar.zst", mounts={"mp0": "local:8,mp=/data"}), "mounts"),
        (Spec("local:backup/vzdump-lxc-104-2026_01_01-00_00_00.tar.zst", cpulimit=0), "cpulimit"),
        (Spec("local:backup/vzdump-lxc-104-2026_01_01-00_00_00.tar.zst", protection=True), "protection"),
    ],
)
def test_a_setting_that_a_restore_would_not_follow_is_refused(spec: Spec, field: str) -> None:
    with pytest.raises(InvalidSpec, match=field):
        Lxc().check("web-1", spec)
