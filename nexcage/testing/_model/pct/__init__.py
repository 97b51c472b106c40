"""The pretend ``pct``: PVE's container tool, by PVE's rules."""

from __future__ import annotations

from collections.abc import Mapping

from nexcage.testing._model import getopt
from nexcage.testing._model.pct import usage
from nexcage.testing._model.pct.ending import carry_out, complain
from nexcage.testing._model.pct.job import Job
from nexcage.testing._model.pct.options import ALIASES, COMMANDS, Command, option, option_names
from nexcage.testing._model.schema import Errors, Prop, check, verification_failed
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["run"]

START_UP = 0.95  # seconds of Perl before anything happens

_HANDLERS: Mapping[str, str] = {
    "clone": "clones:clone",
    "config": "shows:config",
    "cpusets": "shows:cpusets",
    "create": "create:create",
    "delsnapshot": "snapshots:delsnapshot",
    "destroy": "lifecycle:destroy",
    "df": "shows:df",
    "enter": "execs:enter",
    "exec": "execs:exec_",
    "fsck": "volumes:fsck",
    "fstrim": "volumes:fstrim",
    "list": "shows:list_",
    "listsnapshot": "shows:listsnapshot",
    "migrate": "migrate:migrate",
    "mount": "volumes:mount",
    "move-volume": "clones:move_volume",
    "pending": "shows:pending",
    "pull": "volumes:pull",
    "push": "volumes:push",
    "reboot": "lifecycle:reboot",
    "remote-migrate": "clones:remote_migrate",
    "rescan": "volumes:rescan",
    "resize": "volumes:resize",
    "restore": "restore:restore",
    "resume": "lifecycle:resume",
    "rollback": "snapshots:rollback",
    "set": "settings:set_",
    "shutdown": "lifecycle:shutdown",
    "snapshot": "snapshots:snapshot",
    "start": "lifecycle:start",
    "status": "shows:status",
    "stop": "lifecycle:stop",
    "suspend": "lifecycle:suspend",
    "template": "clones:template",
    "unlock": "settings:unlock",
    "unmount": "volumes:unmount",
}


def run(ctx: Ctx) -> Steps:
    """The program."""
    node = ctx.node
    cost = node.cost(START_UP)
    if cost:
        yield Sleep(cost)
    words = ctx.argv[1:]
    if not words:
        ctx.err(usage.listing("no command specified"))
        return 255
    command = _complete(words[0])
    if command is None:
        ctx.err(_unknown(words[0]))
        return 255
    try:
        param, extra = _parse(ctx, command, words[1:])
    except Die as error:
        complain(ctx, error)
        return 2
    if command == "help":
        return _help(ctx, extra, brief=param.get("verbose") == "0")
    if command not in _HANDLERS:
        ctx.err(f"nexcage sim: 'pct {command}' is not simulated\n")
        return 70
    return (yield from carry_out(Job(ctx, command, param, extra), __name__, _HANDLERS[command]))


def _complete(word: str) -> str | None:
    """A command by its name, its alias, or as short as it stays unique."""
    if word in COMMANDS or word in ALIASES:
        return ALIASES.get(word, word)
    hits = {ALIASES.get(name, name) for name in (*COMMANDS, *ALIASES) if name.startswith(word)}
    return hits.pop() if word and len(hits) == 1 else None


def _unknown(word: str) -> str:
    if any(name.startswith(word) for name in COMMANDS):
        return usage.listing(f"incomplete command 'pct {word}'", between="")
    return usage.listing(f"unknown command 'pct {word}'")


def _help(ctx: Ctx, extra: tuple[str, ...], brief: bool) -> int:
    command = _complete(extra[0]) if extra else None
    if extra and command is None:
        ctx.err(usage.listing(f"unknown command '{extra[0]}'"))
        return 255
    ctx.out(usage.brief(command) if brief else usage.full(command))
    return 0


def _parse(ctx: Ctx, command: str, words: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The options and arguments of a call, checked; :class:`Die` with PVE's text when something is wrong."""
    entry = COMMANDS[command]

    def find(name: str) -> Prop | None:
        return option(entry, name)

    short = usage.short(command)
    try:
        parsed = getopt.parse(words, find, lambda: option_names(command))
        extra = _arguments(entry, parsed.options, parsed.rest)
        for name, prop in entry.options.items():
            if prop.interactive and parsed.options.get(name) == "":
                parsed.options[name] = _password(ctx)
        getopt.normalise_booleans(parsed.options, find)
    except getopt.BadOption as error:
        raise Die(f"{error}{short}\n") from None
    param = parsed.options
    for name, prop in entry.options.items():
        if prop.file and name in param:
            piped = param[name] == "/dev/stdin"
            text = ctx.stdin.decode("utf-8", "replace") if piped else ctx.node.files.read(param[name])
            if text is None:
                raise Die(f"can't open '{param[name]}' - No such file or directory")
            param[name] = text
    errors: Errors = {}
    check(entry.schema(param), param, errors)
    if errors:
        raise Die(verification_failed(errors, short))
    return param, extra


def _password(ctx: Ctx) -> str:
    """What is typed twice where no value was given; without a terminal these are two lines of standard input."""
    lines = ctx.stdin.decode("utf-8", "replace").split("\n")
    if len(lines) < 3 and not (len(lines) == 2 and lines[1]):
        raise Die("EOF while reading password")
    if lines[0] != lines[1]:
        raise Die("passwords do not match")
    return lines[0]


def _arguments(entry: Command, param: dict[str, str], rest: list[str]) -> tuple[str, ...]:
    """Give the words to the arguments in order."""
    names = entry.arguments
    if names and not rest and any(not prop.optional and prop.kind != "array" for _, prop in names):
        raise getopt.BadOption("400 not enough arguments\n")
    waiting = list(rest)
    for n, (name, prop) in enumerate(names):
        if prop.kind == "array":
            return tuple(waiting)
        if not waiting:
            if any(not later.optional and later.kind != "array" for _, later in names[n:]):
                raise getopt.BadOption("400 not enough arguments\n")
            return ()
        param[name] = waiting.pop(0)
    if waiting:
        raise getopt.BadOption("400 too many arguments\n")
    return ()
