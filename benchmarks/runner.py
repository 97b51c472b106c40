"""The runner beside bare asyncssh, one exec channel per command, on 16 real sshd with an instant `pct` and stock limits.

Everything is warm: logins, runners and one command on each node are made before the clock starts. Rounds take turns. CPU is the
client's own process only; the wall is that of client and nodes together, which share this machine's cores. `pct` is `/bin/true`
under another name, and for whole fleets a small program that keeps what a look reads. "Bare" is asyncssh as it comes, at eight
commands at once on a node, since sshd allows ten; "AES-GCM" is the same with the cipher that nexcage prefers. State files go to
memory, as they do by default (RUN_DIR is on /run).

A kill is one command, and is compared with one on a channel. A start or a stop is two: the change, and a look at what came of it,
which operations share; it is compared with the change and `pct status`, each on a channel.

    python -m benchmarks.runner [--rounds 5] [--nodes 16] [--each 40] [--only WORD] [--profile WAY] [--json FILE]
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import getpass
import pstats
import secrets
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio

import nexcage
from benchmarks._rounds import options, show
from nexcage import Command, Config, Create, Kill, Limits, Spec, Start, Stop
from nexcage._core.command import Claim, nothing
from nexcage._transports.ssh import Logins, SshSettings, SshTransport
from nexcage.testing.real_sshd import RealSshd
from nexcage.tools import lxc

LANES = 8
"""Commands at once on one node, for everybody but where it is said: sshd grants ten sessions to a connection."""
WIDE = 32
"""The same where one channel carries them all."""
STOCK: dict[str, str | int] = {"MaxSessions": 10, "MaxStartups": "10:30:100"}
IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
AES = {"encryption_algs": ["aes128-gcm@openssh.com"]}
MEMORY = Path("/dev/shm")
Way = Callable[[], Awaitable[int]]


class Bare:
    """A pool of connections, and a new channel for every command."""

    def __init__(self, servers: list[RealSshd], **options: Any) -> None:
        self._servers = servers
        self._options = options  # of asyncssh.connect

    async def open(self, stack: AsyncExitStack) -> None:
        import asyncssh

        self.connections = [
            await stack.enter_async_context(
                asyncssh.connect(
                    "127.0.0.1",
                    server.port,
                    username=getpass.getuser(),
                    client_keys=[str(server.identity_file)],
                    known_hosts=str(server.known_hosts),
                    config=None,
                    **self._options,
                )
            )
            for server in self._servers
        ]

    async def run(self, lines: list[list[str]]) -> int:
        async def lane(connection: Any, part: list[str]) -> None:
            for line in part:
                await channel(connection, line)

        pairs = zip(self.connections, lines, strict=True)
        await asyncio.gather(*(lane(one, own[n::LANES]) for one, own in pairs for n in range(LANES)))
        return sum(map(len, lines))


async def channel(connection: Any, line: str) -> None:
    """One command on a channel of its own; a busy sshd may still count one that was closed a moment ago against its limit."""
    import asyncssh

    while True:
        try:
            ran = await connection.run(line, encoding=None)
        except asyncssh.ChannelOpenError:
            await asyncio.sleep(0.005)
            continue
        assert ran.exit_status == 0
        return


class Runners:
    """The transport alone."""

    def __init__(self, servers: list[RealSshd], runner: str) -> None:
        logins, settings = Logins(), SshSettings(ssh_config="none", runner=runner)
        self.transports = [SshTransport(server.host, settings=settings, logins=logins) for server in servers]

    async def open(self, stack: AsyncExitStack) -> None:
        for transport in self.transports:
            stack.push_async_callback(transport.aclose)

    async def run(self, commands: list[list[Command[None]]], lanes: int = LANES) -> int:
        async def lane(transport: SshTransport, part: list[Command[None]]) -> None:
            for command in part:
                result = await transport.run(command)
                assert result.exit == 0, result

        pairs = zip(self.transports, commands, strict=True)
        await asyncio.gather(*(lane(one, own[n::lanes]) for one, own in pairs for n in range(lanes)))
        return sum(map(len, commands))


def tree(root: Path, name: str) -> None:
    """What a look reads of a node without containers."""
    for folder in (
        "etc/pve/lxc",
        "etc/pve/qemu-server",
        "proc/net",
        "proc/sys/kernel/random",
        "sys/fs/cgroup/lxc.monitor",
        "slots",
        "run",
    ):
        (root / folder).mkdir(parents=True)
    (root / "proc/sys/kernel/random/boot_id").write_text(f"00000000-0000-4000-8000-{abs(hash(name)) % 10**12:012}\n")
    (root / "etc/pve/local").symlink_to(f"nodes/{name}")
    (root / "proc/meminfo").write_text("MemAvailable:   32000000 kB\n")
    (root / "etc/pve/.members").write_text("{}\n")
    (root / "etc/pve/.vmlist").write_text('{"ids": {}}\n')
    (root / "proc/net/unix").write_text("Num       RefCount Protocol Flags    Type St Inode Path\n")


def compiler() -> str | None:
    return shutil.which("cc")


def quick_pct(path: Path) -> None:
    """In C where it can be compiled: the start of a Perl is more than all the rest of a command."""
    source = Path(__file__).with_name("quick_pct.c")
    if cc := compiler():
        subprocess.run([cc, "-O2", "-o", str(path), str(source)], check=True)
    else:
        shutil.copy(source.with_suffix(".pl"), path)
        path.chmod(0o755)


def servers(dir: Path, count: int, stack: ExitStack, *, quick: bool) -> list[RealSshd]:
    found: list[RealSshd] = []
    bin = dir / "bin"
    bin.mkdir(parents=True)
    if quick:
        quick_pct(bin / "pct")
        (bin / "lxc-info").write_text("#!/bin/sh\necho $((5000000 + $2))\n")  # of: lxc-info -n ID -p -H
        (bin / "lxc-info").chmod(0o755)
        (bin / "kill").symlink_to("/bin/true")
    else:
        (bin / "pct").symlink_to("/bin/true")
    for n in range(count):
        name = f"pve-{n:02}"
        tree(dir / name, name)
        env = {"NEXCAGE_NODE_ROOT": str(dir / name)}
        server = RealSshd(dir / "sshd", name=name, path=[str(bin)], options=STOCK, env=env)
        found.append(stack.enter_context(server))
    return found


class Round:
    """Numbers of the commands that each way runs in a round."""

    def __init__(self, nodes: int, each: int) -> None:
        self.nodes, self.each, self._serial = nodes, each, 0
        self._run = secrets.token_hex(4)

    def lines(self) -> list[list[str]]:
        return [[f"pct start {100 + n}" for n in range(self.each)]] * self.nodes

    def commands(self) -> list[list[Command[None]]]:
        return [[Command(("pct", "start", str(100 + n)), nothing) for n in range(self.each)]] * self.nodes

    def claimed(self) -> list[list[Command[None]]]:
        self._serial += 1
        return [
            [
                Command(
                    ("pct", "start", str(100 + n)),
                    nothing,
                    claim=Claim(
                        fleet="bench",
                        op=f"{self._run}-{self._serial}-{node}-{n}",
                        step=1,
                        id=f"web-{n}",
                        seq=self._serial,
                    ),
                )
                for n in range(self.each)
            ]
            for node in range(self.nodes)
        ]


async def fleet_ways(stack: AsyncExitStack, dir: Path, quick: list[RealSshd]) -> dict[str, Way]:
    """Whole fleets, eight and 32 operations at once on a node, and what a user would write instead: the same commands on channels."""
    ways: dict[str, Way] = {}
    vmids: list[list[int]] = []
    for lanes in (LANES, WIDE):
        ids, fleet = await a_fleet(stack, dir / f"fleet-{lanes}", quick, max(2 * LANES, lanes), lanes)
        ways[f"all in, start and stop, {lanes} at once"] = partial(driven, fleet, ids, (Stop, Start))
        ways[f"all in, kill, {lanes} at once"] = partial(driven, fleet, ids, (partial(Kill, signal="WINCH"),))
        vmids = vmids or [[c.machine.vmid for c in fleet if c.machine.node == server.name] for server in quick]
    bare, fast = Bare(quick), Bare(quick, **AES)
    await bare.open(stack)
    await fast.open(stack)
    look = shlex.join(lxc.look("x").argv)
    for name, pool in (("bare", bare), ("bare AES-GCM", fast)):
        ways[f"{name}, one command"] = partial(by_hand, pool, vmids, "")
        ways[f"{name}, two commands"] = partial(by_hand, pool, vmids, "pct status {vmid}")
    ways["bare, one command and a look"] = partial(by_hand, bare, vmids, look.replace("{", "{{").replace("}", "}}"))
    return ways


async def a_fleet(
    stack: AsyncExitStack, dir: Path, quick: list[RealSshd], each: int, lanes: int
) -> tuple[list[str], nexcage.Fleet]:
    top = MEMORY if MEMORY.is_dir() else dir
    fleet = await stack.enter_async_context(
        nexcage.open_fleet(
            [server.host for server in quick],
            config=Config(ssh_config="none"),
            state_dir=dir / "state",
            run_dir=stack.enter_context(tempfile.TemporaryDirectory(prefix="nexcage-bench-", dir=top)),
            limits=Limits(total=1000, per_node=lanes, creates_per_node=LANES),
        )
    )
    ids = [f"web-{lanes}-{node:02}-{n:03}" for node in range(len(quick)) for n in range(each)]
    made = [Create(id, Spec(IMAGE, node=quick[k // each].name)) for k, id in enumerate(ids)]
    (await fleet.run(made)).raise_for_failures()
    (await fleet.run([Start(id) for id in ids])).raise_for_failures()
    return ids, fleet


async def driven(fleet: nexcage.Fleet, ids: list[str], verbs: tuple[Callable[[str], nexcage.Intent], ...]) -> int:
    """Each of the verbs for all of them; they run before it and after it."""
    for make in verbs:
        (await fleet.run([make(id) for id in ids])).raise_for_failures()
    return len(verbs) * len(ids)


async def by_hand(bare: Bare, vmids: list[list[int]], then: str) -> int:
    """Stop and start by a pool of connections, a channel for each command; ``then`` is run after each, to see what came of it."""

    async def lane(connection: Any, verb: str, part: list[int]) -> None:
        for vmid in part:
            await channel(connection, f"pct {verb} {vmid}")
            if then:
                await channel(connection, then.format(vmid=vmid))

    for verb in ("shutdown", "start"):
        pairs = zip(bare.connections, vmids, strict=True)
        await asyncio.gather(*(lane(one, verb, own[n::LANES]) for one, own in pairs for n in range(LANES)))
    return 2 * sum(map(len, vmids))


async def measure(ways: dict[str, Way], rounds: int, profile: str) -> dict[str, dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for round in range(rounds + 1):
        for name, way in ways.items():
            gc.collect()
            profiler = cProfile.Profile(time.process_time) if round and profile and profile in name else None
            real, cpu = time.perf_counter(), time.process_time()
            if profiler is not None:
                profiler.enable()
            done = await way()
            if profiler is not None:
                profiler.disable()
            real, cpu = time.perf_counter() - real, time.process_time() - cpu
            if round:
                found[name].append({"wall ms/op": 1000 * real / done, "client CPU ms/op": 1000 * cpu / done})
            if profiler is not None and round == rounds:
                pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    return {
        name: {column: statistics.median(row[column] for row in rows) for column in rows[0]}
        for name, rows in found.items()
    }


async def main_async(given: Any, dir: Path) -> dict[str, dict[str, float]]:
    with ExitStack() as started:
        async with AsyncExitStack() as stack:
            ways: dict[str, Way] = {}
            count = Round(given.nodes, given.each)
            if "transport" in given.only:
                plain = servers(dir / "plain", given.nodes, started, quick=False)
                bare, fast = Bare(plain), Bare(plain, **AES)
                await bare.open(stack)
                await fast.open(stack)
                runner, exec = Runners(plain, "always"), Runners(plain, "off")
                await runner.open(stack)
                await exec.open(stack)
                ways |= {
                    "bare asyncssh": lambda: bare.run(count.lines()),
                    "bare asyncssh, AES-GCM": lambda: fast.run(count.lines()),
                    "transport, runner": lambda: runner.run(count.commands()),
                    "transport, runner, 32 at once": lambda: runner.run(count.commands(), 32),
                    "transport, runner, claimed": lambda: runner.run(count.claimed()),
                    "transport, exec channels": lambda: exec.run(count.commands()),
                }
            if "fleet" in given.only:
                quick = servers(dir / "quick", given.nodes, started, quick=True)
                ways |= await fleet_ways(stack, dir, quick)
            return await measure(ways, given.rounds, given.profile)


def main() -> None:
    parser = options(__doc__ or "", rounds=5)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--each", type=int, default=40, help="commands per node and round of the transport alone")
    parser.add_argument("--only", default="transport,fleet", help="transport or fleet")
    parser.add_argument("--profile", default="", help="part of the name of a way to profile")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nexcage-bench-") as folder:
        results = anyio.run(main_async, given, Path(folder))
    for column in ("client CPU ms/op", "wall ms/op"):
        for name, row in results.items():
            to = "bare asyncssh" if "transport" in name or "asyncssh" in name else "bare, one command"
            if "start and stop" in name or "two commands" in name:
                to = "bare, two commands"
            row[f"{column.split(' ms')[0]} ÷ bare"] = row[column] / results[to][column]
    show(
        "runner",
        results,
        packages=("anyio", "asyncssh", "msgspec"),
        method="medians of interleaved rounds after one to warm up; every way on its own warm connections to the same servers; "
        f"the pct that keeps what a look reads is in {'C' if compiler() else 'Perl'}",
        json_file=given.json,
        nodes=given.nodes,
        each=given.each,
        lanes=LANES,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    sys.exit(main())
