"""Against servers that misbehave on purpose, with a channel for each command; runners that do are in test_ssh_runner.py."""

import asyncio
from random import Random

import anyio
import asyncssh
import pytest

from nexcage._core.hosts import Host
from nexcage._transports.ssh import SshSettings, SshTransport
from nexcage._transports.wire import Ending, Wrapped, markers, unwrap
from nexcage.errors import NodeNotUsable, NodeTimeout, NodeUnreachable
from tests.transports.commands import TRUE, command, until


class Server(asyncssh.SSHServer):
    """Lets everybody in; what a command does is up to the test: ``act(session, chan, wrapped)``."""

    def __init__(self, node):
        self.node = node

    def connection_made(self, conn):
        self.node.connections.append(conn)

    def begin_auth(self, username):
        return False

    def session_requested(self):
        return self.node.session(self.node)


class Shell(asyncssh.SSHServerSession):
    """A session whose commands print their marker and then act as the test says."""

    def __init__(self, node):
        self.node = node

    def connection_made(self, chan):
        self.chan = chan
        self.room = asyncio.Event()
        self.room.set()

    def exec_requested(self, line):
        self.order = unwrap(line)
        self.node.orders.append(self.order)
        return self.node.takes(self)

    def session_started(self):
        if isinstance(self.order, Ending):
            for shell in self.node.running.pop(self.order.pid, ()):
                shell.chan.exit_with_signal("TERM")
            self.chan.exit(0)
            return
        pid = len(self.node.orders)
        self.node.running[pid] = [self]
        self.say(*markers(self.order.nonce, pid))
        self.node.act(self)

    def say(self, stdout=b"", stderr=b""):
        if stdout:
            self.chan.write(stdout)
        if stderr:
            self.chan.write(stderr, asyncssh.EXTENDED_DATA_STDERR)

    def pause_writing(self):
        self.room.clear()

    def resume_writing(self):
        self.room.set()

    def data_received(self, data, datatype):
        pass

    def eof_received(self):
        return True

    def break_received(self, msec):
        return False


class Node:
    def __init__(self):
        self.connections = []
        self.orders = []
        self.running = {}
        self.session = Shell
        self.act = lambda shell: shell.chan.exit(0)
        self.takes = lambda shell: True


@pytest.fixture(scope="module")
def host_key():
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
async def serve(host_key, tmp_path):
    servers, transports, nodes = [], [], []

    async def start(settings=None, random=None, **options):
        node = Node()
        nodes.append(node)
        for name, value in options.items():
            setattr(node, name, value)
        server = await asyncssh.create_server(
            lambda: Server(node), "127.0.0.1", 0, server_host_keys=[host_key], encoding=None, gss_host=None
        )
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        known = tmp_path / f"known_hosts-{port}"
        known.write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
        host = Host("node", "127.0.0.1", "root", port, known_hosts=str(known))
        settings = settings or SshSettings(ssh_config="none", runner="off", drain_timeout=0.5)
        transports.append(SshTransport(host, settings=settings, random=random or Random(1)))
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


async def test_a_server_that_behaves(serve):
    def act(shell):
        shell.say(b"out", b"err")
        shell.chan.exit(7)

    node, ssh = await serve(act=act)

    result = await ssh.run(command("pct", "list", env={"NEXCAGE_OP_ID": "x"}))

    assert (result.exit, result.stdout, result.stderr) == (7, b"out", b"err")
    assert node.orders == [Wrapped(("pct", "list"), {"LC_ALL": "C", "NEXCAGE_OP_ID": "x"}, "1")]


async def test_a_connection_lost_after_the_command_was_sent_is_an_unknown_answer(serve):
    def takes(shell):
        shell.chan.get_connection().abort()
        return True

    _, ssh = await serve(takes=takes)

    result = await ssh.run(TRUE)

    assert (result.exit, result.lost) == (None, "link")


async def test_a_connection_lost_in_the_middle_keeps_what_was_said(serve):
    def act(shell):
        shell.say(b"half")
        asyncio.get_running_loop().call_later(0.05, shell.chan.get_connection().abort)

    _, ssh = await serve(act=act)

    result = await ssh.run(TRUE)

    assert (result.exit, result.lost, result.stdout) == (None, "link", b"half")


