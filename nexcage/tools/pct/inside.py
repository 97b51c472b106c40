"""Commands and files inside a running container. ``push`` and ``pull`` exit 0 though they failed: what they say counts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nexcage._core.command import Command, Result, text
from nexcage.errors import InvalidInput, InvalidPath
from nexcage.tools.pct.call import change, number
from nexcage.tools.pct.words import classify

__all__ = ["exec_", "passwd", "program_said", "pull", "push"]

_ATTACH = re.compile(rb"^lxc-attach: \d+: \S+: ", re.MULTILINE)
_REFUSED = re.compile(
    rb"^(?:container '\d+' not running!|Configuration file 'nodes/|missing command at |Unknown option: |400 )",
    re.MULTILINE,
)
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


def exec_(
    vmid: int, argv: Sequence[str], *, stdin: bytes = b"", keep_env: bool = False, timeout: float | None = None
) -> Command[str]:
    """Run a program inside as root; its standard output is the answer. It is ended by TERM and KILL like any command.

    A status other than 0 is CommandFailed with that ``exit``; see :func:`program_said` for whose it is.
    """
    if isinstance(argv, str) or not argv or not all(type(word) is str and "\0" not in word for word in argv):
        raise InvalidInput("command", argv, "a program and its arguments, as separate words")
    options = ("--keep-env", str(int(keep_env)), "--")
    words = ("pct", "exec", number(vmid), *options, *argv)
    return Command(words, text, stdin=stdin, timeout=timeout, classify=classify)


def program_said(result: Result) -> bool:
    """Whether the exit status is the program's own, and not that of ``pct`` or of ``lxc-attach`` which did not get to it.

    127 (not found) and 126 (not executable) count as the program's, as in a shell.
    """
    if result.exit in (None, 0, 126, 127):
        return result.exit is not None
    return not (_REFUSED.search(result.stderr) or _ATTACH.search(result.stderr))


def passwd(vmid: int, user: str, password: str) -> Command[None]:
    """Set a password with the container's own ``chpasswd``; it travels through standard input only."""
    if not _OWNER.fullmatch(user):
        raise InvalidInput("user", user, "a user name")
    if type(password) is not str or not 5 <= len(password) <= 512 or re.search(r"[\x00-\x1f\x7f]", password):
        raise InvalidInput("password", "(not shown)", "5 to 512 characters and no control characters")
    argv = ("exec", number(vmid), "--keep-env", "0", "--", "chpasswd")
    return change(*argv, stdin=f"{user}:{password}\n".encode(), timeout=60.0)


def push(
    vmid: int, source: str, target: str, *, user: str = "", group: str = "", mode: int | None = None
) -> Command[None]:
    """Copy a file of the node to ``target`` in the container; names of users are the container's."""
    return _copy("push", vmid, source, target, user, group, mode)


def pull(
    vmid: int, source: str, target: str, *, user: str = "", group: str = "", mode: int | None = None
) -> Command[None]:
    """Copy a file of the container to ``target`` on the node; names of users are the node's."""
    return _copy("pull", vmid, source, target, user, group, mode)


def _copy(verb: str, vmid: int, source: str, target: str, user: str, group: str, mode: int | None) -> Command[None]:
    options: list[str] = []
    for name, owner in (("user", user), ("group", group)):
        if owner and not _OWNER.fullmatch(owner):
            raise InvalidInput(name, owner, "a name or a number")
        options += [f"--{name}", owner] if owner else []
    if mode is not None:
        if type(mode) is not int or not 0 <= mode <= 0o7777:
            raise InvalidInput("mode", mode, "permissions from 0 to 0o7777")
        options += ["--perms", f"{mode:04o}"]
    return change(verb, number(vmid), _path(source), _path(target), *options, timeout=900.0, silent=True)


def _path(path: str) -> str:
    if type(path) is not str or not path.startswith("/") or "\0" in path or len(path) > 4095:
        raise InvalidPath("path", path, "an absolute path")
    return path
