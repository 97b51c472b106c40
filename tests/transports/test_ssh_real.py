"""Against the sshd of OpenSSH."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import anyio
import msgspec
import pytest

from nexcage._core.hosts import Host
from nexcage._transports.known_hosts import fingerprint
from nexcage._transports.ssh import Logins, SshSettings, SshTransport
from nexcage.errors import AuthRejected, HostKeyRejected, InvalidInput, NodeNotUsable, NodeTimeout, NodeUnreachable
from tests.transports.commands import alive, command, overrun, pid_in, shell, until

SETTINGS = SshSettings(ssh_config="none")


@pytest.fixture
async def connect(runner):
    """Transports to servers, closed at the end."""
    opened = []

    def make(server, host=None, settings=SETTINGS, **options):
        settings = msgspec.structs.replace(settings, runner=runner)
        opened.append(SshTransport(host or server.host, settings=settings, random=Random(1), **options))
        return opened[-1]

    yield make
    for transport in opened:
        await transport.aclose()


def log(server) -> str:
    return (server.dir / f"{server.name}.log").read_text()


async def test_a_command_answers_with_its_output_and_exit_status(ssh):
    result = await ssh.run(shell("cat; echo wrong >&2; exit 3", stdin=b"in\0put\n"))

    assert (result.exit, result.stdout, result.stderr, result.dropped, result.lost) == (
        3,
        b"in\0put\n",
        b"wrong\n",
        0,
        "",
    )


async def test_words_reach_the_program_as_they_are(ssh):
    words = (
        "",
        "a b",
        "'\"\\",
        "$HOME `id` $(id)",
        "*",
        "new\nline",
        "é",
        "!x",
        "~",
        b"\xff".decode("utf-8", "surrogateescape"),
    )

    result = await ssh.run(command("printf", "%s\\0", *words, env={"LANG": "C"}))

    assert result.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)


async def test_the_environment_travels_with_the_command(ssh):
    result = await ssh.run(shell('echo "$LC_ALL $NEXCAGE_OP_ID"', env={"NEXCAGE_OP_ID": "op 'x'"}))

    assert result.stdout == b"C op 'x'\n"


async def test_output_that_is_not_utf_8_comes_as_it_is(ssh):
    result = await ssh.run(command("printf", "\\377\\376\\000 ok"))

    assert (result.exit, result.stdout) == (0, b"\xff\xfe\x00 ok")
    assert (await ssh.run(command("true"))).exit == 0


async def test_a_nul_is_refused_before_it_is_sent_and_the_connection_lives(ssh):
    with pytest.raises(InvalidInput):
        await ssh.run(command("echo", "a\0b"))

    assert (await ssh.run(command("true"))).exit == 0


@pytest.mark.parametrize(
    "program, exit, said", [("no-such-tool", 127, b"not found"), ("/etc/passwd", 126, b"Permission denied")]
)
async def test_a_program_that_cannot_be_run_answers_as_on_this_machine(ssh, program, exit, said):
    result = await ssh.run(command(program))

    assert result.exit == exit
    assert result.stderr.endswith(program.encode() + b": " + said + b"\n")


async def test_a_death_by_signal_is_an_answer(ssh):
    assert (await ssh.run(shell("kill -9 $$"))).exit == 128 + signal.SIGKILL


async def test_input_larger_than_a_window_arrives_whole(ssh):
    data = bytes(range(256)) * 16384

    result = await ssh.run(command("cat", stdin=data, cap=len(data)))

    assert result.stdout == data


async def test_endless_output_is_kept_within_the_cap(sshd, runner):
    script = """
import anyio, resource, sys
from nexcage import Command
from nexcage._core.command import nothing
from nexcage._core.hosts import Host
from nexcage._transports.ssh import SshSettings, SshTransport
import msgspec
async def main(host):
    ssh = SshTransport(host, settings=SshSettings(ssh_config="none", runner=sys.argv[2]))
    await ssh.run(Command(("true",), parse=nothing))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    command = Command(("sh", "-c", "echo begin; head -c 200M /dev/zero; echo end"), parse=nothing, cap=100_000)
    result = await ssh.run(command)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    await ssh.aclose()
    assert result.stdout.startswith(b"begin\\n") and result.stdout.endswith(b"end\\n")
    assert len(result.stdout) + result.dropped == 200 * 2**20 + 10
    assert grown < 40_000, grown
