"""One container of a fleet, as people hold it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import anyio

from nexcage._core.command import MIB
from nexcage._core.drift import Difference
from nexcage._core.inside import Addresses, Copied, Executed, Process
from nexcage._core.intents import Create, Delete, Kill, Pause, Resume, Start, Stop
from nexcage._core.machine import Machine
from nexcage._core.oci import OciState
from nexcage._core.outcome import Done
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.spec import Spec
from nexcage._core.states import State
from nexcage._engine import copying, insight
from nexcage._engine.inside import ExecStream
from nexcage._engine.keeping import Keeps
from nexcage.errors import NexcageError, NotFound

__all__ = ["Container"]


class Container(Keeps):
    """A handle: it holds the id and the fleet, nothing else, so it never goes stale. Made by ``fleet["web-1"]``.

    Every verb raises the library's typed errors; a cancel ends the running command by its class and leaves UNKNOWN.
    ``wait``: for an
    operation of another driver, instead of raising Busy.
    """

    @property
    def machine(self) -> Machine:
        """What the journal says, without looking."""
        return self._fleet.machines.get(self.id) or Machine(self.id)

    def __repr__(self) -> str:
        machine = self.machine
        parts = [str(machine.state)]
        if machine.pid:
            parts.append(f"pid {machine.pid}")
        if machine.vmid:
            number = "" if machine.backend in RUNTIMES else f" {machine.vmid}"
            parts.append(f"{machine.backend}{number} on {machine.node}")
        return f"<Container {self.id}: {', '.join(parts)}>"

    async def create(self, spec: Spec, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Make it; raises AlreadyExists, UnsupportedImage, NoRoute and what the node says."""
        return await self._fleet.do(Create(self.id, spec, op_id), wait=wait)

    async def start(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Run it; done when it was seen running with its init's pid."""
        return await self._fleet.do(Start(self.id, op_id=op_id), wait=wait)

    async def stop(
        self, timeout: float = 60.0, *, force: bool = False, op_id: str | None = None, wait: bool = False
    ) -> Done:
        """Ask, wait ``timeout`` seconds, then force; ``force`` does not ask and ends a graceful stop that is under way."""
        return await self._fleet.do(Stop(self.id, timeout=timeout, force=force, op_id=op_id), wait=wait)

    async def kill(self, signal: int | str = "TERM", *, op_id: str | None = None, wait: bool = False) -> Done:
        """Deliver a signal to its init from the host. Done says delivered, not stopped. Never repeated by itself."""
        return await self._fleet.do(Kill(self.id, signal, op_id=op_id), wait=wait)

    async def pause(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Freeze it."""
        return await self._fleet.do(Pause(self.id, op_id=op_id), wait=wait)

    async def resume(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Thaw it."""
        return await self._fleet.do(Resume(self.id, op_id=op_id), wait=wait)

    async def delete(
        self, *, force: bool = False, purge: bool = False, op_id: str | None = None, wait: bool = False
    ) -> Done:
        """Destroy it and its volumes, if it is still the one that we made; NotOurs otherwise."""
        return await self._fleet.do(Delete(self.id, force=force, purge=purge, op_id=op_id), wait=wait)

    async def state(self) -> OciState:
        """Its OCI state, looked up now; a difference is recorded as Observed first.

        With the node away it is the last record with the annotation ``org.nexcage.stale``. Raises NotFound for an unknown id.
        """
        return (await self._fleet.states(self.id))[self.id]

    # ---- inside ------------------------------------------------------------------------------------------------------------

    async def exec(
        self,
        argv: Sequence[str | bytes],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        cap: int = MIB,
        op_id: str | None = None,
    ) -> Executed:
        """Run a program inside to its end. Its exit status is in the answer, whatever it is; only what kept it from running raises.

        ``env`` is all that it gets besides PATH, HOME and ``container=lxc``; no value of it is in any argv or in the journal. ``user``
        is a name, UID or UID:GID. ``cap``: bytes of stdout and of stderr that are kept. A cancel or ``timeout`` (NodeTimeout) kills it.
        It is never repeated: a lost answer raises Uncertain. The same ``op_id`` again gives the same exit status, and nothing runs.
        """
        return await self._fleet.insider.exec(
            self.id, argv, stdin=stdin, env=env, cwd=cwd, user=user, timeout=timeout, cap=cap, op_id=op_id
        )

    def exec_stream(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        size: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[ExecStream]:
        """The same with its streams in hand, byte for byte and with back-pressure both ways; leaving the context kills it.

        ``size`` (rows, columns) gives it a terminal.
        """
        return self._fleet.insider.stream(self.id, argv, env=env, cwd=cwd, user=user, size=size, timeout=timeout)

    async def push(
        self,
        local: str | os.PathLike[str] | bytes,
        path: str,
        *,
        mode: int | None = None,
        owner: str = "",
    ) -> Copied:
        """Write a file (or bytes) to ``path`` inside: whole or not at all. Its checksum is compared there before it takes its place.

        ``mode``: the local file's, if not given. ``owner``: root, or USER[:GROUP] as known inside. Needs a shell inside.
        """
        return await copying.push(self._fleet.insider, self.id, local, path, mode=mode, owner=owner)

    async def pull(self, path: str, local: str | os.PathLike[str], *, mode: int | None = None) -> Copied:
        """Read the file ``path`` inside into ``local``: whole or not at all, with its permissions (not set-user-ID and the like) if no
        ``mode`` is given. Needs a shell inside.
        """
        return await copying.pull(self._fleet.insider, self.id, path, local, mode=mode)

    async def ps(self) -> tuple[Process, ...]:
        """Its processes, as its node sees them; nothing runs inside for it."""
        return await insight.processes(self._fleet.insider, self.id)

    def logs(self, *, lines: int = 100, follow: bool = False) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The newest lines of its console's log, where its config names one (``lxc.console.logfile``), else of its journal or syslog.

        ``follow``: and what comes after them, until the context is left. Raises NotFound where there is none.
        """
        return insight.logs(self._fleet.insider, self.id, lines=lines, follow=follow)

    async def addresses(self) -> Addresses:
        """Its IP addresses and the TCP ports that something listens on; empty when it does not run. Raises NodeError."""
        found, errors = await insight.addresses(self._fleet.insider, [self.machine])
        for error in errors.values():
            raise error
        return found.get(self.id, Addresses())

    async def wait_ready(
        self,
        *,
        network: bool = True,
        port: int | None = None,
        command: Sequence[str | bytes] | None = None,
        timeout: float | None = 60.0,
    ) -> Addresses:
        """Wait until it has an address, something listens on ``port``, and ``command`` inside exits with 0, as far as asked for.

        The command is repeated until then and not journaled: it should only look. Raises TimeoutError that says what is lacking.
        """
        return await insight.ready(
            self._fleet.insider, self.id, network=network, port=port, command=command, timeout=timeout
        )

    async def reconcile(self) -> Difference | None:
        """Look, record what differs, leave UNKNOWN, and do what ``on_drift`` says; raises NodeError when the node cannot be seen."""
        found = await self._fleet.reconcile(self.id)
        return found[0] if found else None

    async def wait(self, *states: State | str, timeout: float | None = None) -> State:
        """Wait until it is in one of ``states`` (default: STOPPED or ABSENT), by events and by looking now and then.

        Raises TimeoutError after ``timeout`` seconds and NotFound for an id that nobody knows, unless ABSENT is waited for.
        """
        wanted = {State(state) for state in states} or {State.STOPPED, State.ABSENT}
        if self.machine.state is State.ABSENT and State.ABSENT not in wanted and not self.machine.seq:
            raise NotFound("container", self.id)
        with anyio.fail_after(timeout):
            async with self._fleet.events.subscribe(ids=[self.id]) as events:
                nap = 0.1
                while self.machine.state not in wanted:
                    with anyio.move_on_after(nap):
                        if await anext(events, None) is None:
                            raise NexcageError(f"the fleet was closed while waiting for container '{self.id}'")
                        continue
                    nap = min(nap * 2, 5.0)
                    await self._fleet.observe(self.id)
        return self.machine.state
