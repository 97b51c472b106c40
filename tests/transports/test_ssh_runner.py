"""Runners over SSH that misbehave on purpose, and nodes on which none can run."""

from pathlib import Path
from random import Random

import anyio
import asyncssh
import pytest

from nexcage._core.command import Claim
from nexcage._core.hosts import Host
from nexcage._transports import frames
from nexcage._transports.ssh import SshSettings, SshTransport
from nexcage._transports.wire import Starting, Wrapped, markers, unwrap
from nexcage.errors import NodeNotUsable, NodeTimeout, NodeUnreachable
from tests.transports.commands import TRUE, command, shell, until

HELLO = frames.Hello(protocol=frames.PROTOCOL).encode()


class Server(asyncssh.SSHServer):
    """Lets everybody in."""

    def __init__(self, node):
        self.node = node

    def connection_made(self, conn):
        self.node.connections.append(conn)

    def begin_auth(self, username):
        return False

    def session_requested(self):
        self.node.channels += 1
        return Shell(self.node)


class Shell(asyncssh.SSHServerSession):
    """A login shell whose perl is the test's ``node.perl(shell)``, called when the program has come; a plain command exits with 5."""

    def __init__(self, node):
        self.node, self.input, self.perl = node, b"", None
        self.decoder = frames.Decoder(frames.TO_NODE)

    def connection_made(self, chan):
        self.chan = chan

    def exec_requested(self, line):
        self.order = unwrap(line)
        self.node.orders.append(self.order)
        return True

    def session_started(self):
        if isinstance(self.order, Starting):
            self.chan.write(b"Welcome!\r\n" + b"\x1enexcage-runner %b\n" % self.order.nonce.encode())
        elif isinstance(self.order, Wrapped):
            self.chan.write(markers(self.order.nonce, 1)[0])
            self.chan.write(markers(self.order.nonce, 1)[1], asyncssh.EXTENDED_DATA_STDERR)
            self.chan.exit(5)
        else:
            self.chan.exit(0)

    def data_received(self, data, datatype):
        self.input += data
        if self.perl is None:
            if len(self.input) < self.order.length:
                return
            self.input = self.input[self.order.length :]
            self.perl = self
            self.node.perl(self)
        given, self.input = self.input, b""
        for kind, number, payload in self.decoder.feed(given):
            self.node.frames.append(kind)
            if kind == frames.RUN:
                self.node.act(self, number, frames.Run.decode(payload))

    def eof_received(self):
        return True

    def connection_lost(self, exc):
        self.node.closed += 1


class Node:
    def __init__(self):
        self.connections, self.orders, self.frames = [], [], []
        self.channels = self.closed = 0
        self.perl = lambda shell: shell.chan.write(HELLO)
        self.act = lambda shell, number, run: shell.chan.write(frames.result(number, 0, b"out", b"err"))


@pytest.fixture
async def serve(tmp_path):
    key = asyncssh.generate_private_key("ssh-ed25519")
    nodes, servers, transports = [], [], []

    async def start(runner="always", settings=None, **options):
        node = Node()
        for name, value in options.items():
            setattr(node, name, value)
        nodes.append(node)
        server = await asyncssh.create_server(
            lambda: Server(node), "127.0.0.1", 0, server_host_keys=[key], encoding=None, gss_host=None
        )
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        known = tmp_path / f"known_hosts-{port}"
        known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
        host = Host("node", "127.0.0.1", "root", port, known_hosts=str(known))
        settings = SshSettings(ssh_config="none", runner=runner, **(settings or {}))
        transports.append(SshTransport(host, settings=settings, random=Random(1)))
        return node, transports[-1]

    yield start
    for transport in transports:
        await transport.aclose()
    for node in nodes:
        for conn in node.connections:
            conn.abort()
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_a_hundred_commands_share_one_channel_and_few_packets(serve):
    node, ssh = await serve()
    results = []

    async def one():
        results.append(await ssh.run(TRUE))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(one)

    assert [(result.exit, result.stdout, result.stderr) for result in results] == [(0, b"out", b"err")] * 100
    assert (node.channels, len(node.connections)) == (1, 1)
    assert (ssh.mode, ssh.claims, ssh.fencing) == ("runner", True, True)


def nobody_greets(shell):
    """Says nothing at all."""


