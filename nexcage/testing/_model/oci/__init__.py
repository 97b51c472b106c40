"""The pretend ``crun`` and ``runc``: their options, texts and exit statuses as recorded from crun 1.8.1 and runc 1.1.5
(tests/cases/runtime). There are no namespaces and no hooks behind them; a container is a process of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from nexcage.testing._model.oci.containers import plain
from nexcage.testing._model.oci.crun import Crun
from nexcage.testing._model.oci.program import Call, Program, Said
from nexcage.testing._model.oci.runc import Runc
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["crun", "runc"]

_WITH_VALUE = frozenset(
    "--bundle -b --pid-file --console-socket --preserve-fds --format -f --process -p --user -u --cwd --env -e --cap --apparmor "
    "--cgroup --resources -r --memory --memory-swap --memory-reservation --cpu-share --cpu-quota --cpu-period --cpuset-cpus "
    "--cpuset-mems --pids-limit --blkio-weight --interval --config --kernel-memory".split()
)
_SHORT = {
    "-b": "--bundle",
    "-f": "--format",
    "-u": "--user",
    "-e": "--env",
    "-a": "--all",
    "-q": "--quiet",
    "-t": "--tty",
}
_COSTS = {"create": 3.0, "exec": 2.0}


def crun(ctx: Ctx) -> Steps:
    """``crun [--root DIR] [--log FILE] [--log-format json] COMMAND``."""
    return (yield from _run(ctx, Crun()))


def runc(ctx: Ctx) -> Steps:
    """``runc``, likewise."""
    return (yield from _run(ctx, Runc()))


def _run(ctx: Ctx, program: Program) -> Steps:
    words = list(ctx.argv[1:])
    options, words = _options(words, frozenset({"--root", "--log", "--log-format", "--cgroup-manager"}))
    if "--version" in options:
        ctx.out(program.version)
        return 0
    verb = words.pop(0) if words else ""
    known: Callable[[Call], Steps] | None = getattr(program, f"do_{verb.replace('-', '_')}", None)
    if verb == "delete":
        words = ["--force" if word == "-f" else word for word in words]
    inner, rest = _options(words, _WITH_VALUE, until=1 if verb == "exec" else 0)
    default = f"/run/{program.name}"
    log = options.get("--log", [""])[-1]
    call = Call(ctx, plain(ctx.node, options.get("--root", [default])[-1]), log, verb, inner, rest)
    cost = ctx.node.cost(program.cost * _COSTS.get(verb, 1.0))
    if cost:
        yield Sleep(cost)
    try:
        if known is None:
            raise program.unknown(verb)
        return (yield from known(call))
    except Said as said:
        _tell(call, program, said)
        return said.status


def _options(
    words: list[str], with_value: frozenset[str], *, until: int = 10_000
) -> tuple[dict[str, list[str]], list[str]]:
    """Options in front of the first word (``until`` 0 or 1: of the command's words), and what follows."""
    found: dict[str, list[str]] = {}
    words = list(words)
    rest: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if until:
                return found, rest + words
            continue
        name, equals, value = word.partition("=")
        takes = name in with_value
        name = _SHORT.get(name, name)
        found.setdefault(name, []).append(value if equals else words.pop(0) if takes and words else "")
    return found, rest


def _tell(call: Call, program: Program, said: Said) -> None:
    ctx, bare = call.ctx, f"{said.text}\n" if not said.text.endswith("\n") else said.text
    at = datetime.fromtimestamp(ctx.node.now(), UTC)
    if call.log and said.logged:
        ctx.err(bare)
        ctx.node.files.append(plain(ctx.node, call.log), json.dumps(program.line(said.text, at)) + "\n")
    else:
        ctx.err(program.spoken(bare, at))
