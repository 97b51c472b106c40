"""What an engine's monitor does (conmon): become the parent of orphans, create, read the pid file, start, wait for the program's end.

``monitor.py PID_FILE ID RUNTIME_ARGUMENT... -- CREATE_OPTION...``; prints JSON: what the program printed, and how it ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path


def main(pid_file: str, id: str, runtime: list[str], options: list[str]) -> None:
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    reads, writes = os.pipe()
    create = [*runtime, "create", *options, "--pid-file", pid_file, id]
    with open(writes, "wb") as program:
        made = subprocess.run(
            create, stdin=subprocess.DEVNULL, stdout=program, stderr=program, timeout=200, check=False
        )
    said: dict[str, object] = {"create": made.returncode}
    if made.returncode == 0:
        text = Path(pid_file).read_text()
        pid = int(text)
        said |= {"pid_file": text, "parent": _parent(pid) == os.getpid()}
        said["start"] = subprocess.run([*runtime, "start", id], timeout=200, check=False).returncode
        _, status = os.waitpid(pid, 0)
        said["status"] = os.waitstatus_to_exitcode(status)
    with open(reads, encoding="utf-8") as output:
        said["output"] = output.read()
    print(json.dumps(said))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    split = sys.argv.index("--")
    main(sys.argv[1], sys.argv[2], sys.argv[3:split], sys.argv[split + 1 :])
