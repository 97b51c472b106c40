"""What starting costs: the bare interpreter, `import nexcage`, `nexcage --help`, and `nexcage state ID` on a simulated node.

The node is one on disk whose pretend tools are on PATH, as `nexcage sim path` gives them; the answer of `state` is a look at it.

    python -m benchmarks.startup [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._rounds import Numbers, add_ratio, interleaved, options, show
from nexcage.testing import SimCluster
from nexcage.testing.executables import bin_dir, install

TEMPLATE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
NEXCAGE = [sys.executable, "-m", "nexcage"]


# A process inherits the peak of whoever started it, so a small interpreter starts what is measured.
_SMALL = """
import os, sys, time
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(status, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def run(argv: Sequence[str], env: dict[str, str]) -> Numbers:
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _SMALL, *argv], env=env, check=True, capture_output=True, text=True
    )
    status, wall, cpu, peak = map(float, said.stdout.split())
    assert status == 0, argv
    return {"wall ms": 1000 * wall, "CPU ms": 1000 * cpu, "peak RSS MiB": peak / 1024}


def main() -> None:
    given = options(__doc__ or "", rounds=15).parse_args()
    root = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory(prefix="nexcage-bench-") as folder:
        sim = SimCluster(1, dir=Path(folder) / "sim")
        install(Path(folder) / "sim", sim.hosts)
        env = {
            "PATH": f"{bin_dir(Path(folder) / 'sim', 'pve-01')}:{os.environ['PATH']}",
            "HOME": folder,
            "PYTHONPATH": root,
            "NEXCAGE_STATE_DIR": f"{folder}/state",
        }
        for words in (["create", "web-1", "--image", TEMPLATE, "--storage", "local-zfs"], ["start", "web-1"]):
            subprocess.run([*NEXCAGE, *words], env=env, check=True, stdout=subprocess.DEVNULL)
        ways = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import nexcage'": [sys.executable, "-c", "import nexcage"],
            "nexcage --help": [*NEXCAGE, "--help"],
            "nexcage state ID": [*NEXCAGE, "state", "web-1"],
        }
        results = interleaved({name: lambda argv=argv: run(argv, env) for name, argv in ways.items()}, given.rounds)
    add_ratio(results, "wall ms", "python -c pass")
    show(
        "startup",
        results,
        packages=("anyio", "msgspec"),
        method="medians of interleaved rounds after one to warm up; a process each",
        json_file=given.json,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    sys.exit(main())
