"""The journal of one driver: appends share syncs, and what is durable is published in order.

There is no writer task. Whoever appends while nobody writes leads: it lets the loop turn once, so that all that is ready
joins, hands the batch to a worker thread, publishes what came of it and wakes the others; the first of those who arrived in
the meantime leads next. So nothing has to be kept alive while a fleet is being cancelled and its operations write down how
they ended.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import anyio
import anyio.lowlevel

from nexcage._core.machine import Event, Machine
from nexcage._loop import Once
from nexcage._sinks.disk import Disk
from nexcage._sinks.holder import begin_anew
from nexcage._sinks.owners import Ownership, fleet_id, sweep_owners
from nexcage._sinks.statefile import StateFiles
from nexcage._sinks.store import Call, News, Sizes, Store
from nexcage._sinks.writer import Writer
from nexcage.abc import Draft
from nexcage.errors import JournalError

__all__ = ["FileJournal", "Sizes", "open_journal"]

OnEvents: TypeAlias = Callable[[tuple[Event, ...], Mapping[str, Machine]], None]

_LOG = logging.getLogger("nexcage")


class _Append(Call):
    __slots__ = ("served", "woken")

    def __init__(self, drafts: tuple[Draft, ...]) -> None:
        super().__init__(drafts)
        self.woken: Once | None = None  # there while it waits for whoever leads
        self.served = False

    def wake(self) -> None:
        if self.woken is not None:
            self.woken.set()


class FileJournal:
    """`nexcage.abc.Journal` in files. Made by `open_journal`."""

    def __init__(self, store: Store, *, inline: bool, on_events: OnEvents) -> None:
        self.fleet: str = ""
        self.owner: str = ""
        self.path: str = store.path
        self.own: Callable[[], None] | None = None
        """Makes this driver one that others see to be alive, as long as it is not: until then it must not begin anything."""
        self._store = store
        self._inline = inline
        self._on_events = on_events
        self._writer = Writer()
        self._machines: dict[str, Machine] = {}
        self._shown: Mapping[str, Machine] = MappingProxyType(self._machines)
        self._seq = 0
        self._waiting: list[_Append] = []
        self._led = False
        self._closed = False
        self._release: list[Callable[[], None]] = []

    @property
    def machines(self) -> Mapping[str, Machine]:
        """Every machine as the last durable record left it; a live view."""
        return self._shown

    @property
    def seq(self) -> int:
        """The number of the last durable record."""
        return self._seq

    @property
    def syncs(self) -> int:
        """How many times this driver has waited for the disk."""
        return self._store.syncs

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Containers whose records are damaged, and how; they cannot be changed until someone has looked."""
        return MappingProxyType(self._store.quarantined)

    @property
    def damage(self) -> tuple[str, ...]:
        """What was found wrong with the files, in words."""
        return tuple(self._store.damage)

    async def append(self, *drafts: Draft) -> tuple[Event, ...]:
        """Number the events and make them durable, all or none; they are published before it returns.

        A cancellation that arrives before the disk is asked writes nothing; later ones wait until it has answered. After asyncio's
        ``Task.cancel``, which is raised all the same, `machines` tells whether they stand. Drafts that are functions are called in a
        worker thread.
        """
        self._usable()
        if not drafts:
            return ()
        if self.own is not None:
            await anyio.lowlevel.checkpoint_if_cancelled()
            await self._owned()
        call = _Append(drafts)
        await self._serve(call)
        if call.error is not None:
            raise call.error
        return call.events

    def _usable(self) -> None:
        if self._closed:
            raise JournalError(f"the journal in {self.path} is closed")

    async def _owned(self) -> None:
        problems: list[OSError | JournalError] = []

        def claim() -> None:
            try:
                if self.own is not None:
                    self.own()
            except (OSError, JournalError) as error:
                problems.append(error)

        with anyio.CancelScope(shield=True):
            await self.run(claim)
        for problem in problems:
            raise JournalError(f"the journal in {self.path} cannot be written, so nothing new is begun: {problem}")

    async def refresh(self) -> None:
        """Read what other processes have appended, and publish it."""
        self._usable()
        call = _Append(())
        await self._serve(call)
        if call.error is not None:
            raise call.error

    async def aclose(self) -> None:
        """Wait for what is being written, then let go of files and ownership."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            while self._led:
                call = _Append(())
                await self._serve(call)
            with contextlib.ExitStack() as all_of_them:
                for release in (*self._release, self._writer.close):
                    all_of_them.callback(release)

    async def _serve(self, call: _Append) -> None:
        """Wait until it was written, or write it with all others that wait.

        There is one append for every step of every operation, so what costs anything (a shielded scope) is there only for the one that
        leads, and for those that are cancelled.
        """
        if not self._led:
            await anyio.lowlevel.checkpoint_if_cancelled()
        self._waiting.append(call)
        if self._led:
            call.woken = Once()
            try:
                await call.woken.wait()
            except BaseException:
                await self._answered(call)
                if call in self._waiting:
                    self._withdraw(call)
                    raise
                if anyio.current_effective_deadline() != -math.inf:  # asyncio's Task.cancel: nothing would say it again
                    raise
        if not call.served:
            with anyio.CancelScope(shield=True):
                await self._lead(call)

    async def _answered(self, call: _Append) -> None:
        """Until the disk, once it was asked, has answered; a cancelled scope says so again at the next checkpoint."""
        with anyio.CancelScope(shield=True):
            while call.woken is not None and call not in self._waiting and not call.served:
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await call.woken.wait()

    def _withdraw(self, call: _Append) -> None:
        self._waiting.remove(call)
        if call.woken is not None and call.woken.is_set():
            self._hand_on()

    def _hand_on(self) -> None:
        self._led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].wake()

    async def _lead(self, own: _Append) -> None:
        self._led = True
        batch: list[_Append] = []
        try:
            await anyio.lowlevel.cancel_shielded_checkpoint()
            batch, self._waiting = self._waiting, []
            news: list[News] = []
            try:
                await self.run(lambda: news.append(self._store.commit(batch)))
            finally:
                if news:
                    self._publish(news[0])
                    for call in batch:
                        call.served = True
                        call.wake()
        finally:
            # Only a cancellation that goes through shields leaves some unserved: they go on without the one that was cancelled.
            self._waiting = [call for call in batch + self._waiting if not call.served and call is not own]
            self._hand_on()

    async def run(self, work: Callable[[], None]) -> None:
        """Do it in a thread and do not come back before it is done or will surely never be, also when cancelled natively."""
        if self._inline:
            work()
            return
        claim = threading.Lock()
        done = threading.Event()

        def claimed() -> None:
            if claim.acquire(blocking=False):
                try:
                    work()
                finally:
                    done.set()

        try:
            await self._writer.run(claimed)
        except BaseException:
            while not claim.acquire(blocking=False) and not done.is_set():
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep(0.001)
            raise

    def _publish(self, news: News) -> None:
        for id, machine in news.machines.items():
            if machine is None:
                self._machines.pop(id, None)
            else:
                self._machines[id] = machine
        if not news.events:
            return
        self._seq = news.events[-1].seq
        try:
            self._on_events(tuple(news.events), self._shown)
        except Exception:  # noqa: BLE001 (whoever listens never breaks who writes)
            _LOG.exception("a subscriber of the journal failed")

    def on_close(self, release: Callable[[], None]) -> None:
        """What to let go of when it closes, the last first."""
        self._release.append(release)

    def adopt(self) -> None:
        """After the store was opened: its machines are ours."""
        self._machines.clear()
        self._machines.update(self._store.machines)
        self._seq = self._store.seq


def _nothing(events: tuple[Event, ...], machines: Mapping[str, Machine]) -> None:
    pass


@contextlib.asynccontextmanager
async def open_journal(
    state_dir: str | os.PathLike[str],
    *,
    owner: str,
    run_dir: str | os.PathLike[str] | None = None,
    fleet: str = "",
    clock: Callable[[], float] = time.time,
    inline: bool = False,
    sizes: Sizes | None = None,
    disk: Disk | None = None,
    on_events: OnEvents = _nothing,
) -> AsyncGenerator[FileJournal]:
    """The journal in ``STATE_DIR/journal``, with the fleet's id and this driver's ownership; closed when the context ends.

    ``run_dir`` is where state files are projected (None: nowhere), ``fleet`` a configured id, ``inline`` does everything on
    the loop (for simulations under a virtual clock). ``on_events`` is called on the loop with each batch that became durable, in
    order; it must not wait.
    Raises JournalError when the journal cannot be read, or when state_dir or run_dir belongs to another fleet.
    """
    state = os.path.abspath(state_dir)  # noqa: ASYNC240 (asks only for the working directory)
    port = disk or Disk()
    store = Store(os.path.join(state, "journal"), disk=port, clock=clock, sizes=sizes or Sizes())
    journal = FileJournal(store, inline=inline, on_events=on_events)

    release = journal.on_close

    release(store.close)

    def own() -> None:
        if not journal.fleet:
            raise JournalError(f"there is no fleet id in {state}; open the fleet again")
        release(Ownership(port, state, owner, clock()).release)
        fleet_id(port, state, journal.fleet)
        journal.owner, journal.own = owner, None

    def begin() -> None:
        try:
            journal.fleet = fleet_id(port, state, fleet)
            sweep_owners(port, state, {machine.running.owner for machine in store.machines.values() if machine.running})
            if not store.seq:
                begin_anew(port, state)
            own()
        except OSError as error:
            _LOG.warning("the journal in %s can only be read: %s", state, error)
        if run_dir is not None and journal.fleet:
            files = StateFiles(port, os.fspath(run_dir), journal.fleet)
            release(files.close)
            files.rebuild(store.machines, store.touched)
            store.project = files.project

    def opening() -> None:
        try:
            store.open(begin)
        except OSError as error:
            raise JournalError(f"cannot open the journal in {state}: {error}") from None

    journal.fleet, journal.own = fleet, own
    try:
        with anyio.CancelScope(shield=True):
            await journal.run(opening)
        journal.adopt()
        yield journal
    finally:
        await journal.aclose()
