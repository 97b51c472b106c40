"""The pretend ``qm``: PVE's tool for virtual machines, by PVE's rules as far as they are driven here."""

from __future__ import annotations

from collections.abc import Mapping

from nexcage.testing._model import getopt
from nexcage.testing._model.pct.ending import carry_out, complain
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.qm.options import COMMANDS, Command, listing, option, option_names, short
from nexcage.testing._model.schema import Errors, Prop, check, verification_failed
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["run"]

START_UP = 1.0  # seconds of Perl before anything happens

_HANDLERS: Mapping[str, str] = {
    "config": "shows:config",
    "create": "create:create",
    "delsnapshot": "snapshots:delsnapshot",
    "destroy": "life:destroy",
    "disk resize": "disks:resize",
    "guest exec": "agent:exec_",
    "list": "shows:list_",
    "listsnapshot": "snapshots:listsnapshot",
    "monitor": "life:monitor",
    "reboot": "life:reboot",
    "reset": "life:reset",
    "resume": "life:resume",
    "rollback": "snapshots:rollback",
    "set": "shows:set_",
    "shutdown": "life:shutdown",
    "snapshot": "snapshots:snapshot",
    "start": "life:start",
    "status": "shows:status",
    "stop": "life:stop",
    "suspend": "life:suspend",
    "template": "disks:template",
    "unlock": "shows:unlock",
}
_GROUPS = ("disk", "guest", "cloudinit")


def run(ctx: Ctx) -> Steps:
    """The program."""
    node = ctx.node
    cost = node.cost(START_UP)
    if cost:
        yield Sleep(cost)
    words = ctx.argv[1:]
    if not words:
        ctx.err(listing("no command specified"))
        return 255
    command, rest = _command(words)
    if command is None:
        ctx.err(listing(f"unknown command 'qm {words[0]}'"))
        return 255
    try:
        param, extra = _parse(ctx, command, rest)
    except Die as error:
        complain(ctx, error)
        return 2
    return (yield from carry_out(VmJob(ctx, command, param, extra), __name__, _HANDLERS[command]))


def _command(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """A command by its name or as short as it stays unique; ``resize`` is an old name of ``disk resize``."""
    word, rest = words[0], words[1:]
    if word in _GROUPS and rest:
        word, rest = f"{word} {rest[0]}", rest[1:]
    if word == "resize":
        return "disk resize", rest
    if word in COMMANDS:
        return word, rest
    hits = [name for name in COMMANDS if name.startswith(word)]
    return (hits[0] if word and len(hits) == 1 else None), rest


def _parse(ctx: Ctx, command: str, words: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The options and arguments of a call and what follows them, checked; :class:`Die` with PVE's text when something is wrong."""
    entry = COMMANDS[command]

    def find(name: str) -> Prop | None:
        return option(entry, name)

    try:
        parsed = getopt.parse(words, find, lambda: option_names(entry))
        extra = _arguments(entry, parsed.options, parsed.rest)
        getopt.normalise_booleans(parsed.options, find)
    except getopt.BadOption as error:
        raise Die(f"{error}{short(command)}\n") from None
    param = parsed.options
    if "sshkeys" in param:
        path = param["sshkeys"]
        text = ctx.stdin.decode("utf-8", "replace") if path == "/dev/stdin" else ctx.node.files.read(path)
        if text is None:
            raise Die(f"can't open '{path}' - No such file or directory")
        param["sshkeys"] = text
    errors: Errors = {}
    known = {name: prop for name in param if (prop := find(name)) is not None}
    check(known, param, errors)
    if errors:
        raise Die(verification_failed(errors, short(command)))
    return param, extra


def _arguments(entry: Command, param: dict[str, str], rest: list[str]) -> tuple[str, ...]:
    """Give the words to the arguments in order; what is left is the command of its own."""
    if len(rest) < len(entry.arguments):
        raise getopt.BadOption("400 not enough arguments\n")
    if len(rest) > len(entry.arguments) and not entry.extra:
        raise getopt.BadOption("400 too many arguments\n")
    param.update(zip(entry.arguments, rest, strict=False))
    return tuple(rest[len(entry.arguments) :])