anyio.run(main, msgspec.json.decode(sys.argv[1], type=Host))
"""
    argv = [sys.executable, "-c", script, msgspec.json.encode(sshd.host).decode(), runner]
    await anyio.to_thread.run_sync(lambda: subprocess.run(argv, check=True))


async def test_a_stream_that_nobody_reads_makes_the_command_wait(ssh, tmp_path):
    file = tmp_path / "done"

    async with ssh.stream(shell('head -c 20000000 /dev/zero; echo > "$1"', str(file))) as stream:
        total = len((await anext(stream))[1])
        assert not file.exists()
        async for _, data in stream:
            total += len(data)

    assert total == 20_000_000


async def test_a_conversation_by_stream(ssh):
    async with ssh.stream(shell("while read line; do echo got $line; done; echo bye >&2; exit 4")) as stream:
        await stream.send(b"one\n")
        assert await anext(aiter(stream)) == ("stdout", b"got one\n")
        await stream.send(b"two\n")
        assert await anext(aiter(stream)) == ("stdout", b"got two\n")
        await stream.send_eof()
        result = await stream.wait()

    assert (result.exit, result.stdout, result.stderr) == (4, b"", b"bye\n")


async def test_leaving_a_stream_ends_its_command(ssh, tmp_path):
    async with ssh.stream(shell('echo $$ > "$1"; sleep 600', str(tmp_path / "pid"))):
        pid = await pid_in(tmp_path / "pid")

    await until(lambda: not alive(pid))


async def test_a_deadline_ends_the_whole_group(ssh, tmp_path):
    result, file = await overrun(ssh, 'sleep 600 & echo begun; echo $! > "$1"; wait', tmp_path)

    assert (result.exit, result.lost, result.stdout) == (None, "deadline", b"begun\n")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_what_ignores_term_is_killed_a_second_later(ssh, tmp_path):
    script = 'trap "" TERM; echo $$ > "$1"; while :; do sleep 0.1; done'

    result, file = await overrun(ssh, script, tmp_path)

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_in_class_term_the_answer_after_the_deadline_counts(ssh, tmp_path):
    script = 'trap "echo cleaned up; exit 9" TERM; echo begun; echo $$ > "$1"; while :; do sleep 0.05; done'

    result, _ = await overrun(ssh, script, tmp_path, cancel="term")

    assert (result.exit, result.lost, result.stdout) == (9, "deadline", b"begun\ncleaned up\n")


async def test_in_class_term_only_the_tool_is_signalled(ssh, tmp_path):
    inner = 'trap "echo TERM > $1.signal" TERM; echo $$ > "$1"; while [ ! -e "$1.end" ]; do sleep 0.02; done'
    outer = 'trap "touch $1.end; wait; exit 5" TERM; sh -c "$2" sh "$1" & while :; do sleep 0.02; done'
    file = tmp_path / "pid"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ssh.run, shell(outer, str(file), inner, cancel="term"))
        pid = await pid_in(file)
        tasks.cancel_scope.cancel()

    await until(lambda: not alive(pid))
    assert not (tmp_path / "pid.signal").exists()


async def test_a_tool_that_does_not_end_is_left_running_and_never_killed(sshd, connect, tmp_path):
    ssh = connect(sshd, settings=SshSettings(ssh_config="none", patience=0.3))
    script = 'trap "" TERM; echo $$ > "$1"; while [ ! -e "$1.end" ]; do echo still here; sleep 0.02; done; echo over > "$1.over"'

    result, file = await overrun(ssh, script, tmp_path, cancel="term")

    assert (result.exit, result.lost) == (None, "deadline")
    assert alive(await pid_in(file))
    assert (await ssh.run(command("true"))).exit == 0
    file.with_name(f"{file.name}.end").touch()
    await until(file.with_name(f"{file.name}.over").exists)  # it went on printing and was not ended by a closed channel


async def test_a_cancelled_call_ends_its_command_before_it_returns(ssh, tmp_path):
    file = tmp_path / "pid"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ssh.run, shell('echo $$ > "$1"; sleep 600', str(file)))
        pid = await pid_in(file)
        tasks.cancel_scope.cancel()

    await until(lambda: not alive(pid))


async def test_something_that_keeps_the_pipe_open_does_not_keep_the_caller(sshd, connect, tmp_path):
    ssh, file = connect(sshd, settings=SshSettings(ssh_config="none", drain_timeout=0.5)), tmp_path / "pid"

    with anyio.fail_after(20):
        result = await ssh.run(shell('sleep 600 & echo $! > "$1"; echo done', str(file)))

    assert (result.exit, result.stdout) == (0, b"done\n")
    os.kill(await pid_in(file), signal.SIGKILL)


async def test_a_lost_link_is_a_result_without_an_exit_status(another, connect, tmp_path, mode):
    server = another()
    ssh, file, results = connect(server), tmp_path / "pid", []

    async def run():
        results.append(await ssh.run(shell('echo begun; echo $$ > "$1"; exec sleep 600', str(file))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        pid = await pid_in(file)
        server.drop()

    assert [(result.exit, result.lost) for result in results] == [(None, "link")]
    assert results[0].stdout in (b"begun\n", b"")  # the link may have gone before the word was sent
    if mode == "exec":
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))  # a runner that is alone ends what nobody has claimed


async def test_after_a_lost_link_the_next_command_connects_again(another, connect, mode):
    server = another()
    ssh = connect(server)
    assert (await ssh.run(command("true"))).exit == 0

    server.drop()
    if mode == "runner":  # a frame that is on its way when the link goes may have arrived, so it is not sent again
        await until(lambda: ssh._link.lost)

    assert (await ssh.run(command("true"))).exit == 0


async def test_closing_takes_the_answer_from_running_commands(another, connect, tmp_path, mode):
    ssh, file, results = connect(another()), tmp_path / "pid", []

    async def run():
        results.append(await ssh.run(shell('echo $$ > "$1"; exec sleep 600', str(file))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        pid = await pid_in(file)
        await ssh.aclose()

    assert [(result.exit, result.lost) for result in results] == [(None, "link")]
    with pytest.raises(NodeUnreachable, match="closed"):
        await ssh.run(command("true"))
    if mode == "exec":
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))


async def test_one_connection_carries_many_commands(another, connect):
    server = another()
    ssh, results = connect(server), []

    async def one(number):
        results.append(await ssh.run(shell("echo $1", str(number))))

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(one, number)

    assert sorted(int(result.stdout) for result in results) == list(range(40))
    assert log(server).count("Accepted publickey") == 1


@pytest.mark.parametrize("sessions", [1, 3])
async def test_a_server_that_allows_fewer_sessions_makes_commands_wait_not_fail(another, connect, sessions):
    ssh, results = connect(another(options={"MaxSessions": sessions})), []

    async def one():
        results.append(await ssh.run(shell("sleep 0.05; echo ok")))

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(one)

    assert [result.stdout for result in results] == [b"ok\n"] * 12


async def test_a_command_is_ended_also_when_the_server_has_no_session_left_for_that(another, connect, tmp_path):
    server = another(options={"MaxSessions": 1})
    ssh = connect(server)

    result, file = await overrun(ssh, 'trap "" TERM; echo $$ > "$1"; while :; do sleep 0.1; done', tmp_path)

    assert (result.exit, result.lost) == (None, "deadline")
    pid = await pid_in(file)
    await until(lambda: not alive(pid))


async def test_a_server_that_allows_no_session_is_not_usable(another, connect):
    server, refusal = another(options={"MaxSessions": 0}), None
    for seconds in (0.3, 3.0, 30.0):  # a refusal that takes longer to come than we wait for it is another error
        ssh = connect(server, settings=SshSettings(ssh_config="none", open_timeout=seconds))
        try:
            await ssh.run(command("true"))
        except NodeTimeout:
            continue
        except NodeNotUsable as error:
            refusal = error
        break

    assert "MaxSessions" in str(refusal)


async def test_banners_of_start_up_files_are_not_output(another, connect):
    server = another()
    (server.home / ".bashrc").write_text("printf 'welcome to the node, no newline'; echo beware >&2; set -x\n")
    (server.home / ".profile").write_text("echo profile\n")
    ssh = connect(server)

    result = await ssh.run(shell("echo own; echo error >&2"))

    assert (result.stdout, result.stderr) == (b"own\n", b"error\n")


async def test_a_shell_that_does_not_run_commands_is_told_from_a_command_that_fails(another, connect):
    ssh = connect(another(options={"ForceCommand": "echo This account is not available.; exit 1"}))

    with pytest.raises(NodeNotUsable, match="This account is not available"):
        await ssh.run(command("true"))


async def test_a_login_shell_that_hangs_is_given_up_at_the_deadline(another, connect, tmp_path, mode):
    ssh = connect(another(options={"ForceCommand": f"echo $$ > {tmp_path}/pid; exec sleep 600"}))

    if mode == "runner":
        with pytest.raises(NodeTimeout, match="no runner started"):
            await ssh.run(command("true", timeout=0.3))
    else:  # it may still run the command
        result, timeout = None, 0.3
        while result is None:
            try:
                result = await ssh.run(command("true", timeout=timeout))
            except NodeTimeout:  # it was not sent yet
                timeout *= 4
        assert (result.exit, result.lost) == (None, "deadline")
    if mode == "runner" or (tmp_path / "pid").exists():
        os.kill(await pid_in(tmp_path / "pid"), signal.SIGKILL)


async def test_an_unknown_host_key_is_refused_with_its_fingerprint(another, connect):
    server = another()
    server.known_hosts.write_text("")

    with pytest.raises(HostKeyRejected) as caught:
        await connect(server).run(command("true"))

    assert fingerprint(public_key(server)) in str(caught.value)
    assert f"[127.0.0.1]:{server.port}" in str(caught.value)
    assert "trust_on_first_use" in " ".join(caught.value.__notes__)


async def test_a_missing_known_hosts_file_knows_nothing(another, connect):
    server = another()
    server.known_hosts.unlink()

    with pytest.raises(HostKeyRejected, match="not known"):
        await connect(server).run(command("true"))
    assert not server.known_hosts.exists()


async def test_a_changed_host_key_is_refused_with_both_fingerprints(another, connect):
    server = another()
    old = fingerprint(public_key(server))
    server.stop()
    server.change_host_key()
    server.start()

    for settings in (SETTINGS, SshSettings(ssh_config="none", trust_on_first_use=True)):
        with pytest.raises(HostKeyRejected) as caught:
            await connect(server, settings=settings).run(command("true"))

        assert old in str(caught.value)
        assert fingerprint(public_key(server)) in str(caught.value)
        assert "ssh-keygen -f" in caught.value.__notes__[0]
        assert not caught.value.retryable


async def test_a_host_key_of_another_type_than_the_known_one_is_shown_too(another, connect):
    server = another()
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", server.dir / "other"], check=True)
    other = " ".join((server.dir / "other.pub").read_text().split()[:2])
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}\n")

    with pytest.raises(HostKeyRejected) as caught:
        await connect(server).run(command("true"))

    assert fingerprint(other) in str(caught.value)
    assert fingerprint(public_key(server)) in str(caught.value)


async def test_trust_on_first_use_remembers_the_key_for_everybody(another, connect):
    server = another()
    expected = server.known_hosts.read_text()
    server.known_hosts.unlink()
    trusting = SshSettings(ssh_config="none", trust_on_first_use=True)

    assert (await connect(server, settings=trusting).run(command("true"))).exit == 0

    assert server.known_hosts.read_text() == expected
    assert server.known_hosts.stat().st_mode & 0o777 == 0o600
    assert (await connect(server).run(command("true"))).exit == 0


async def test_ssh_config_names_the_machine_but_cannot_weaken_the_check(another, connect, tmp_path):
    server = another()
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host node-*\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.host.user}\n"
        f"  IdentityFile {server.identity_file}\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n"
        "  GlobalKnownHostsFile none\n  ForwardAgent yes\n  RequestTTY force\n  RemoteCommand echo not ours\n  SendEnv *\n"
    )
    host = Host.parse("node-1")

    settings = SshSettings(ssh_config=str(config), known_hosts=str(server.known_hosts))
    result = await connect(server, host, settings).run(shell("tty; echo $SSH_AUTH_SOCK; echo ours"))
    assert result.stdout == b"not a tty\n\nours\n"

    server.known_hosts.write_text("")
    with pytest.raises(HostKeyRejected):
        await connect(server, host, settings).run(command("true"))


@pytest.mark.parametrize("by", ["config", "host"])
async def test_a_jump_host_is_used_and_checked_as_strictly(another, connect, tmp_path, by):
    jump, server = another(), another()
    known = tmp_path / "known_hosts"
    known.write_text(jump.known_hosts.read_text() + server.known_hosts.read_text())
    config = tmp_path / "ssh_config"
    proxy = "Host node\n ProxyJump bastion\n" if by == "config" else ""
    config.write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {jump.port}\n{proxy}Host node\n HostName 127.0.0.1\n Port {server.port}\n"
        f"Host *\n User {server.host.user}\n IdentityFile {server.identity_file}\n"
        " StrictHostKeyChecking no\n UserKnownHostsFile none\n"
    )
    settings = SshSettings(ssh_config=str(config), known_hosts=str(known))
    host = Host("node", jump="" if by == "config" else "bastion")

    assert (await connect(server, host, settings).run(command("true"))).exit == 0
    assert log(jump).count("Accepted publickey") == 1
    assert log(server).count("Accepted publickey") == 1

    known.write_text(server.known_hosts.read_text())
    with pytest.raises(HostKeyRejected, match=str(jump.port)):
        await connect(server, host, settings).run(command("true"))
    assert log(server).count("Accepted publickey") == 1


async def test_jump_hosts_in_a_circle_are_an_error(another, connect, tmp_path):
    server = another()
    config = tmp_path / "ssh_config"
    config.write_text("Host *\n ProxyJump bastion\n")

    with pytest.raises(NodeNotUsable, match="circle"):
        await connect(server, settings=SshSettings(ssh_config=str(config))).run(command("true"))


async def test_a_login_that_is_refused_is_told_so(another, connect, tmp_path):
    server = another()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "wrong"], check=True)
    host = Host("node", "127.0.0.1", server.host.user, server.port, str(tmp_path / "wrong"), str(server.known_hosts))

    with pytest.raises(AuthRejected, match="node") as caught:
        await connect(server, host).run(command("true"))
    assert not caught.value.retryable


@pytest.mark.parametrize("key", ["missing", "locked", "broken"])
async def test_a_private_key_that_cannot_be_used_is_named(another, connect, tmp_path, key):
    server, file = another(), tmp_path / key
    if key == "locked":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", file], check=True)
    elif key == "broken":
        file.write_text("no key\n")
    host = Host("node", "127.0.0.1", server.host.user, server.port, str(file), str(server.known_hosts))

    with pytest.raises(AuthRejected, match="private key"):
        await connect(server, host).run(command("true"))


async def test_nobody_listening_is_unreachable(another, connect):
    server = another()
    server.stop()

    with pytest.raises(NodeUnreachable, match="refused") as caught:
        await connect(server).run(command("true"))
    assert caught.value.retryable


async def test_a_name_without_an_address_is_unreachable(connect):
    with pytest.raises(NodeUnreachable, match="no address"):
        await connect(None, Host.parse("no-such-host.invalid")).run(command("true"))


async def test_logins_of_many_transports_are_bounded(another, connect):
    server, logins = another(), Logins(2)
    transports = [connect(server, logins=logins) for _ in range(6)]
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, 2 - logins.slots.value)
            await asyncio.sleep(0)

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        async with anyio.create_task_group() as tasks:
            for transport in transports:
                tasks.start_soon(transport.run, command("true"))
        watching.cancel_scope.cancel()

    assert most == 2


def pretend(bin: Path, name: str, script: str) -> None:
    bin.mkdir(exist_ok=True)
    (bin / name).write_text(f"#!/bin/sh\n{script}\n")
    (bin / name).chmod(0o755)


async def test_a_login_that_is_not_root_uses_sudo(another, connect, tmp_path, mode):
    # A pretend sudo, and a pretend other user: what matters is the line that is sent.
    pretend(tmp_path / "bin", "sudo", 'printf "%s\\n" "$*" >> "$HOME/sudo.log"; shift 2; exec "$@"')
    server = another(path=[str(tmp_path / "bin")])
    ssh = connect(server)
    (await ssh._linked()).sudo = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ssh.run, shell('echo $$ > "$1"; exec sleep 600', str(tmp_path / "pid")))
        pid = await pid_in(tmp_path / "pid")
        tasks.cancel_scope.cancel()

    await until(lambda: not alive(pid))
    lines = (server.home / "sudo.log").read_text().splitlines()
    assert all(line.startswith("-n -- env LC_ALL=C sh -c") for line in lines if line.startswith("-n"))
    assert sum(line.startswith("-n") for line in lines) == {"exec": 2, "runner": 1}[mode]


async def test_root_needs_no_sudo(another, connect, tmp_path):
    pretend(tmp_path / "bin", "sudo", 'touch "$HOME/sudo.log"; shift 2; exec "$@"')
    server = another(path=[str(tmp_path / "bin")])

    assert (await connect(server).run(command("true"))).exit == 0
    assert not (server.home / "sudo.log").exists()


async def test_sudo_that_asks_for_a_password_is_not_a_failed_command(another, connect, tmp_path):
    pretend(tmp_path / "bin", "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    ssh = connect(another(path=[str(tmp_path / "bin")]))
    (await ssh._linked()).sudo = True

    with pytest.raises(NodeNotUsable, match="a password is required") as caught:
        await ssh.run(command("pct", "list"))
    assert "sudo -n" in caught.value.__notes__[0]


def public_key(server) -> str:
    return " ".join(server.host_key.with_name(server.host_key.name + ".pub").read_text().split()[:2])
