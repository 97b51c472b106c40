"""What the pretend crun and runc have in common: a call, a refusal, and the commands that differ in their texts only."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple, cast

from nexcage.testing._model import guest
from nexcage.testing._model.host import NAMES, signal_number
from nexcage.testing._model.oci.containers import Box, Inside, find, plain
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["Call", "Program", "Said", "shown"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Said(Exception):
    """The program refuses, with an exit status; ``logged``: the log is open by then."""

    def __init__(self, text: str, status: int = 1, *, logged: bool = True) -> None:
        super().__init__(text)
        self.text: str = text
        self.status: int = status
        self.logged: bool = logged


class Call(NamedTuple):
    """One call: its container's directory and what was asked for."""

    ctx: Ctx
    root: str
    log: str
    verb: str
    options: dict[str, list[str]]
    words: list[str]

    def option(self, name: str, otherwise: str = "") -> str:
        return self.options.get(name, [otherwise])[-1]

    @property
    def id(self) -> str:
        return self.words[0] if self.words else ""


class Program:
    """What both have in common."""

    name: str = ""
    cost: float = 0.0
    version: str = ""

    def line(self, text: str, at: datetime) -> dict[str, str]:
        """A line of its JSON log."""
        raise NotImplementedError

    def spoken(self, bare: str, at: datetime) -> str:
        """The same on standard error, where there is no log."""
        raise NotImplementedError

    def unknown(self, verb: str) -> Said:
        raise NotImplementedError

    def box(self, call: Call) -> Box:
        box = find(call.ctx.node, call.root, call.id)
        if box is None:
            raise self.lost(call)
        return box

    def lost(self, call: Call) -> Said:
        raise NotImplementedError

    def config(self, call: Call) -> tuple[str, dict[str, Any]]:  # Any: JSON
        """The bundle and its config.json."""
        node, bundle = call.ctx.node, plain(call.ctx.node, call.option("--bundle", "/"))
        if not node.files.exists(bundle):
            raise self.no_bundle(call.option("--bundle"))
        text = node.files.read(f"{bundle}/config.json")
        if text is None:
            raise self.no_config()
        try:
            config = json.loads(text)
        except ValueError:
            raise self.bad_config() from None
        if not isinstance(config, dict):
            raise self.bad_config()
        return bundle, cast("dict[str, Any]", config)  # Any: JSON

    def no_bundle(self, path: str) -> Said:
        raise NotImplementedError

    def no_config(self) -> Said:
        raise NotImplementedError

    def bad_config(self) -> Said:
        raise NotImplementedError

    def taken(self, call: Call) -> Said:
        raise NotImplementedError

    def do_create(self, call: Call) -> Steps:
        bundle, config = self.config(call)
        node = call.ctx.node
        if node.files.exists(f"{call.root}/{call.id}"):
            raise self.taken(call)
        cost = node.cost(self.cost)
        if cost:
            node.files.write(
                f"{call.root}/{call.id}/making", ""
            )  # who dies here leaves a directory that is no container
            node.effect("config", call.id, "begun")
            yield Sleep(cost)
        pid = Box(node, call.root, call.id).make(bundle, config)
        node.files.remove(f"{call.root}/{call.id}/making")
        if target := call.option("--pid-file"):
            node.files.write(plain(node, target), str(pid))
        return 0

    def do_state(self, call: Call) -> Steps:
        call.ctx.out(self.state(self.box(call)))
        return 0
        yield

    def state(self, box: Box) -> str:
        raise NotImplementedError

    def do_kill(self, call: Call) -> Steps:
        box = self.box(call)
        number = signal_number(call.words[1] if len(call.words) > 1 else "TERM")
        if number is None:
            raise Said(f'unknown signal "{call.words[1]}"')
        if box.status == "stopped":
            if "--all" in call.options:
                return 0
            raise self.not_killed()
        box.signal(number, NAMES.get(number, str(number)))
        return 0
        yield

    def not_killed(self) -> Said:
        raise NotImplementedError

    def do_delete(self, call: Call) -> Steps:
        box = find(call.ctx.node, call.root, call.id)
        force = "--force" in call.options
        if box is None:
            if force:
                if call.id and call.ctx.node.files.exists(f"{call.root}/{call.id}"):
                    call.ctx.node.files.remove(f"{call.root}/{call.id}")
                    call.ctx.node.effect("config", call.id, "removed")
                return 0
            raise self.not_there(call)
        if box.status not in ("created", "stopped") and not force:
            raise self.not_stopped(box)
        box.end()
        cost = call.ctx.node.cost(self.cost)
        if cost:
            yield Sleep(cost)
        box.remove()
        return 0

    def not_there(self, call: Call) -> Said:
        return self.lost(call)

    def not_stopped(self, box: Box) -> Said:
        raise NotImplementedError

    def inside(self, call: Call, box: Box) -> Steps:
        """A program of the model in it."""
        ctx, options = call.ctx, call.options
        env = {"PATH": _PATH}
        for one in [*map(str, box.known.get("env", ())), *options.get("--env", [])]:
            name, _, value = one.partition("=")
            env[name] = value
        uid, _, gid = call.option("--user", "0").partition(":")
        words = tuple(call.words[1:])
        if words[0].rpartition("/")[2] not in guest.PROGRAMS:
            raise self.no_program(words[0])
        if ctx.env.get("NEXCAGE_OP_ID") and words != ("cat", "/etc/passwd"):
            ctx.node.effect("exec", box.id, " ".join(words)[:80])
        view = Inside(ctx, box, env, uid=int(uid or 0), gid=int(gid or uid or 0), cwd=call.option("--cwd", "/"))
        return (yield from guest.run(view, words))

    def no_program(self, name: str) -> Said:
        raise NotImplementedError

    def do_update(self, call: Call) -> Steps:
        box = self.box(call)
        self.check_update(box)
        limits = {key: value[-1] for key, value in call.options.items() if key != "--resources"}
        known = {**box.known, "limits": {**box.known.get("limits", {}), **limits}}
        call.ctx.node.files.write(f"{box.place}/status", json.dumps(known))
        if box.status != "stopped" and "--memory" in limits:
            call.ctx.node.files.write(f"{box.cgroup}/memory.max", limits["--memory"] + "\n")
        call.ctx.node.effect("config", box.id, "changed")
        return 0
        yield

    def check_update(self, box: Box) -> None:
        """Raises where it is not possible."""


def shown(call: Call) -> str:
    """The container's directory as the caller wrote it."""
    files = call.ctx.node.files
    return f"{getattr(files, 'root', '')}{call.root}/{call.id}"
