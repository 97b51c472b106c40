"""The channel that carries a runner: asked for, opened through a login shell, and then frames both ways."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Any

import anyio

from nexcage._transports.dial import SshSettings, plain, translate
from nexcage._transports.link import Link
from nexcage._transports.runner import Runner
from nexcage._transports.wire import starting
from nexcage.errors import NexcageError, NodeNotUsable, NodeTimeout

__all__ = ["start_runner"]

SUDO = "a login that is not root needs `sudo -n` without a password"


async def start_runner(key: str, link: Link, settings: SshSettings, random: Random) -> Runner:
    """A runner on the node behind ``link``, greeted.

    Raises NodeNotUsable when none can run there, NodeTimeout when no channel opens, and when the link is lost what it was lost by.
    """
    gives_up = anyio.current_time() + settings.open_timeout
    refused = 0
    failure: BaseException | None = None
    while True:
        carrier = Carrier(key, link, settings)
        try:
            with anyio.move_on_after(gives_up - anyio.current_time()):
                link.open(carrier, starting(carrier.nonce, heartbeat=settings.keepalive, sudo=link.sudo))
                await carrier.opening_over.wait()
                if carrier.sent:
                    await carrier.runner.greeted()
                    carrier.watched_by_runner()
                    return carrier.runner
        except NexcageError as error:
            if link.lost and carrier.failure is not None:
                raise translate(carrier.failure, key) from error
            raise carrier.explained(error) from error
        finally:
            if carrier.runner.hello is None:
                carrier.close()
        if not carrier.opening_over.is_set() and failure is None:
            raise NodeTimeout(key, f"it opened no channel within {settings.open_timeout:g} seconds")
        if carrier.sent:
            raise carrier.explained(NodeNotUsable(key, f"no runner started within {settings.open_timeout:g} seconds"))
        failure = carrier.failure or failure or ConnectionError("no channel")
        if link.lost:
            raise translate(failure, key) from failure
        if anyio.current_time() >= gives_up:
            advice = "look at MaxSessions in its sshd_config"
            raise NodeNotUsable(key, f"sshd refuses sessions ({plain(failure)}); {advice}") from failure
        refused += 1
        await anyio.sleep(random.uniform(0, min(1.0, 0.02 * 2**refused)))


class Carrier:
    """The client session that asyncssh calls for a runner's channel."""

    KEPT = 4096

    def __init__(self, key: str, link: Link, settings: SshSettings) -> None:
        self.opening_over = asyncio.Event()
        """Set when the channel is open and the line is on its way, or when there is a `failure` instead."""
        self.sent = False
        self.failure: BaseException | None = None
        self.unwanted = False
        """Nobody waits for the channel any more: close it as soon as it opens."""
        self.nonce = link.nonce()
        self.runner = Runner(
            key,
            self.nonce,
            write=self.write,
            abort=self._abort,
            patience=settings.patience,
            heartbeat=settings.keepalive,
        )
        self._link = link
        self._keepalive = settings.keepalive
        self._status: int | None = None
        self._said = b""
        self._channel: Any = None  # Any: asyncssh's client channel; it is imported when first used

    def write(self, data: bytes) -> None:
        """Send. What a channel that is closing takes no more is lost with it."""
        if self._channel is not None:
            try:  # noqa: SIM105 - once for every packet, where a context manager is felt
                self._channel.write(data)
            except OSError:
                pass

    def close(self) -> None:
        """Close the channel, now or as soon as it opens: the runner reads the end of its input."""
        self.unwanted = True
        if self._channel is not None:
            self._channel.close()

    def watched_by_runner(self) -> None:
        """The runner's heartbeat looks after the link from here on; asyncssh's own would set its timer again with every packet."""
        if not self.runner.over:
            self._link.conn.set_keepalive(0)

    def _abort(self) -> None:
        """The runner is over and the channel with it; nobody is to find it on this connection."""
        if self.runner.hello is not None:
            self._link.note_lost()
            self._link.conn.set_keepalive(self._keepalive)  # a dead link never says that the channel is closed
        self.close()

    def explained(self, error: NexcageError) -> NexcageError:
        """``error`` with what the node's shell said and how it ended."""
        words = plain(self._said.decode("utf-8", "replace").strip()) if self._said.strip() else ""
        if not words and self._status is not None:
            words = f"exit status {self._status}, no message"
        if not words or not isinstance(error, NodeNotUsable):
            return error
        explained = NodeNotUsable(error.node, f"it started no runner: {words}")
        for note in (*getattr(error, "__notes__", ()), SUDO if "sudo" in words else ""):
            explained.noted(note)
        return explained

    # What asyncssh calls.

    def connection_made(self, chan: Any) -> None:  # Any: as above
        if self.unwanted:
            chan.close()
            raise ConnectionAbortedError("nobody waits for this channel any more")
        self._channel = chan
        if not logging.getLogger("asyncssh").isEnabledFor(logging.DEBUG):
            chan.log_sent_packet = chan.log_received_packet = _unlogged  # they prepare a line even when nobody reads it
        self.sent = True
        self.opening_over.set()

    def session_started(self) -> None:
        self.runner.start()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self.runner.data_received(data)
        else:
            self._said = (self._said + data)[-self.KEPT :]

    def eof_received(self) -> bool:
        return True

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002 - its signature
        self._said = (self._said + f"\nended by SIG{name}".encode())[-self.KEPT :]

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        self.runner.lost(f"the link was lost ({plain(exc)})" if exc is not None else "its channel was closed")
        if self.runner.hello is not None:  # no second one on this connection: what became of the first is not known
            self._link.drop()

    def pause_writing(self) -> None:
        self.runner.pause_writing()

    def resume_writing(self) -> None:
        self.runner.resume_writing()

    def xon_xoff_requested(self, client_can_do: bool) -> None: ...

    def opened(self, task: asyncio.Task[object]) -> None:
        """The end of the attempt to open the channel and to hand over the line."""
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if failure is not None:
            self.failure = failure
            self.opening_over.set()
            self.runner.lost(plain(failure))


def _unlogged(*packet: object) -> None: ...
