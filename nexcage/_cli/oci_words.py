"""What an OCI engine reads: the words of the runtime that was run, bare, and runc's own about a command line."""

from __future__ import annotations

import re
from typing import NamedTuple

from nexcage._cli.parser import Call, Usage

__all__ = ["Spoken", "check_arguments", "spoken"]

_FAILED = re.compile(r"(?:crun|runc) (\S+) on \S+ failed: (.+)", re.DOTALL)
_ARGUMENTS = {
    **dict.fromkeys(("create", "run", "start", "state", "delete", "pause", "resume", "update"), (1, 1)),
    "kill": (1, 2),
    "exec": (1, 0),
    "ps": (1, 0),
}
"""The fewest and the most words of a command; 0 is any number."""


class Spoken(NamedTuple):
    """What a runtime has said itself, in a command of its own: ``create``."""

    command: str
    text: str


def spoken(error: BaseException) -> Spoken | None:
    """The words of crun or runc in an error, which has them itself or, where they meant something more precise, in its notes."""
    for text in (str(error), *map(str, getattr(error, "__notes__", ()))):
        match = _FAILED.fullmatch(text)
        if match and any(map(str.isalpha, match[2])):  # crun's parser ends with a line that has a backquote alone
            return Spoken(match[1], match[2])
    return None


def check_arguments(call: Call) -> None:
    """Raises Usage as runc words it."""
    if call.name == "list" and call.text("format") not in (None, "table", "json"):
        raise Usage("invalid format option", oci=True)
    least, most = _ARGUMENTS.get(call.name, (0, 0))
    if least <= len(call.words) and (not most or len(call.words) <= most):
        return
    bound = f"minimum of {least}" if len(call.words) < least else f"maximum of {most}"
    wanted = f"exactly {least}" if least == most else f"a {bound}"
    raise Usage(f'runc: "{call.name}" requires {wanted} argument(s)', oci=True)
