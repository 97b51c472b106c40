"""``python -m nexcage.testing._model DIR NODE PROG ARGS...``: one call of a pretend tool over a directory on disk."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the tool in this process; its exit status."""
    from nexcage.testing._model import TOOLS
    from nexcage.testing._model.drive import drive_process
    from nexcage.testing._model.tool import Ctx
    from nexcage.testing._model.world import disk_node

    directory, name, program, *arguments = argv
    node = disk_node(directory, name)
    stdin = b""
    if program == "pct" and (arguments[:1] == ["exec"] or "/dev/stdin" in arguments):
        stdin = sys.stdin.buffer.read()
    if program == "qm" and (arguments[:1] == ["monitor"] or {"/dev/stdin", "--pass-stdin"} & set(arguments)):
        stdin = sys.stdin.buffer.read()
    out, err = sys.stdout.buffer.write, sys.stderr.buffer.write
    ctx = Ctx(node, (program, *arguments), stdin=stdin, env=os.environ, out=out, err=err, real=True)
    ctx.eof = program not in ("lxc-attach", "crun", "runc")  # whose standard input is read as it comes
    return drive_process(TOOLS[program], ctx)
