"""Faults: what can go wrong with a node, its link and its commands, in one vocabulary for every way in.

A fault with no command named happens at once where that makes sense (``crash``, ``partition``, ...); the others wait for the next
command that matches, ``times`` times. They are kept in a file of the cluster and taken from it in the same step in which the
command begins, so that commands in this process, behind a server and in executables share them.

This module is read by every executable of a simulated node: it imports nothing slow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Generator, Mapping
from typing import TYPE_CHECKING, Any

from nexcage.errors import InvalidInput
from nexcage.testing._model.tool import Ctx, Flock, Interrupted, Sleep, Steps, Tool, Wait

if TYPE_CHECKING:
    from nexcage.testing._model.node import Node

__all__ = [
    "ARRIVING",
    "AT_ONCE",
    "FAULTS",
    "Fault",
    "Ground",
    "add",
    "happen",
    "kind_of",
    "serial",
    "state_of",
    "taken",
    "under_faults",
    "update",
]

FAULTS: Mapping[str, str] = {
    "crash": "the node goes down: its processes vanish, its files and config locks stay",
    "restart": "the node boots: down and up again, with a new boot id",
    "partition": "the node answers nothing any more; what runs on it goes on",
    "heal": "the end of a partition",
    "drop-open": "the link is lost while the command's channel is opened: it is never sent",
    "drop-before": "the link is lost when the command arrives, before it begins",
    "drop-during": "the link is lost once the command has changed something; the command goes on",
    "drop-after": "the command ends and its answer is lost with the link",
    "half-open": "the command arrives and its answer never does; nothing tells until the link is given up",
    "kill-worker": "the command is killed half-way, as kill -9 does: what it had made and locked stays",
    "kill-supervisor": "so is what watches over it: nobody writes its status down",
    "stall": "the command begins and does not get on",
    "slow": "the command takes some seconds longer",
    "wrong-exit": "the command does its work and reports failure, or fails and reports success",
    "garbage": "the command's output is rubbish",
    "endless": "the command never stops printing",
    "non-utf8": "the command's output has bytes that are not UTF-8",
    "lock-held": "somebody else holds the container's lock",
    "host-key": "the node shows another host key",
    "busy": "somebody else's task has the container: its flock and, if asked, its config lock; it may die and leave that",
    "rival": "somebody else takes the VMID just before the command, or just after it has failed",
    "swap": "somebody else has destroyed the container and made another with its VMID",
    "migrate": "somebody else has moved the container to another node",
    "ha-delay": "the container is managed by HA: requests return early, and its state changes later",
    "no-quorum": "the node does not see the majority of its cluster: nothing in /etc/pve can be changed",
    "quorum": "the end of that",
    "storage-full": "nothing more can be written to a storage",
    "storage-free": "the end of that",
    "clock-jump": "the node's clock is set; how long it has been up does not change",
}
"""Every kind of fault, and what it means."""
_SAME: Mapping[str, str] = {
    "changed-host-key": "host-key",
    "hostkey": "host-key",
    "garbage-output": "garbage",
    "endless-output": "endless",
    "lock": "lock-held",
    "nonutf8": "non-utf8",
}
_ITSELF = ("crash", "restart", "partition", "heal", "host-key")
_BY_OTHERS = ("no-quorum", "quorum", "storage-full", "storage-free", "clock-jump")
_TO_ONE = ("busy", "rival", "swap", "migrate", "ha-delay")
AT_ONCE = frozenset({*_ITSELF, *_BY_OTHERS, *_TO_ONE})
"""Kinds that need no command: without one they happen at once (to the container ``vmid``, where it takes one)."""

ARRIVING = frozenset({"drop-open", "drop-before"})
"""Kinds that keep a command from beginning."""

FILE = "/etc/pve/faults.json"
_FOR_EVER = 1e12
_INTERRUPTIBLE = 3600.0
_CHUNK = 4096
_LOOKS, _LOOKS_AT_PROCESSES = 250, 3000

_parsed: tuple[str, dict[str, Any]] = ("", {})  # Any: JSON


def _document(node: Node) -> dict[str, Any]:  # Any: JSON
    global _parsed
    text = node.files.read(FILE) or "{}"
    if text is not _parsed[0] and text != _parsed[0]:
        _parsed = (text, json.loads(text))
    return _parsed[1]


def kind_of(word: object) -> str:
    """The kind that ``word`` means, also as people say it: ``wrong exit``, ``non-UTF-8``, ``changed host key``."""
    text = word if isinstance(word, str) else ""
    kind = "-".join(text.lower().replace("_", " ").replace("-", " ").split()).replace("utf-8", "utf8")
    kind = _SAME.get(kind, kind)
    if kind not in FAULTS:
        raise InvalidInput("fault", word, f"one of {', '.join(FAULTS)}")
    return kind


class Fault:
    """One scripted fault; its options are in the table of `nexcage.testing.SimNode.fault`."""

    __slots__ = ("kind", "on", "options", "times")

    def __init__(self, kind: str, on: str | None = None, times: int = 1, **options: object) -> None:
        kind = kind_of(kind)
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise InvalidInput("times", times, "how often it happens, 0 for always")
        self.kind: str = kind
        self.on: str = on or ""
        self.times: int = times
        self.options: dict[str, object] = options

    def __repr__(self) -> str:
        return f"<Fault {self.kind} on {self.on or 'anything'}, {self.times or 'any number of'} times>"

    def matches(self, argv: tuple[str, ...]) -> bool:
        """Whether ``on``'s words stand in the command: at its beginning, or after the words of a shell script that runs it."""
        words = tuple(self.on.split())
        if argv[: len(words)] == words:
            return True
        if argv[:2] != ("sh", "-c") or len(argv) < 3:
            return False
        if len(words) == 1 and re.search(rf"(?m)^ *(?:\w+=\$\()?(?:env )?{re.escape(words[0])} ", argv[2]):
            return argv[2].count("\n") < 12  # short scripts that are about this program; a look reads everything
        return any(argv[n : n + len(words)] == words for n in range(3, len(argv)))

    def record(self) -> dict[str, object]:
        """As it stands in the file."""
        return {"kind": self.kind, "on": self.on, "times": self.times, **self.options}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Fault:  # Any: JSON
        """From the file."""
        more = {key: value for key, value in record.items() if key not in ("kind", "on", "times")}
        return cls(record["kind"], record["on"], record["times"], **more)


