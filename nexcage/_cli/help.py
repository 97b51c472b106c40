"""Help texts from the table of commands; each fits a screen."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence

from nexcage._cli.commands import COMMANDS, GLOBAL, GROUPS, Command, Option
from nexcage._cli.parser import Usage, close_to

__all__ = ["help_for", "help_of", "overview", "spelled"]

_LIFE = ("create", "run", "start", "stop", "kill", "pause", "resume", "delete")
CHAPTERS: dict[str, tuple[str, ...]] = {
    "look": ("list", "state", "events", "watch", "route"),
    "inside": ("exec", "cp", "push", "logs", "ps", "stats", "wait"),
    "keep": ("snapshot", "snapshots", "delsnapshot", "rollback", "backup", "backups", "restore"),
    "change": ("update", "resize", "move-volume", "migrate", "drain", "clone", "template", "adopt"),
    "images": ("images", "pull", "rmi"),
    "oci": ("plan", "spec", "features"),
    "care": ("health", "cordon", "uncordon", "reconcile", "doctor"),
    "program": ("config", "plugins", "version", "help", "completion", "man", "sim"),
}
"""What there is beside the life of a container, by what it is about."""


def help_for(words: Sequence[str]) -> str:
    """The text for ``nexcage help WORDS``; raises `Usage` for a command that does not exist."""
    name = " ".join(words)
    if not name:
        return overview()
    if name == "all":
        return _all()
    if name in COMMANDS:
        return help_of(COMMANDS[name])
    if name in GROUPS:
        return _group(name)
    error = Usage(f"unknown command {ascii(name)[1:-1]}", command="help", hint=close_to(name, COMMANDS))
    error.unknown = name
    raise error


def overview() -> str:
    """``nexcage --help``: what containers do in their life, the names of all else."""
    named = {name for names in CHAPTERS.values() for name in names}
    there = [*dict.fromkeys(name.split(" ")[0] for name in COMMANDS)]
    others = [name for name in there if name not in named and name not in _LIFE]
    chapters = {chapter: [name for name in names if name in there] for chapter, names in CHAPTERS.items()}
    rows = [(f"{chapter}:", ", ".join(names)) for chapter, names in {**chapters, "plugins": others}.items() if names]
    return "\n".join(
        [
            "usage: nexcage [OPTION...] COMMAND [ARGUMENT...]",
            "",
            "Containers on Proxmox VE, or by crun and runc: on this machine, or on many nodes over SSH.",
            "",
            "commands ('nexcage help COMMAND' says more, 'nexcage help all' a line about each):",
            *_columns([(name, COMMANDS[name].summary) for name in _LIFE], 12),
            *_columns(rows, 12),
            "",
            "options, before or after the command:",
            *_columns([(spelled(option), option.help) for option in GLOBAL], 28),
            "",
            "exit status: 0 done, 1 refused or failed, 2 usage or invalid input, 3 a node cannot be used.",
            "No Proxmox VE here? 'nexcage sim up --dir /tmp/sim --detach' starts a simulated cluster.",
            "",
        ]
    )


def _all() -> str:
    """``nexcage help all``."""
    return "\n".join([*_columns([(command.name, command.summary) for command in COMMANDS.values()], 18), ""])


def help_of(command: Command) -> str:
    """``nexcage COMMAND --help``."""
    lines = [
        f"usage: nexcage {command.name} {command.usage}".rstrip(),
        "",
        f"{command.summary[0].upper()}{command.summary[1:]}.",
    ]
    if command.text:
        lines += textwrap.wrap(command.text, _width(), break_on_hyphens=False)
    listed = [option for option in command.options if not option.hidden]
    shown = [(spelled(option), option.help) for option in listed if not option.brief]
    if command.outputs:
        shown.append(("-o, --output FORMAT", ", ".join(command.outputs)))
    if shown:
        lines += ["", "options:", *_columns(shown, 28)]
    if brief := [spelled(option).replace(" ", "\0") for option in listed if option.brief]:
        # An option and its value stay on one line.
        words = textwrap.wrap(f"more: {', '.join(brief)}", _width() - 4, break_on_hyphens=False)
        lines += [f"  {line}".replace("\0", " ") for line in words]
    if command.examples:
        lines += ["", "examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join([*lines, "", "Global options (--config, --hosts, --debug, ...): nexcage --help", ""])


def spelled(option: Option) -> str:
    """``-o, --output FORMAT``."""
    return ", ".join(option.flags) + (f" {option.value}" if option.value else "")


def _group(group: str) -> str:
    rows = [(sub, COMMANDS[f"{group} {sub}"].summary) for sub in GROUPS[group]]
    return "\n".join([f"usage: nexcage {group} {'|'.join(GROUPS[group])} ...", "", *_columns(rows, 14), ""])


def _width() -> int:
    """As wide as the terminal, 100 at most."""
    try:
        return max(60, min(100, os.get_terminal_size(1).columns))
    except OSError:  # it is none
        return 100


def _columns(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    lines: list[str] = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, _width() - width - 2, break_on_hyphens=False) or [""]
        first = f"  {left:<{width - 2}}"
        if len(left) > width - 3:
            lines.append(first.rstrip())
            first = " " * width
        lines.append(f"{first}{wrapped[0]}".rstrip())
        lines += [" " * width + line for line in wrapped[1:]]
    return lines