def another_protocol(shell):
    shell.chan.write(frames.Hello(protocol=2).encode())


def garbage(shell):
    shell.chan.write(b"\x00\x00\x00\x09Zwhat is this")


def no_module(shell):
    shell.chan.write(b"Can't locate POSIX.pm in @INC\n", asyncssh.EXTENDED_DATA_STDERR)
    shell.chan.exit(2)


def quits(shell):
    shell.chan.write(frames.frame(frames.QUIT, 0, frames.field("no pidfd here")))


UNFIT = [
    (nobody_greets, "within"),
    (another_protocol, "version 2"),
    (garbage, "protocol"),
    (no_module, "POSIX.pm"),
    (quits, "no pidfd here"),
]


def patience(perl):
    """Settings: only what never answers is given up soon."""
    return {"open_timeout": 0.5} if perl is nobody_greets else {}


@pytest.mark.parametrize("perl, why", UNFIT)
async def test_where_no_runner_runs_each_command_gets_a_channel_and_the_reason_is_kept(serve, perl, why):
    node, ssh = await serve("auto", patience(perl), perl=perl)

    for _ in range(3):
        assert (await ssh.run(TRUE)).exit == 5

    assert sum(isinstance(order, Starting) for order in node.orders) == 1
    assert ssh.mode.startswith("exec: ")
    assert why in ssh.mode
    assert (ssh.claims, ssh.fencing) == (False, False)


@pytest.mark.parametrize("perl, why", UNFIT)
async def test_where_a_runner_is_a_must_a_node_without_one_is_not_usable(serve, perl, why):
    node, ssh = await serve("always", patience(perl), perl=perl)

    for _ in range(2):
        with pytest.raises(NodeNotUsable, match=why):
            await ssh.run(TRUE)

    assert not any(isinstance(order, Wrapped) for order in node.orders)


async def test_a_start_that_takes_longer_than_the_command_may_is_not_its_end(serve):
    shells = []
    node, ssh = await serve("auto", perl=shells.append)

    with pytest.raises(NodeTimeout, match=r"within 0\.1 seconds"):
        await ssh.run(command("true", timeout=0.1))
    await until(lambda: shells)
    shells[0].chan.write(HELLO)

    assert (await ssh.run(TRUE)).exit == 0
    assert node.channels == 1


@pytest.mark.parametrize("how", ["connection", "channel", "garbage", "quit"])
async def test_a_lost_runner_takes_the_answers_and_the_next_command_gets_a_new_one(serve, how):
    def act(shell, number, run):
        if run.argv == ("true",):
            shell.chan.write(frames.result(number, 0))
        elif how == "connection":
            shell.chan.get_connection().abort()
        elif how == "channel":
            shell.chan.exit(137)
        elif how == "garbage":
            shell.chan.write(b"\xff" * 100)
        else:
            shell.chan.write(frames.frame(frames.QUIT, 0, frames.field("out of memory")))

    node, ssh = await serve("auto", act=act)
    results = []

    async def run():
        results.append(await ssh.run(command("pct", "start", "104")))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            tasks.start_soon(run)
        assert [(result.exit, result.lost) for result in results] == [(None, "link")] * 2
        assert (await ssh.run(TRUE)).exit == 0
    assert (ssh.mode, len(node.connections)) == ("runner", 2)


async def test_a_half_open_link_is_noticed(serve):
    def act(shell, number, run):
        shell.chan.get_connection()._transport.pause_reading()

    _, ssh = await serve(settings={"keepalive": 0.1}, act=act)

    with anyio.fail_after(20):
        result = await ssh.run(command("sleep", "600"))

    assert (result.exit, result.lost) == (None, "link")


async def test_a_link_that_a_runner_watches_has_no_second_heartbeat_until_the_runner_is_over(serve):
    def act(shell, number, run):
        shell.chan.get_connection()._transport.pause_reading()

    node, ssh = await serve(settings={"keepalive": 0.1})
    await ssh.run(TRUE)
    conn = ssh._link.conn
    watched = conn._keepalive_timer
    node.act = act

    with anyio.fail_after(20):
        lost = (await ssh.run(command("sleep", "600"))).lost
        await conn.wait_closed()  # a half-open connection does not end by itself

    assert (watched, lost) == (None, "link")