def state_of(node: Node) -> dict[str, Any]:  # Any: JSON
    """How the node is: ``down``, ``partitioned``, ``boots`` (how often it went down), ``key`` (how often its host key changed)."""
    state: dict[str, Any] = _document(node).get(node.name, {})
    return state


def serial(node: Node) -> int:
    """How often anything about faults has changed in the cluster."""
    return int(_document(node).get(".", 0))


def update(node: Node, **changes: object) -> None:
    """Change how the node is; call it within a step."""
    document = dict(_document(node))
    document[node.name] = {**document.get(node.name, {}), **changes}
    document["."] = document.get(".", 0) + 1
    node.files.write(FILE, json.dumps(document))


def add(node: Node, fault: Fault) -> None:
    """Script a fault; call it within a step."""
    update(node, faults=[*state_of(node).get("faults", []), fault.record()])


def taken(node: Node, argv: tuple[str, ...], kinds: Container[str] = FAULTS) -> Fault | None:
    """The fault for this command, counted down; call it within a step."""
    waiting: list[dict[str, Any]] = state_of(node).get("faults", [])  # Any: JSON
    for n, record in enumerate(waiting):
        fault = Fault.read(record)
        if fault.kind in kinds and fault.matches(argv):
            if fault.times == 0:
                return fault
            rest = [{**record, "times": fault.times - 1}] if fault.times > 1 else []
            update(node, faults=[*waiting[:n], *rest, *waiting[n + 1 :]])
            return fault
    return None


