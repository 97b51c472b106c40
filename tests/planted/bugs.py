"""Known mistakes, one patched function each. They exist to ask the suites: would you have noticed?

Nothing in nexcage knows about them. A mistake is planted in a process of its own (see `plugin`), before anything is imported by
the tests that are to find it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["BUGS", "plant"]

BUGS: dict[str, Callable[[], None]] = {}
"""Name of the mistake -> what makes it."""


def bug(make: Callable[[], None]) -> Callable[[], None]:
    BUGS[make.__name__.replace("_", "-")] = make
    return make


def plant(name: str) -> None:
    """Make the mistake in this process."""
    BUGS[name]()


def replace(old: Any, new: Any) -> None:
    """Put a function in the place of another one, in every module that has imported it."""
    found = 0
    for name, module in list(sys.modules.items()):
        if name == "nexcage" or name.startswith("nexcage."):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)
                    found += 1
    assert found, f"nobody has {old}"


def loaded() -> None:
    """Import whatever might hold a function under its own name."""
    import nexcage._backends.lxc
    import nexcage._open
    import nexcage._transports.local
    import nexcage._transports.ssh
    import nexcage.testing.cluster
    import nexcage.testing.memory  # noqa: F401


@bug
def missing_exit_is_0() -> None:
    """A lost answer is taken for success."""
    from nexcage._engine.node import FleetNode

    right = FleetNode.call

    async def call(self: Any, *args: Any, **more: Any) -> Any:
        result = await right(self, *args, **more)
        return msgspec.structs.replace(result, exit=0 if result.exit is None else result.exit)

    FleetNode.call = call  # type: ignore[method-assign]


@bug
def sync_is_skipped() -> None:
    """A record is called durable when it was only written."""
    from nexcage._sinks.store import Store

    def _sync(self: Any, fd: int) -> None:
        self.syncs += 1

    Store._sync = _sync  # type: ignore[method-assign]


@bug
def published_before_it_is_durable() -> None:
    """Subscribers and the machines hear of a record before the disk has it."""
    from nexcage._sinks.store import Store

    right = Store._write

    def _write(self: Any, calls: Any, news: Any) -> None:
        written = self._append

        def early(data: bytes) -> None:
            told: list[Any] = [event for call in calls for event in call.events]
            news.events += told
            written(data)
            for event in told:
                news.events.remove(event)  # they are added again, as they ought to be

        self._append = early
        try:
            right(self, calls, news)
        finally:
            del self._append

    Store._write = _write  # type: ignore[method-assign]


@bug
def identity_is_not_checked() -> None:
    """A command goes to a VMID, whoever's container that is by now."""
    loaded()
    from nexcage.tools import lxc

    replace(lxc.guarded, lambda mark, command: command)


@bug
def vmids_match_as_substrings() -> None:
    """A task that works on 1041 is taken for one that works on 104."""
    loaded()
    from nexcage._core import seen

    def task_of(look: Any, vmid: int) -> Any:
        return next((task for task in look.tasks if str(vmid) in str(task.vmid)), None)

    replace(seen.task_of, task_of)


@bug
def a_signal_is_sent_again() -> None:
    """A kill whose answer was lost is simply repeated."""
    from nexcage._core.states import Op
    from nexcage._engine.attempt import Attempt

    right = Attempt._verb

    async def _verb(self: Any) -> Any:
        error, lost = await right(self)
        if lost and self._began.op is Op.KILL:
            return await right(self)
        return error, lost

    Attempt._verb = _verb  # type: ignore[method-assign]


@bug
def a_program_is_run_again() -> None:
    """A program inside a container whose answer was lost is simply run once more."""
    from nexcage._engine.inside import Insider

    right = Insider._run

    async def _run(self: Any, *args: Any) -> Any:
        result = await right(self, *args)
        return await right(self, *args) if result.exit is None else result

    Insider._run = _run  # type: ignore[method-assign]


@bug
def unlocked_without_proof() -> None:
    """Whatever is half made is called ours, and removed."""
    loaded()
    from nexcage._core import evidence

    right = evidence.judge

    def judge(began: Any, machine: Any, look: Any, last: Any, fleet: str, *, kept: float) -> Any:
        finding = right(began, machine, look, last, fleet, kept=kept)
        if evidence.half(began, machine, look) is not None and machine.steps:
            return evidence.Judgement("half", "repair")
        return finding

    replace(right, judge)


@bug
def names_end_at_a_dollar() -> None:
    r"""``$`` instead of a full match: a name may end with a line break."""
    loaded()
    from nexcage.errors import InvalidName
    from nexcage.names import _checks

    def matched(field: str, value: object, pattern: str, limit: int, reason: str) -> str:
        name = _checks.text(field, value)
        if len(name) > limit or not re.match(f"(?:{pattern})$", name):
            raise InvalidName(field, name, reason)
        return name

    replace(_checks.matched, matched)


@bug
def output_is_text() -> None:
    """What a node prints is decoded strictly, as if it were always UTF-8."""
    loaded()
    from nexcage._core import command

    replace(command.shown, lambda data, limit=4096: data[-limit:].decode("utf-8"))


@bug
def a_lease_without_epoch() -> None:
    """Whoever takes a lease goes on with the epoch of the one before."""
    from nexcage._sinks.lease import FileLease

    def _renew(self: Any) -> Any:
        with self._locked() as folder:
            if folder is None:
                return None
            now, held = self._clock(), self._read(folder)
            if held is not None and held.holder != self.holder.id:
                self._refuse_if_held(folder, held, now)
            return self._write(folder, held.epoch if held is not None else int(now), now)

    FileLease._renew = _renew  # type: ignore[method-assign]
