"""A node that answers with rubbish, bombs or tricks costs itself at most: our errors, in bounded time and memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nexcage
from nexcage import Command, Config, Create, Limits, NexcageError, Result, Spec, Start
from nexcage._engine.node import answer
from nexcage.testing import SimCluster
from nexcage.tools import lxc

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
ESCAPES = "\x1b[2J\x1b]0;pwned\x07\x9b31m\r\u202e\u2066\x00\x08"
SECTIONS = (
    "boot uptime name memory members vmlist running frozen tasks ops configs texts vms vmconfigs vmtexts vmstates end"
).split()

GOOD: dict[str, bytes] = {
    "boot": b"11111111-2222-3333-4444-555555555555\n",
    "uptime": b"1000.00 1000.00\n",
    "name": b"nodes/pve-01\n",
    "memory": b"1024000 kB\n",
    "members": b'{"cluster":{"quorate":1}}\n',
    "vmlist": b'{"version":1,"ids":{"104":{"node":"pve-01","type":"lxc","version":1}}}\n',
    "running": b"104 5000 S 1 5000 5000 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0\n",
    "frozen": b"104/cgroup.freeze\n",
    "tasks": b"UPID:pve-01:00001388:00000001:65000000:vzstart:104:root@pam:\n",
    "ops": b"op-1\n",
    "configs": b"104.conf\n",
    "texts": b"104.conf:#nexcage fleet=f id=web-1 vmid=104 op=op-1\n104.conf:hostname: web-1\n104.conf:memory: 512\n",
    "vms": b"200 6000 S 1 6000 6000 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 778 0\n",
    "vmconfigs": b"200.conf\n",
    "vmtexts": b"200.conf:#nexcage fleet=f id=db-1 vmid=200 op=op-2\n200.conf:name: db-1\n200.conf:memory: 1024\n",
    "vmstates": b"200 paused\n",
    "end": b"",
}


def look_of(parts: dict[str, bytes]) -> bytes:
    return b"".join(b"@nexcage %s\n%s" % (name.encode(), parts[name]) for name in SECTIONS)


def deep(opening: bytes, closing: bytes, levels: int = 100_000) -> bytes:
    return opening * levels + closing * levels


BOMBS: list[bytes] = [
    b"",
    b"\xff" * 100_000,
    b"\0" * 100_000,
    b"9" * 100_000 + b"\n",
    b"-1 -1 -1\n",
    b"104 " + b"9" * 400 + b" S\n",
    b"1e999\n",
    b"NaN\n",
    b"\xd9\xa1\xd9\xa2\xd9\xa3\n",  # digits of another script
    deep(b"[", b"]"),
    deep(b'{"ids":', b"}"),
    b'{"ids":' + deep(b'{"a":', b"}") + b"}",
    b'{"ids":{"104":{"node":' + b'"' + b"x" * 1_000_000 + b'"}}}',
    b'{"ids":{' + b",".join(b'"%d":{"node":"a"}' % n for n in range(100, 20_100)) + b"}}",
    b'{"ids":{"' + b"1" * 5000 + b'":{"node":"a"}}}',
    b'{"cluster":{"quorate":1e400}}',
    b'{"cluster":{"quorate":[]}}',
    b'{"cluster":' + deep(b"[", b"]") + b"}",
    b"@nexcage end\n@nexcage boot\nfake\n",
    b"".join(b"%d.conf\n" % n for n in range(100, 5_100)),
    b"104.conf:" + b"a: b\\" * 50_000 + b"\n",
    b"104.conf:memory: " + b"9" * 5_000 + b"\n104.conf:lock: " + ESCAPES.encode() + b"\n",
    b"104.conf:#nexcage fleet=f id=web-1 vmid=104 op=op-1\n" * 10_000,
    b"UPID:" * 50_000 + b"\n",
    b"UPID:x:" + b"F" * 9 + b":00000001:65000000:vzstart:" + b"9" * 5_000 + b":root@pam:\n",
    b"104/" * 100_000,
    b"\r\n".join([b"x" * 50] * 20_000),
]


def read(stdout: bytes) -> nexcage.Look | NexcageError:
    """What a fleet makes of a look with this output; anything but our errors goes through."""
    command = lxc.look("pve-01", ("op-1",))
    try:
        look = answer(command, Result(0, stdout), "pve-01")
    except NexcageError as error:
        return error
    # What is read when somebody asks must hold too.
    assert all(isinstance(vmid, int) and isinstance(node, str) for vmid, node in look.vmids.items())
    assert 104 not in look.vmids or look.vmids[104] is not None
    for guest in look.guests.values():
        assert 100 <= guest.vmid <= 999_999_999
        assert 0 <= guest.pid < 2**63
        assert 0 <= guest.memory < 2**63
    assert look.find("f", "web-1") is None or look.find("f", "web-1").vmid == 104  # type: ignore[union-attr]
    return look


def test_the_good_look_is_good() -> None:
    look = read(look_of(GOOD))
    assert isinstance(look, nexcage.Look)
    guest = look.find("f", "web-1", "op-1")
    assert guest is not None
    assert (guest.running, guest.frozen, guest.pid, guest.started) == (True, True, 5000, 777)
    machine = look.find("f", "db-1", "op-2")
    assert machine is not None
    assert (machine.kind, machine.running, machine.frozen, machine.pid) == ("vm", True, True, 6000)


@pytest.mark.parametrize("section", SECTIONS[:-1])
def test_a_bomb_in_any_part_of_a_look_is_an_error_of_ours_or_harmless(section: str) -> None:
    for bomb in BOMBS:
        read(look_of({**GOOD, section: bomb}))


def test_a_look_that_is_no_look_is_an_error_of_ours() -> None:
    whole = look_of(GOOD)
    for bomb in [*BOMBS, *(whole[:n] for n in range(0, len(whole), 7)), whole[::-1], whole.upper(), whole * 3]:
        read(bomb)
    for n in range(len(whole) - 14):  # cut before its last marker, it is not an answer
        assert isinstance(read(whole[:n]), NexcageError)


@given(
    parts=st.dictionaries(
        st.sampled_from(SECTIONS),
        st.binary(max_size=200) | st.sampled_from(BOMBS[:9]) | st.text(max_size=80).map(str.encode),
    ),
    flips=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=400)
def test_no_look_raises_anything_but_our_errors(parts: dict[str, bytes], flips: list[tuple[int, int]]) -> None:
    data = bytearray(look_of({**GOOD, **parts}))
    for at, byte in flips:
        data[at % len(data)] = byte
    read(bytes(data))


def tool(chance: Random) -> Callable[..., Any]:
    """A program that says whatever comes to its mind."""

    def run(argv: tuple[str, ...], stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        said = chance.choice([*BOMBS[:9], chance.randbytes(300), ESCAPES.encode(), b"104\n", b"UPID:x\n"])
        return (
            chance.choice([0, 0, 1, 2, 9, 8, 25, 127, 255]),
            said,
            chance.choice([b"", said[-4000:], b"CT is locked (disk)\n"]),
        )

    return run


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("seed", range(12))
async def test_tools_that_lie_never_make_a_fleet_raise_anything_but_our_errors(sim: SimCluster, seed: int) -> None:
    chance = Random(seed)
    config = Config(limits=Limits(settle_timeout=2.0, probe_timeout=5.0, op_timeout=60.0))
    async with sim.fleet(config=config) as fleet:
        await fleet.run([Create("web-1", SPEC), Start("web-1")])
        for program in ("pct", "lxc-freeze", "lxc-unfreeze", "lxc-info", "kill"):
            sim.teach(program, tool(chance))
        for _ in range(30):
            id = f"web-{chance.randint(1, 3)}"
            intent = chance.choice(
                [Create(id, SPEC), Start(id), nexcage.Stop(id), nexcage.Kill(id), nexcage.Pause(id), nexcage.Delete(id)]
            )
            (outcome,) = await fleet.run([intent])
            if isinstance(outcome, nexcage.Failure):
                assert isinstance(outcome.error, NexcageError)
                json.dumps(str(outcome.error))
        # Nothing was believed: what is so is what the node's files say.
        running = sim["pve-01"].model.running()
        try:
            await fleet.reconcile("web-1")
        except NexcageError:
            return
        assert (fleet["web-1"].machine.state is nexcage.State.RUNNING) is (fleet["web-1"].machine.vmid in running)


async def test_output_without_end_is_capped() -> None:
    command = Command(("yes",), parse=lambda result: result)
    assert len(str(answer(command, Result(0, b"y\n" * 500_000, dropped=10**18), "pve-01").dropped)) == 19
