"""The pretend crun 1.8.1."""

from __future__ import annotations

import json
from datetime import datetime

from nexcage.testing._model.oci.containers import Box, boxes, find
from nexcage.testing._model.oci.program import Call, Program, Said, shown
from nexcage.testing._model.tool import Steps

__all__ = ["Crun"]


class Crun(Program):
    name = "crun"
    cost = 0.006
    version = (
        "crun version 1.8.1\ncommit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30\nrundir: /run/crun\nspec: 1.0.0\n"
        "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +YAJL\n"
    )

    def unknown(self, verb: str) -> Said:
        return Said(f"unknown command {verb}", logged=False)

    def line(self, text: str, at: datetime) -> dict[str, str]:
        return {"msg": text, "level": "error", "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}

    def spoken(self, bare: str, at: datetime) -> str:
        return bare

    def lost(self, call: Call) -> Said:
        return Said(f"error opening file `{shown(call)}/status`: No such file or directory")

    def not_there(self, call: Call) -> Said:
        return Said(f"cannot open directory '{shown(call)}': No such file or directory")

    def no_bundle(self, path: str) -> Said:
        return Said(f"chdir `{path}` failed: No such file or directory", logged=False)

    def no_config(self) -> Said:
        return Said("error loading config.json")

    bad_config = no_config

    def taken(self, call: Call) -> Said:
        return Said(f"container `{call.id}` already exists")

    def not_killed(self) -> Said:
        return Said("kill container: No such process")

    def not_stopped(self, box: Box) -> Said:
        return Said(f"the container `{box.id}` is not in `created` or `stopped` state")

    def no_program(self, name: str) -> Said:
        return Said(f"executable file `{name}` not found in $PATH: No such file or directory", 255)

    def _alive(self, call: Call) -> Box:
        box = self.box(call)
        if box.status == "stopped":
            raise Said(f"the container `{box.id}` is not running")
        return box

    def do_start(self, call: Call) -> Steps:
        box = self.box(call)
        if box.status == "stopped":
            raise Said(f"container `{box.id}` is not running")
        if box.status != "created":
            raise Said(f"cannot open `{shown(call)}/exec.fifo`: No such file or directory")
        box.start()
        return 0
        yield

    def do_pause(self, call: Call) -> Steps:
        self._alive(call).freeze(True)
        return 0
        yield

    def do_resume(self, call: Call) -> Steps:
        self._alive(call).freeze(False)
        return 0
        yield

    def do_exec(self, call: Call) -> Steps:
        box = self._alive(call)
        if box.status == "paused":
            raise Said(f"the container `{box.id}` is paused")
        return (yield from self.inside(call, box))

    def do_ps(self, call: Call) -> Steps:
        box = find(call.ctx.node, call.root, call.id)
        if box is None:
            raise Said(self.lost(call).text, 253, logged=False)
        if box.status == "stopped":
            raise Said("Segmentation fault", 139, logged=False)
        call.ctx.out(f"[\n  {box.pid}\n]\n" if call.option("--format") == "json" else f"PID\n{box.pid}\n")
        return 0
        yield

    def state(self, box: Box) -> str:
        known = box.known
        document = {
            "ociVersion": "1.0.0",
            "id": box.id,
            "pid": 0 if box.status == "stopped" else box.pid,
            "status": box.status,
            "bundle": box.bundle,
            "rootfs": known.get("rootfs"),
            "created": known.get("created"),
            "systemd-scope": "",
            "owner": "root",
            **({"annotations": known["annotations"]} if known.get("annotations") else {}),
        }
        return json.dumps(document, indent=4) + "\n\n"

    def do_list(self, call: Call) -> Steps:
        found = boxes(call.ctx.node, call.root)
        if "--quiet" in call.options:
            call.ctx.out("".join(f"{box.id}\n" for box in found))
        elif call.option("--format") == "json":
            rows = [
                {
                    "id": box.id,
                    "pid": 0 if box.status == "stopped" else box.pid,
                    "status": box.status,
                    "bundle": box.bundle,
                    "created": box.known.get("created"),
                    "owner": "root",
                }
                for box in found
            ]
            call.ctx.out((json.dumps(rows, indent=4) if rows else "[\n\n]") + "\n")
        else:
            call.ctx.out(f"{'NAME':4} {'PID':9} {'STATUS':8} {'BUNDLE PATH':39} {'CREATED':30} OWNER\n")
            for box in found:
                row = f"{box.id:4} {box.pid:<9} {box.status:8} {box.bundle:39} {box.known.get('created'):30} root\n"
                call.ctx.out(row)
        return 0
        yield