async def test_a_channel_closed_without_an_exit_status_is_an_unknown_answer(serve):
    _, ssh = await serve(act=lambda shell: shell.chan.close())

    result = await ssh.run(TRUE)

    assert (result.exit, result.lost) == (None, "link")


async def test_output_broken_off_after_the_exit_status_is_an_unknown_answer(serve):
    def act(shell):
        shell.say(b"the first half of a list")
        shell.chan._send_request(b"exit-status", (0).to_bytes(4, "big"))
        asyncio.get_running_loop().call_later(0.05, shell.chan.get_connection().abort)

    _, ssh = await serve(act=act)

    result = await ssh.run(TRUE)

    assert (result.exit, result.lost) == (None, "link")


async def test_a_channel_kept_open_after_the_exit_status_does_not_keep_the_caller(serve):
    def act(shell):
        shell.say(b"all")
        shell.chan._send_request(b"exit-status", (3).to_bytes(4, "big"))

    _, ssh = await serve(act=act)

    result = await ssh.run(TRUE)

    assert (result.exit, result.stdout, result.lost) == (3, b"all", "")


@pytest.mark.parametrize("name, exit", [("KILL", 137), ("TERM", 143), ("ODD@openssh.com", 128)])
async def test_a_death_by_signal_is_an_answer(serve, name, exit):
    _, ssh = await serve(act=lambda shell: shell.chan.exit_with_signal(name))

    assert (await ssh.run(TRUE)).exit == exit


async def test_a_refused_command_surely_did_not_begin(serve):
    _, ssh = await serve(takes=lambda shell: False)

    with pytest.raises(NodeNotUsable, match="did not run the command"):
        await ssh.run(TRUE)


async def test_a_channel_that_is_never_opened_is_a_timeout_and_nothing_began(serve):
    async def never():
        await asyncio.Event().wait()

    node, ssh = await serve(
        SshSettings(ssh_config="none", runner="off", open_timeout=0.2), session=lambda node: never()
    )

    with pytest.raises(NodeTimeout, match="opened no channel"):
        await ssh.run(TRUE)
    with pytest.raises(NodeTimeout, match=r"within 0\.1 seconds"):
        await ssh.run(command("true", timeout=0.1))
    assert node.orders == []


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_channel_that_opens_too_late_is_closed_before_the_command_is_sent(serve, how):
    asked, gate, shells = asyncio.Event(), asyncio.Event(), []

    async def late(node):
        asked.set()
        await gate.wait()
        shells.append(Shell(node))
        return shells[-1]

    node, ssh = await serve(session=late)

    if how == "timeout":
        await ssh._linked()
        with pytest.raises(NodeTimeout):
            await ssh.run(command("true", timeout=0.1))
        await until(asked.is_set)
    else:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ssh.run, TRUE)
            await asked.wait()
            tasks.cancel_scope.cancel()
    gate.set()

    await until(lambda: shells and shells[0].chan.is_closing())
    node.session = Shell
    assert (await ssh.run(TRUE)).exit == 0
    assert len(node.orders) == 1


async def test_refused_sessions_are_tried_again_until_one_is_free(serve):
    refusals = 3

    def session(node):
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "open failed")
        return Shell(node)

    _, ssh = await serve(session=session)

    assert (await ssh.run(TRUE)).exit == 0


async def test_how_long_a_command_held_the_only_session_is_not_held_against_the_next_one(serve):
    first, refused, over = [], [], asyncio.Event()

    def session(node):
        if first and (
            not over.is_set() or len(refused) < 2
        ):  # the second time it has not yet noticed that the first is over
            refused.append(node)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "open failed")
        return Shell(node)

    def act(shell):
        if first:
            shell.chan.exit(0)
        first.append(shell)

    settings = SshSettings(ssh_config="none", runner="off", open_timeout=0.5)
    _, ssh = await serve(settings, session=session, act=act)
    results = []

    async def run():
        results.append((await ssh.run(TRUE)).exit)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: first)
        tasks.start_soon(run)
        await until(lambda: refused)
        since = anyio.current_time()
        await until(lambda: anyio.current_time() > since + 1)
        over.set()
        first[0].chan.exit(0)

    assert results == [0, 0]
    assert len(refused) == 2


