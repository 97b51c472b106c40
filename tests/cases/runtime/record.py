"""Record what the real ``crun`` and ``runc`` of this machine do: ``python tests/cases/runtime/record.py`` (as root, with busybox-static).

One file per program, one call a line: its words, exit status, both outputs and its JSON log. Paths, pids and times are put into words
that stand for them, so that the pretend programs can be held against the same lines (`tests/model/test_runtimes_recorded.py`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HYBRID = ("unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified; exec crun "$@"', "crun")
PROGRAM = 'trap "exit 7" TERM; while :; do sleep 1 & wait $!; done'

UNKNOWN = [
    ("list", "--format", "json"),
    ("state", "no"),
    ("start", "no"),
    ("kill", "no", "15"),
    ("delete", "no"),
    ("delete", "--force", "no"),
    ("pause", "no"),
    ("resume", "no"),
    ("ps", "--format", "json", "no"),
    ("exec", "no", "true"),
    ("update", "--memory", "100000000", "no"),
    ("events", "--stats", "no"),
    ("create", "--bundle", "/nope", "a"),
    ("create", "--bundle", "EMPTY", "a"),
    ("create", "--bundle", "BAD", "a"),
    ("nosuch",),
]
CREATED = [
    ("create", "--bundle", "BUNDLE", "--pid-file", "PIDFILE", "a"),
    ("create", "--bundle", "BUNDLE", "a"),
    ("state", "a"),
    ("list", "--format", "json"),
    ("list", "--quiet"),
    ("ps", "--format", "json", "a"),
    ("exec", "a", "echo", "hi"),
    ("resume", "a"),
]
RUNNING = [
    ("start", "a"),
    ("start", "a"),
    ("state", "a"),
    ("exec", "a", "sh", "-c", "exit 42"),
    ("exec", "a", "nosuch"),
    ("delete", "a"),
    ("resume", "a"),
    ("update", "--memory", "100000000", "--pids-limit", "50", "a"),
    ("pause", "a"),
    ("pause", "a"),
    ("state", "a"),
    ("list", "--format", "json"),
    ("exec", "a", "true"),
    ("start", "a"),
    ("delete", "a"),
    ("resume", "a"),
    ("state", "a"),
    ("kill", "a", "15"),
]
STOPPED = [
    ("state", "a"),
    ("list", "--format", "json"),
    ("start", "a"),
    ("kill", "a", "15"),
    ("kill", "--all", "a", "15"),
    ("pause", "a"),
    ("resume", "a"),
    ("exec", "a", "true"),
    ("events", "--stats", "a"),
    ("update", "--memory", "100000000", "a"),
    ("delete", "a"),
    ("delete", "a"),
    ("list", "--format", "json"),
]
AGAIN = [
    ("create", "--bundle", "BUNDLE", "b"),
    ("kill", "b", "9"),
    ("WAIT", "b"),
    ("state", "b"),
    ("delete", "b"),
    ("create", "--bundle", "BUNDLE", "c"),
    ("delete", "c"),
    ("create", "--bundle", "BUNDLE", "d"),
    ("start", "d"),
    ("delete", "--force", "d"),
    ("state", "d"),
]
STEPS: list[tuple[str, ...]] = [*UNKNOWN, *CREATED, *RUNNING, ("WAIT", "a"), *STOPPED, *AGAIN]


def bundle(directory: Path) -> None:
    rootfs = directory / "rootfs"
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for name in ("sh", "sleep", "echo", "true"):
        (rootfs / "bin" / name).symlink_to("busybox")
    subprocess.run(("runc", "spec"), cwd=directory, check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["sh", "-c", PROGRAM]}
    config["annotations"] = {"com.example.k": "v"}
    (directory / "config.json").write_text(json.dumps(config))


class Recorder:
    def __init__(self, program: tuple[str, ...], place: Path) -> None:
        self.program = program
        self.names = {name: str(place / name.lower()) for name in ("ROOT", "BUNDLE", "EMPTY", "BAD", "PIDFILE", "LOG")}
        bundle(Path(self.names["BUNDLE"]))
        Path(self.names["EMPTY"]).mkdir()
        Path(self.names["BAD"]).mkdir()
        (Path(self.names["BAD"]) / "config.json").write_text("{")

    def call(self, words: tuple[str, ...]) -> dict[str, Any]:
        log = Path(self.names["LOG"])
        log.unlink(missing_ok=True)
        argv = ("--root", "ROOT", "--log", "LOG", "--log-format", "json", *words)
        out = Path(f"{log}.out")
        with out.open("w+b") as stdout, Path(f"{log}.err").open("w+b") as stderr:  # no pipe: the container may hold it
            real = (*self.program, *(self.names.get(word, word) for word in argv))
            done = subprocess.run(real, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, check=False, timeout=60)
        said = log.read_text() if log.exists() else ""
        lines = [{key: line[key] for key in ("level", "msg")} for line in map(json.loads, said.splitlines())]
        texts = {"out": out.read_text(), "err": Path(f"{log}.err").read_text()}
        return {
            "argv": list(words),
            "exit": done.returncode,
            **{key: self.plain(text) for key, text in texts.items()},
            "log": [{**line, "msg": self.plain(line["msg"])} for line in lines],
        }

    def plain(self, text: str) -> str:
        for name, path in self.names.items():
            text = text.replace(path, name)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
        return re.sub(r"\b\d{3,}\b", "PID", text)

    def wait(self, id: str) -> None:
        while '"stopped"' not in self.call(("state", id))["out"]:
            time.sleep(0.05)


def main() -> None:
    for name, program in (("runc", ("runc",)), ("crun", HYBRID)):
        version = subprocess.run((name, "--version"), capture_output=True, text=True, check=True).stdout.split()[2]
        with tempfile.TemporaryDirectory(prefix="record-") as place:
            recorder = Recorder(program, Path(place))
            lines: list[str] = []
            for words in STEPS:
                if words[0] == "WAIT":
                    recorder.wait(words[1])
                    lines.append(json.dumps({"argv": list(words)}))
                else:
                    lines.append(json.dumps(recorder.call(words)))
        (HERE / f"{name}-{version.partition('+')[0]}.jsonl").write_text("\n".join(lines) + "\n")
        print(name, version, len(lines), "calls", file=sys.stderr)


if __name__ == "__main__":
    main()