async def test_a_runner_that_falls_silent_is_noticed_though_its_server_answers(serve):
    node, ssh = await serve(settings={"keepalive": 0.1}, act=lambda *_: None)

    with anyio.fail_after(20):
        result = await ssh.run(command("sleep", "600"))

    assert (result.exit, result.lost) == (None, "link")
    assert frames.PING in node.frames


async def test_leaving_while_a_runner_starts_leaves_no_channel(serve):
    node, ssh = await serve(perl=nobody_greets)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ssh.run, TRUE)
        await until(lambda: node.channels == 1)
        tasks.cancel_scope.cancel()

    await ssh.aclose()

    await until(lambda: node.closed == 1)
    with pytest.raises(NodeUnreachable, match="closed"):
        await ssh.run(TRUE)


# Against the sshd of OpenSSH.


@pytest.fixture
async def open_to():
    opened = []

    def make(server, runner="auto", **settings):
        opened.append(SshTransport(server.host, settings=SshSettings(ssh_config="none", runner=runner, **settings)))
        return opened[-1]

    yield make
    for transport in opened:
        await transport.aclose()


def node_without_perl(tmp_path: Path) -> str:
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "perl").write_text("#!/bin/sh\necho 'perl: not found' >&2\nexit 127\n")
    (bin / "perl").chmod(0o755)
    return str(bin)


async def test_without_perl_commands_still_run_and_claims_are_still_kept(another, open_to, tmp_path):
    ssh = open_to(another(path=[node_without_perl(tmp_path)], env={"NEXCAGE_NODE_ROOT": str(tmp_path)}))
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b00t\n")
    claim = Claim(fleet="f", op="op-1", step=1, id="web-1")

    assert (await ssh.run(shell("echo $1", "x"))).stdout == b"x\n"
    assert "perl: not found" in ssh.mode
    runs = [await ssh.run(shell("echo ran >> $1; echo once", str(tmp_path / "log"), claim=claim)) for _ in range(2)]

    assert [(result.exit, result.stdout) for result in runs] == [(0, b"once\n")] * 2
    assert (tmp_path / "log").read_text() == "ran\n"


@pytest.mark.parametrize(
    "start_up", ["printf 'no newline'; echo beware >&2", "echo '\036nexcage-runner 1 0'; set -x; yes | head -c 300000"]
)
async def test_a_chatty_login_shell_does_not_disturb_the_runner(another, open_to, start_up):
    server = another()
    (server.home / ".bashrc").write_text(start_up + "\n")

    ssh = open_to(server, "always")

    result = await ssh.run(shell("echo own; echo error >&2"))
    assert (result.stdout, result.stderr, ssh.mode) == (b"own\n", b"error\n", "runner")


async def test_a_login_shell_that_is_not_sh_starts_it_too(another, open_to, tmp_path):
    # What a login shell does with `shell -c LINE`: this one understands words and quotes, and nothing else.
    odd = tmp_path / "odd"
    odd.write_text(
        "#!/usr/bin/perl\nuse Text::ParseWords;\nmy @w = shellwords($ENV{SSH_ORIGINAL_COMMAND});\nshift @w if $w[0] eq 'exec';\nexec @w;\n"
    )
    odd.chmod(0o755)
    ssh = open_to(another(options={"ForceCommand": str(odd)}), "always")

    assert (await ssh.run(shell("echo $1", "it's"))).stdout == b"it's\n"


async def test_one_session_is_enough_for_everything(another, open_to, tmp_path):
    ssh = open_to(another(options={"MaxSessions": 1}), "always")
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ssh.run, shell("sleep 0.05"))

    result = await ssh.run(shell("sleep 600", timeout=0.2))

    assert (result.exit, result.lost) == (None, "deadline")


async def test_both_modes_on_one_node_keep_the_same_claims(another, open_to, tmp_path):
    server = another(env={"NEXCAGE_NODE_ROOT": str(tmp_path)})
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b00t\n")
    claim = Claim(fleet="f", op="op-1", step=1, id="web-1")
    once = shell("echo ran >> $1; echo once; exit 3", str(tmp_path / "log"), claim=claim, cancel="term")

    results = [await open_to(server, runner).run(once) for runner in ("always", "off", "always")]

    assert [(result.exit, result.stdout) for result in results] == [(3, b"once\n")] * 3
    assert (tmp_path / "log").read_text() == "ran\n"
