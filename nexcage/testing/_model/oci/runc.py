"""The pretend runc 1.1.5."""

from __future__ import annotations

import json
from datetime import datetime

from nexcage.testing._model.oci.containers import Box, boxes
from nexcage.testing._model.oci.program import Call, Program, Said
from nexcage.testing._model.tool import Steps

__all__ = ["Runc"]

_HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


class Runc(Program):
    name = "runc"
    cost = 0.009
    version = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n"

    def unknown(self, verb: str) -> Said:
        return Said(f"No help topic for '{verb}'\n", 3)

    def line(self, text: str, at: datetime) -> dict[str, str]:
        return {"level": "error", "msg": text, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def spoken(self, bare: str, at: datetime) -> str:
        quoted = json.dumps(bare.removesuffix("\n"), ensure_ascii=False)
        return f'time="{at.strftime("%Y-%m-%dT%H:%M:%SZ")}" level=error msg={quoted}\n'

    def lost(self, call: Call) -> Said:
        if call.verb == "exec":
            return Said("exec failed: container does not exist", 255)
        return Said("container does not exist")

    def no_bundle(self, path: str) -> Said:
        return Said(f"runc create failed: chdir {path}: no such file or directory")

    def no_config(self) -> Said:
        return Said("runc create failed: JSON specification file config.json not found")

    def bad_config(self) -> Said:
        return Said("runc create failed: unexpected EOF")

    def taken(self, call: Call) -> Said:
        return Said("runc create failed: container with given ID already exists")

    def not_killed(self) -> Said:
        return Said("container not running")

    def not_stopped(self, box: Box) -> Said:
        return Said(f"cannot delete container {box.id} that is not stopped: {box.status}")

    def no_program(self, name: str) -> Said:
        why = f'exec: "{name}": executable file not found in $PATH'
        return Said(f"exec failed: unable to start container process: {why}", 255)

    def do_start(self, call: Call) -> Steps:
        box = self.box(call)
        match box.status:
            case "created":
                box.start()
                return 0
            case "stopped":
                raise Said("cannot start a container that has stopped")
            case "running":
                raise Said("cannot start an already running container")
            case status:
                raise Said(f"cannot start a container in the {status} state")
        yield

    def do_pause(self, call: Call) -> Steps:
        box = self.box(call)
        if box.status not in ("created", "running"):
            raise Said("container not running")
        box.freeze(True)
        return 0
        yield

    def do_resume(self, call: Call) -> Steps:
        box = self.box(call)
        if box.status != "paused":
            raise Said("container not paused")
        box.freeze(False)
        return 0
        yield

    def do_exec(self, call: Call) -> Steps:
        box = self.box(call)
        if box.status == "stopped":
            raise Said("exec failed: cannot exec in a stopped container", 255)
        if box.status == "paused" and "--ignore-paused" not in call.options:
            why = "cannot exec in a paused container (use --ignore-paused to override)"
            raise Said(f"exec failed: {why}", 255)
        return (yield from self.inside(call, box))

    def do_ps(self, call: Call) -> Steps:
        box = self.box(call)
        if call.option("--format") == "json":
            call.ctx.out("null\n" if box.status == "stopped" else f"[{box.pid}]\n")
        else:
            call.ctx.out(f"UID          PID    PPID  C STIME TTY          TIME CMD\nroot {box.pid}\n")
        return 0
        yield

    def check_update(self, box: Box) -> None:
        if box.status == "stopped":
            raise Said("container not running")

    def _document(self, box: Box, owner: str) -> dict[str, object]:
        rootfs = str(box.known.get("rootfs"))
        return {
            "ociVersion": "1.0.2-dev",
            "id": box.id,
            "pid": 0 if box.status == "stopped" else box.pid,
            "status": box.status,
            "bundle": box.bundle,
            "rootfs": rootfs if rootfs.startswith("/") else f"{box.bundle}/{rootfs}",
            "created": box.known.get("created"),
            **({"annotations": box.known["annotations"]} if box.known.get("annotations") else {}),
            "owner": owner,
        }

    def state(self, box: Box) -> str:
        return json.dumps(self._document(box, ""), indent=2)

    def do_list(self, call: Call) -> Steps:
        found = boxes(call.ctx.node, call.root)
        if "--quiet" in call.options:
            call.ctx.out("".join(f"{box.id}\n" for box in found))
        elif call.option("--format") == "json":
            rows = [self._document(box, "root") for box in found]
            call.ctx.out((json.dumps(rows, separators=(",", ":")) if rows else "null") + "\n")
        else:
            call.ctx.out("ID          PID         STATUS      BUNDLE      CREATED     OWNER\n")
            for box in found:
                created = box.known.get("created")
                call.ctx.out(f"{box.id:11} {box.pid:<11} {box.status:11} {box.bundle}   {created}   root\n")
        return 0
        yield

    def do_events(self, call: Call) -> Steps:
        box = self.box(call)
        if box.status == "stopped":
            raise Said(f"container with id {box.id} is not running")
        limit = int(box.known.get("limits", {}).get("--memory", 9223372036854771712))
        memory = {"usage": {"limit": limit, "usage": 1048576, "max": 2097152, "failcnt": 0}}
        data = {"cpu": {"usage": {"total": 14348487}}, "memory": memory, "pids": {"current": 1}}
        call.ctx.out(json.dumps({"type": "stats", "id": box.id, "data": data}, separators=(",", ":")) + "\n")
        return 0
        yield

    def do_features(self, call: Call) -> Steps:
        document = {
            "ociVersionMin": "1.0.0",
            "ociVersionMax": "1.0.2-dev",
            "hooks": _HOOKS,
            "mountOptions": ["bind"],
        }
        call.ctx.out(json.dumps(document, indent=4) + "\n")
        return 0
        yield