def happen(node: Node, kind: str, *, new_boot: bool = True, **options: object) -> None:
    """What becomes of the node's files and state when ``kind`` happens to it; call it within a step.

    Links are not files: whoever serves the node sees the new state and acts on it.
    """
    state = state_of(node)
    if kind in ("crash", "restart"):
        _go_down(node, new_boot=new_boot and kind == "restart")
        update(node, down=kind == "crash", boots=state.get("boots", 0) + 1)
    elif kind in ("partition", "heal"):
        update(node, partitioned=kind == "partition")
    elif kind == "host-key":
        update(node, key=state.get("key", 0) + 1)
    elif kind in AT_ONCE:
        from nexcage.testing._model.others import act

        vmid = options.get("vmid")
        if kind in _TO_ONE and not isinstance(vmid, int):
            raise InvalidInput("fault", kind, "given a command (on=...) or a container (vmid=...)")
        act(node, kind, vmid if isinstance(vmid, int) else 0, options)
    else:
        raise InvalidInput("fault", kind, f"one that needs no command: {', '.join(sorted(AT_ONCE))}")


def _go_down(node: Node, *, new_boot: bool) -> None:
    from nexcage.testing._model.world import restart

    path = "/proc/sys/kernel/random/boot_id"
    boot = node.files.read(path)
    outer, node.current = node.current, None  # what a crash ends is nobody's effect
    try:
        restart(node)
    finally:
        node.current = outer
    if not new_boot and boot is not None:
        node.files.write(path, boot)


class Ground:
    """What a command stands on: the link that it came by and the machine that it runs on. Each way in has its own."""

    @property
    def blocked(self) -> bool:
        """Whether nobody takes its output for now."""
        return False

    @property
    def arrived(self) -> bool:
        """Whether whoever began it has asked for faults of the way already."""
        return False

    @property
    def supervised(self) -> bool:
        """Whether it is a claimed command, whose supervisor writes down how it ended."""
        return False

    def cut(self) -> None:
        """The link is lost; the command goes on."""

    def mute(self) -> None:
        """From now on nothing that the node sends arrives."""

    def beside(self, argv: tuple[str, ...]) -> None:
        """Begin another command on the same machine, which is nobody's answer."""

    def killed(self) -> None:
        """SIGKILL: the command must not take another step."""

    def gone(self) -> None:
        """The machine went down under the command: it must not take another step."""

    def happen(self, kind: str) -> None:
        """``crash``, ``restart``, ``partition``, ``heal`` or ``host-key`` happens to the node now."""


class _Inner:
    """A tool inside another one: go on with it until it waits or ends."""

    def __init__(self, steps: Steps) -> None:
        self._steps: Steps = steps
        self.answer: Any = None  # Any: what a wait is answered with depends on the wait
        self.thrown: Interrupted | None = None
        self.status: int = 0

    def go(self) -> Wait | None:
        """What it waits for next; None when it has ended with `status`."""
        thrown, self.thrown = self.thrown, None
        try:
            return self._steps.send(self.answer) if thrown is None else self._steps.throw(thrown)
        except StopIteration as end:
            self.status = end.value
            return None

    def wait(self, wait: Wait) -> Generator[Wait, Any, None]:  # Any: as above
        """Let ``wait`` pass; the tool goes on with what came of it."""
        self.answer = None
        try:
            self.answer = yield wait
        except Interrupted as error:
            self.thrown = error


def under_faults(tool: Tool, ground: Ground) -> Tool:
    """``tool`` with what may happen to it: faults, and the end of its machine."""

    def run(ctx: Ctx) -> Steps:
        node = ctx.node
        boots = state_of(node).get("boots", 0)
        fault = taken(node, ctx.argv, _kinds(ctx.argv, ground)) if state_of(node).get("faults") else None
        inner = _Inner((tool if fault is None else _FAULTY[fault.kind](tool, fault, ground))(ctx))
        while (wait := inner.go()) is not None:
            yield from inner.wait(wait)
            if state_of(node).get("boots", 0) != boots:
                ground.gone()
                yield Sleep(0)
        return inner.status

    return run


