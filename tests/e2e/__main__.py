"""``scripts/e2e [--host root@pve] [--report DIR] [--only N-M]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from tests.e2e.report import Result, exit_status, write
from tests.e2e.run import Run, environment
from tests.e2e.site import Site, real, simulated

ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    options = _options(argv)
    here = Path(os.environ.get("NEXCAGE_E2E_FROM", "."))
    report = here / options.report
    place: AbstractContextManager[Site] = (
        real(options.host, [f"-o{option}" for option in options.ssh_option]) if options.host else simulated()
    )
    with tempfile.TemporaryDirectory(prefix="nexcage-e2e-") as temporary, place as site:
        run = Run(site, ROOT, Path(temporary))
        results: list[Result] = []
        for result in run.rows(options.only):
            results.append(result)
            print(f"{result.status}  {result.number:>2}  {result.name}  ({result.ms} ms)  {result.message}", flush=True)
        write(report, results, environment(site, ROOT))
    failed = sum(one.status == "FAIL" for one in results)
    print(f"{len(results) - failed} passed, {failed} failed of {len(results)}; see {report / 'report.md'}")
    return exit_status(results)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/e2e", description="The predecessor's 57 tests, run on a node over SSH."
    )
    parser.add_argument(
        "--host", help="a Proxmox VE node, such as root@pve; without it, a simulated one on this machine"
    )
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="an option for ssh, such as Port=2222"
    )
    parser.add_argument(
        "--report", default="test-reports", metavar="DIR", help="where report.md and report.json go (test-reports)"
    )
    parser.add_argument(
        "--only", type=_numbers, default=range(1, 58), metavar="N[-M]", help="only these, after the first three"
    )
    return parser.parse_args(argv)


def _numbers(word: str) -> range:
    first, _, last = word.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        print(f"scripts/e2e: {error}", file=sys.stderr)
        sys.exit(2)