async def test_banners_around_a_marker_that_comes_in_pieces(serve):
    def act(shell):
        shell.say(b"own \x1enexcage 99 1\n")
        shell.chan.exit(0)

    class Talkative(Shell):
        def say(self, stdout=b"", stderr=b""):
            if stdout.startswith(b"\x1e"):
                self.chan.write(b"Welcome! \x1enexcage 99 1\n\x1enex")
                for byte in stdout + b"":
                    self.chan.write(bytes([byte]))
            else:
                super().say(stdout, stderr)

    _, ssh = await serve(session=Talkative, act=act)

    assert (await ssh.run(TRUE)).stdout == b"own \x1enexcage 99 1\n"


async def test_endless_output_until_the_deadline_stays_within_the_cap(serve):
    tasks = []

    def act(shell):
        async def print_for_ever():
            while not shell.chan.is_closing():
                await shell.room.wait()
                shell.say(bytes(30_000))
                await asyncio.sleep(0)

        tasks.append(asyncio.create_task(print_for_ever()))

    node, ssh = await serve(act=act)

    dropped, timeout = 0, 0.5
    while dropped <= 100_000 and timeout < 30:  # how much is printed in that time is the machine's affair
        await ssh._linked()
        result = await ssh.run(command("yes", timeout=timeout, cap=1000))
        assert (result.exit, result.lost) == (None, "deadline")
        dropped, timeout = result.dropped, 4 * timeout

    assert dropped > 100_000
    assert len(result.stdout) == 1000
    assert node.running == {}
    assert isinstance(node.orders[-1], Ending)
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("cancel", ["kill", "term"])
async def test_a_cancelled_command_is_ended_by_its_pid_and_class(serve, cancel):
    node, ssh = await serve(act=lambda shell: None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ssh.run, command("pct", "create", cancel=cancel))
        await until(lambda: node.running)
        tasks.cancel_scope.cancel()

    assert node.orders[1:] == [Ending(1, cancel)]
    assert node.running == {}


async def test_commands_that_never_end_do_not_keep_the_sessions_from_others(serve):
    left = []

    def act(shell):
        if shell.order.argv == ("true",):
            shell.chan.exit(0)
        else:  # it hears no signal
            node.running.clear()
            left.append(shell)

    settings = SshSettings(ssh_config="none", runner="off", patience=0.2, max_channels=2)
    node, ssh = await serve(settings, act=act)
    for _ in range(3):
        result, timeout = None, 0.1
        while result is None:
            try:
                result = await ssh.run(command("pct", "start", cancel="term", timeout=timeout))
            except NodeTimeout:  # it was not sent yet
                timeout *= 4
        assert result.exit is None

    with anyio.fail_after(20):
        assert (await ssh.run(TRUE)).exit == 0
    assert ssh._link.slots.total_tokens == 1
    for shell in left:
        shell.chan.exit(0)
    await until(lambda: ssh._link.slots.total_tokens == 2)


async def test_a_server_that_stops_answering_is_noticed_by_keepalive(serve):
    def act(shell):
        shell.chan.get_connection()._transport.pause_reading()

    _, ssh = await serve(SshSettings(ssh_config="none", runner="off", keepalive=0.05), act=act)

    with anyio.fail_after(20):
        result = await ssh.run(command("sleep", "600"))

    assert (result.exit, result.lost) == (None, "link")