def _kinds(argv: tuple[str, ...], ground: Ground) -> Container[str]:
    """A script that keeps a claim arrives; what else may happen, happens to the command that it runs."""
    if ground.arrived:
        return FAULTS.keys() - ARRIVING
    return ARRIVING if len(argv) > 2 and "@nexcage claim" in argv[2] else FAULTS


# --- one generator per kind ---------------------------------------------------------------------------------------------


def _with(tool: Tool, *, when: Callable[[Ctx], bool], then: Callable[[], None]) -> Tool:
    """``then`` happens at the first wait after ``when``, at the latest when the tool has ended."""

    def run(ctx: Ctx) -> Steps:
        ctx.watched = True
        inner = _Inner(tool(ctx))
        happened = False
        while (wait := inner.go()) is not None:
            now = not happened and when(ctx)
            yield from inner.wait(wait)
            if now:
                happened = True
                then()
                try:
                    yield Sleep(0)
                except Interrupted as error:  # what happened ended it: it is the tool that cleans up
                    inner.thrown = error
        if not happened:
            yield Sleep(0)
            then()
        return inner.status

    return run


def _changed(ctx: Ctx) -> bool:
    return ctx.seq is not None


def _never(ctx: Ctx) -> bool:
    return False


def _drop_before(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        yield Sleep(0)
        ground.cut()
        if ground.supervised:  # too late to keep it from beginning
            return (yield from tool(ctx))
        return 255

    return run


def _drop_during(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    return _with(tool, when=_changed, then=ground.cut)


def _drop_after(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    return _with(tool, when=_never, then=ground.cut)


def _half_open(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        ground.mute()
        return (yield from tool(ctx))

    return run


def _kill_worker(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    return _with(tool, when=_changed, then=ground.killed)


def _kill_supervisor(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    return _with(tool, when=_changed, then=ground.gone)


def _happens(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    return _with(tool, when=_changed, then=lambda: ground.happen(fault.kind))


def _seconds(fault: Fault, otherwise: float) -> float:
    value = fault.options.get("seconds")
    return float(value) if isinstance(value, (int, float)) else otherwise


def _stall(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        left = _seconds(fault, _FOR_EVER)
        inner = _Inner(tool(ctx))
        wait = inner.go()
        while left > 0 and inner.thrown is None:
            yield from inner.wait(Sleep(min(left, _INTERRUPTIBLE)))
            left -= _INTERRUPTIBLE
            if fault.options.get("deaf"):
                inner.thrown = None
        if inner.thrown is not None:
            if wait is None:
                raise inner.thrown
            wait = inner.go()
        while wait is not None:  # the rest as usual, beginning with the wait that it was in
            yield from inner.wait(wait)
            wait = inner.go()
        return inner.status

    return run


def _slow(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        yield Sleep(_seconds(fault, 5.0))
        return (yield from tool(ctx))

    return run


def _wrong_exit(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        status = yield from tool(ctx)
        given = fault.options.get("exit")
        if isinstance(given, int):
            return given
        return 255 if status == 0 else 0

    return run


def _garbage(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        shown = ctx._out, ctx._err
        ctx._out = ctx._err = len
        status = yield from tool(ctx)
        ctx._out, ctx._err = shown
        rubbish = bytes(ctx.node.random.randrange(0x20, 0x7F) for _ in range(400))
        ctx.out(b"\n".join(rubbish[n : n + 40] for n in range(0, 400, 40)) + b"\x1b[2J\x07\n")
        return status

    return run


def _endless(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        yield from tool(ctx)
        while True:  # small pieces: an executable writes them out after the step
            if not ground.blocked:
                ctx.out(b"nexcage\n" * (_CHUNK // 8))
            yield Sleep(0.002)

    return run


def _non_utf8(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    def run(ctx: Ctx) -> Steps:
        ctx.err(b"warning: \xff\xfe\xc3\x28\n")
        ctx.out(b"\xff\xfe\xc3\x28\n")
        return (yield from tool(ctx))

    return run


def _lock_held(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    lock = fault.options.get("lock")

    def held(ctx: Ctx) -> Steps:
        """Every flock that it waits for is somebody else's."""
        inner = _Inner(tool(ctx))
        while (wait := inner.go()) is not None:
            if isinstance(wait, Flock):
                yield from inner.wait(Sleep(wait.timeout))
                inner.answer = False
            else:
                yield from inner.wait(wait)
        return inner.status

    def locked(ctx: Ctx) -> Steps:
        """Its container's config has a lock as long as it runs."""
        vmids = [int(word) for word in ctx.argv if word.isdigit() and ctx.node.config(int(word)) is not None]
        for vmid in vmids[:1]:
            text = ctx.node.config(vmid) or ""
            ctx.node.files.write(ctx.node.config_path(vmid), f"lock: {lock}\n{text}")
        status = yield from tool(ctx)
        for vmid in vmids[:1]:
            left = ctx.node.config(vmid)
            if left is not None:
                ctx.node.files.write(ctx.node.config_path(vmid), re.sub(rf"(?m)^lock: {lock}\n", "", left, count=1))
        return status

    return locked if isinstance(lock, str) else held


def _vmid(node: Node, argv: tuple[str, ...]) -> int:
    """The container that a command is about."""
    return next((int(word) for word in argv if word.isdigit() and 100 <= int(word) < 10**9), 0)


def _others(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    """Just before the command begins."""
    from nexcage.testing._model.others import act

    def run(ctx: Ctx) -> Steps:
        act(ctx.node, fault.kind, _vmid(ctx.node, ctx.argv), fault.options)
        return (yield from tool(ctx))

    return run


def _storage_full(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    """As long as the command runs."""
    from nexcage.testing._model.others import act

    def run(ctx: Ctx) -> Steps:
        act(ctx.node, "storage-full", 0, fault.options)
        try:
            return (yield from tool(ctx))
        finally:
            act(ctx.node, "storage-free", 0, fault.options)

    return run


def _rival(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    """Before the command; ``after``: it fails half-way, and then."""
    from nexcage.testing._model.others import act

    def run(ctx: Ctx) -> Steps:
        ctx.watched = True
        inner = _Inner(tool(ctx))
        interrupted = False
        while (wait := inner.go()) is not None:
            yield from inner.wait(wait)
            if not interrupted and _changed(ctx):
                interrupted, inner.thrown = True, Interrupted()
        act(ctx.node, "rival", _vmid(ctx.node, ctx.argv), fault.options)
        return inner.status

    return run if fault.options.get("after") else _others(tool, fault, ground)


def _busy(tool: Tool, fault: Fault, ground: Ground) -> Tool:
    from nexcage.testing._model.others import words

    def run(ctx: Ctx) -> Steps:
        vmid = _vmid(ctx.node, ctx.argv)
        argv = words(vmid, fault.options)
        sign = f":{argv[2]}:{vmid}:"
        ground.beside(argv)
        for _ in range(_LOOKS_AT_PROCESSES if ctx.real else _LOOKS):  # a process may take long to begin
            if sign in (ctx.node.files.read("/var/log/pve/tasks/active") or ""):
                break
            yield Sleep(0.02)
        return (yield from tool(ctx))

    return run


_FAULTY: Mapping[str, Callable[[Tool, Fault, Ground], Tool]] = {
    **dict.fromkeys(_ITSELF, _happens),
    **dict.fromkeys((*_BY_OTHERS, *_TO_ONE), _others),
    "busy": _busy,
    "rival": _rival,
    "storage-full": _storage_full,
    "drop-open": _drop_before,
    "drop-before": _drop_before,
    "half-open": _half_open,
    "kill-worker": _kill_worker,
    "kill-supervisor": _kill_supervisor,
    "drop-during": _drop_during,
    "drop-after": _drop_after,
    "stall": _stall,
    "slow": _slow,
    "wrong-exit": _wrong_exit,
    "garbage": _garbage,
    "endless": _endless,
    "non-utf8": _non_utf8,
    "lock-held": _lock_held,
}