async def test_commands_that_wait_for_a_channel_go_on_over_the_next_connection(serve):
    node, ssh = await serve(SshSettings(ssh_config="none", runner="off", max_channels=1), act=lambda shell: None)
    results = []

    async def run(argv):
        results.append(await ssh.run(command(argv)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "first")
        await until(lambda: node.running)
        tasks.start_soon(run, "second")
        await until(lambda: ssh._link.slots.statistics().tasks_waiting == 1)
        node.act = lambda shell: shell.chan.exit(0)
        node.connections[0].abort()

    assert [(result.exit, result.lost) for result in results] == [(None, "link"), (0, "")]
    assert len(node.connections) == 2


async def test_callers_that_wait_for_the_same_login_share_it(serve):
    node, ssh = await serve()

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ssh.run, TRUE)

    assert len(node.connections) == 1


class Wire:
    """A TCP server that is none of SSH: says ``words`` and then nothing."""

    def __init__(self, words=b"", close=False):
        self.words, self.close, self.accepted = words, close, 0

    async def __aenter__(self):
        self.writers = []
        self.server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def talk(self, reader, writer):
        self.accepted += 1
        self.writers.append(writer)
        writer.write(self.words)
        if self.close:
            writer.close()

    async def __aexit__(self, *error):
        self.server.close()
        for writer in self.writers:
            writer.close()
        await self.server.wait_closed()

    def transport(self, tmp_path, random=None, **settings):
        host = Host("node", "127.0.0.1", "root", self.port, known_hosts=str(tmp_path / "known_hosts"))
        return SshTransport(host, settings=SshSettings(ssh_config="none", **settings), random=random or Random(1))


async def test_a_server_that_never_greets_is_unreachable_after_the_connect_timeout(tmp_path):
    async with Wire() as wire:
        with pytest.raises(NodeUnreachable, match=r"within 0\.2 seconds"):
            await wire.transport(tmp_path, connect_timeout=0.2).run(TRUE)


@pytest.mark.parametrize(
    "words, kind",
    [
        (b"HTTP/1.1 400 Bad Request\r\n", NodeUnreachable),
        (b"SSH-1.5-old\r\n", NodeNotUsable),
        (b"\0" * 100, NodeUnreachable),
    ],
)
async def test_a_server_that_does_not_speak_ssh_is_told_so(tmp_path, words, kind):
    async with Wire(words, close=True) as wire:
        with pytest.raises(kind):
            await wire.transport(tmp_path).run(TRUE)


async def test_callers_that_wait_for_the_same_login_share_its_failure(tmp_path):
    errors = []
    async with Wire() as wire:
        ssh = wire.transport(tmp_path, connect_timeout=0.2)

        async def run():
            try:
                await ssh.run(TRUE)
            except NodeUnreachable as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(run)

        await until(lambda: wire.accepted)
        assert wire.accepted == 1
    assert len(set(map(id, errors))) == 6


async def test_a_caller_that_gives_up_does_not_take_the_login_from_the_others(tmp_path):
    errors, let_go = [], anyio.Event()
    async with Wire() as wire:
        ssh = wire.transport(tmp_path, connect_timeout=1.0)

        async def impatient():
            async with anyio.create_task_group() as mine:
                mine.start_soon(ssh.run, TRUE)
                await let_go.wait()
                mine.cancel_scope.cancel()

        async def patient():
            with pytest.raises(NodeUnreachable) as caught:
                await ssh.run(TRUE)
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(impatient)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(patient)
            await until(lambda: wire.accepted == 1)
            let_go.set()

        await until(lambda: wire.accepted == 2)
    assert len(errors) == 1


async def test_logins_that_fail_are_repeated_ever_less_often(tmp_path):
    class Recording(Random):
        asked = []

        def uniform(self, a, b):
            self.asked.append((a, b))
            return 0.0

    async with Wire(close=True) as wire:
        ssh = wire.transport(tmp_path, Recording(), backoff=0.5, backoff_most=3)
        for _ in range(6):
            with pytest.raises(NodeUnreachable):
                await ssh.run(TRUE)

    assert Recording.asked == [(0, 0.5), (0, 1.0), (0, 2.0), (0, 3.0), (0, 3.0), (0, 3.0)]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_the_error_names_the_way_out(anyio_backend):
    with pytest.raises(NodeNotUsable, match="asyncio"):
        await SshTransport(Host.parse("node")).run(TRUE)
