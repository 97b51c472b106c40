"""Programs inside a simulated container, over a small file system of its own: enough of a system to see that bytes arrive.

Their standard input may still be on its way; a program that runs dry waits for more. When the container stops they are killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any

from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Input, Sleep, Steps, Wait

__all__ = ["Guest", "run"]

_CHUNK = 1 << 16
_PASSWD = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nuser:x:1000:1000::/home/user:/bin/sh\n"
_RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
_FRESH = (
    "/ /bin /etc /home /home/user /opt /root /srv /tmp /usr /usr/local /usr/local/bin /var /var/log /var/www".split()
)
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}


class Guest:
    """One program's view of its container."""

    def __init__(self, ctx: Ctx, node: Node, vmid: int, env: Mapping[str, str], *, uid: int = 0, gid: int = 0) -> None:
        self.ctx: Ctx = ctx
        self.node: Node = node
        self.vmid: int = vmid
        self.env: dict[str, str] = dict(env)
        self.uid: int = uid
        self.gid: int = gid
        self.cwd: str = "/"

    @property
    def size(self) -> str:
        """``ROWS COLS`` of its terminal, if it has one."""
        if self.ctx.real:
            try:
                columns, rows = os.get_terminal_size(0)
            except OSError:
                return ""
            return f"{rows} {columns}"
        return self.ctx.env.get("NEXCAGE_SIZE", "")

    def lives(self) -> bool:
        """Whether what it runs in still does."""
        return self.node.is_running(self.vmid)

    # --- files --------------------------------------------------------------------------------------------------------

    def place(self, path: str) -> str:
        """A path from where the program is."""
        return path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes | None:
        """A file's bytes."""
        from nexcage.testing._model.pct.execs import guest_file

        path = self.place(path)
        text = self.node.files.read(self._stored(path))
        if text is None:
            text = {"/etc/passwd": _PASSWD, "/etc/os-release": _RELEASE}.get(path)
        if text is None:
            text = guest_file(self.node, self.vmid, path)
        return None if text is None else text.encode("utf-8", "surrogateescape")

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A file is there, whole."""
        path = self.place(path)
        self.node.files.write(self._stored(path), data.decode("utf-8", "surrogateescape"))
        self.chmod(path, mode, self.uid, self.gid)

    def remove(self, path: str) -> None:
        """A file is gone."""
        if self.node.files.exists(self._stored(self.place(path))):
            self.node.files.remove(self._stored(self.place(path)))

    def is_directory(self, path: str) -> bool:
        """A directory of a fresh system, or one that has files."""
        path = self.place(path).rstrip("/") or "/"
        return path in _FRESH or (
            self.node.files.read(self._stored(path)) is None and self.node.files.exists(self._stored(path))
        )

    def names(self, path: str) -> list[str] | None:
        """What is in a directory, or a file itself; None for what is not there."""
        if not self.is_directory(path):
            return None if self.read(path) is None else [path]
        place = self.place(path).rstrip("/")
        fresh = {one.removeprefix(place + "/") for one in _FRESH if one != "/" and one.startswith(place + "/")}
        written = set(self.node.files.names(self._stored(place)))
        return sorted(written | {name for name in fresh if "/" not in name})

    def about(self, path: str) -> tuple[int, int, int]:
        """Mode, uid and gid."""
        known = json.loads(self.node.files.read(self._modes) or "{}")
        mode, uid, gid = known.get(self.place(path), (0o644, 0, 0))
        return mode, uid, gid

    def chmod(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Whose it is and what they may."""
        known = json.loads(self.node.files.read(self._modes) or "{}")
        known[self.place(path)] = (mode, uid, gid)
        self.node.files.write(self._modes, json.dumps(known))

    def _stored(self, path: str) -> str:
        return f"/var/lib/lxc/{self.vmid}/rootfs{path}"

    @property
    def _modes(self) -> str:
        return f"{SIM}/inside/{self.vmid}"

    # --- streams ------------------------------------------------------------------------------------------------------

    def chunk(self) -> Generator[Wait, Any, bytes]:  # Any: see tool.Steps
        """What has come on standard input; nothing at its end."""
        while not self.ctx.stdin and not self.ctx.eof:
            yield Input()
        data, self.ctx.stdin = self.ctx.stdin, b""
        return data

    def whole(self) -> Generator[Wait, Any, bytes]:  # Any: likewise
        """Standard input to its end."""
        parts: list[bytes] = []
        while part := (yield from self.chunk()):
            parts.append(part)
        return b"".join(parts)


Program = Callable[[Guest, tuple[str, ...]], Steps]


def run(guest: Guest, words: tuple[str, ...]) -> Steps:
    """A program to its end; 137 when its container stops meanwhile. Exit 127 as lxc-attach says it for one that is not there."""
    program = PROGRAMS.get(words[0].rpartition("/")[2])
    if program is None:
        where = "../src/lxc/attach.c: lxc_attach_run_command: 1845"
        guest.ctx.err(f'lxc-attach: {guest.vmid}: {where} No such file or directory - Failed to exec "{words[0]}"\n')
        return 127
    steps = program(guest, words[1:])
    answer: object = None
    while True:
        try:
            wait = steps.send(answer)
        except StopIteration as end:
            status: int = end.value
            return status & 255
        answer = yield wait
        if not guest.lives():
            return 137


# --- programs ---------------------------------------------------------------------------------------------------------


def _status(number: int) -> Program:
    def program(guest: Guest, words: tuple[str, ...]) -> Steps:
        return number
        yield

    return program


def _echo(guest: Guest, words: tuple[str, ...]) -> Steps:
    end = "" if words[:1] == ("-n",) else "\n"
    guest.ctx.out(" ".join(words if end else words[1:]) + end)
    return 0
    yield


def _printf(guest: Guest, words: tuple[str, ...]) -> Steps:
    r"""``printf '%s\n' WORD...`` and plain texts."""
    text = words[0].replace("\\n", "\n") if words else ""
    guest.ctx.out("".join(text.replace("%s", word) for word in words[1:]) if "%s" in text else text)
    return 0
    yield


def _cat(guest: Guest, words: tuple[str, ...]) -> Steps:
    status = 0
    for path in words or ("-",):
        if path == "-":
            while data := (yield from guest.chunk()):
                guest.ctx.out(data)
            continue
        content = guest.read(path)
        if content is None:
            guest.ctx.err(f"cat: can't open '{path}': No such file or directory\n")
            status = 1
        else:
            guest.ctx.out(content)
    return status


def _env(guest: Guest, words: tuple[str, ...]) -> Steps:
    guest.ctx.out("".join(f"{name}={value}\n" for name, value in guest.env.items()))
    return 0
    yield


def _id(guest: Guest, words: tuple[str, ...]) -> Steps:
    name = {0: "root", 33: "www-data", 1000: "user"}
    shown = [
        f"{key}={n}({name[n]})" if n in name else f"{key}={n}" for key, n in (("uid", guest.uid), ("gid", guest.gid))
    ]
    guest.ctx.out(f"{guest.uid}\n" if words == ("-u",) else " ".join(shown) + "\n")
    return 0
    yield


def _hostname(guest: Guest, words: tuple[str, ...]) -> Steps:
    guest.ctx.out(guest.read("/etc/hostname") or b"")
    return 0
    yield


def _pwd(guest: Guest, words: tuple[str, ...]) -> Steps:
    guest.ctx.out(f"{guest.cwd}\n")
    return 0
    yield


def _sleep(guest: Guest, words: tuple[str, ...]) -> Steps:
    """In pieces, so that it notices that its container stops."""
    left = float(words[0]) if words else 0.0
    while left > 0:
        yield Sleep(min(left, 0.5))
        left -= 0.5
    return 0


def _head(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``head -c N [/dev/zero]``."""
    left = int(words[1])
    while left > 0:
        data = bytes(min(left, _CHUNK)) if words[2:] == ("/dev/zero",) else (yield from guest.chunk())[:left]
        if not data:
            break
        guest.ctx.out(data)
        left -= len(data)
        if words[2:]:
            yield Sleep(0.001)
    return 0


def _wc(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``wc -c``."""
    guest.ctx.out(f"{len((yield from guest.whole()))}\n")
    return 0


def _sha256sum(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``sha256sum [FILE]``."""
    data = guest.read(words[0]) if words else (yield from guest.whole())
    guest.ctx.out(f"{hashlib.sha256(data or b'').hexdigest()}  {words[0] if words else '-'}\n")
    return 0


def _stat(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``stat -c '%a %u %g' FILE``."""
    mode, uid, gid = guest.about(words[-1])
    guest.ctx.out(f"{mode:o} {uid} {gid}\n")
    return 0
    yield


def _test(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``test -e|-f|-d|-s PATH``."""
    if len(words) != 2 or words[0] not in ("-e", "-f", "-d", "-s"):
        guest.ctx.err("test: only -e, -f, -d and -s of one path are known here\n")
        return 2
    directory, data = guest.is_directory(words[1]), guest.read(words[1])
    found = {"-e": directory or data is not None, "-f": data is not None, "-d": directory, "-s": bool(data)}
    return 0 if found[words[0]] else 1
    yield


def _ls(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``ls [PATH...]``, a name a line."""
    status = 0
    for path in [word for word in words if not word.startswith("-")] or ["."]:
        found = guest.names(guest.cwd if path == "." else path)
        if found is None:
            guest.ctx.err(f"ls: cannot access '{path}': No such file or directory\n")
            status = 2
        else:
            guest.ctx.out("".join(f"{name}\n" for name in found))
    return status
    yield


def _rm(guest: Guest, words: tuple[str, ...]) -> Steps:
    for path in words:
        if not path.startswith("-"):
            guest.remove(path)
    return 0
    yield


def _stty(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``stty size``."""
    if not guest.size:
        guest.ctx.err("stty: standard input: Inappropriate ioctl for device\n")
        return 1
    guest.ctx.out(f"{guest.size}\n")
    return 0
    yield


def _nc(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``nc -l -p PORT``: listens until its input ends."""
    from nexcage.testing._model.inside import listen

    port = int(words[-1])
    listen(guest.node, guest.vmid, port)
    try:
        yield from guest.whole()
    finally:
        listen(guest.node, guest.vmid, port, still=False)
    return 0


def _journalctl(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``journalctl -n N [-f]``."""
    log = (guest.read("/var/log/journal") or b"").splitlines(keepends=True)
    if not log:
        host = (guest.read("/etc/hostname") or b"").decode().strip()
        log = [f"Jan 01 00:00:0{n} {host} systemd[1]: {text}\n".encode() for n, text in enumerate(_BOOTING)]
    count = int(words[words.index("-n") + 1])
    guest.ctx.out(b"".join(log[-count:] if count else []))
    seen = len(guest.read("/var/log/journal") or b"")
    while "-f" in words:
        yield Sleep(0.2)
        now = guest.read("/var/log/journal") or b""
        if len(now) > seen:
            guest.ctx.out(now[seen:])
            seen = len(now)
    return 0


_BOOTING = ("Reached target Basic System.", "Started Getty on tty1.", "Reached target Multi-User System.")


def _sh(guest: Guest, words: tuple[str, ...]) -> Steps:
    """``sh -c SCRIPT``: the library's own scripts, and short ones: commands joined by ``;``, ``$NAME``, ``>`` and ``>>`` behind echo."""
    from nexcage.testing._model.inner import INNER

    if len(words) < 2 or words[0] != "-c":
        return (yield from _typed(guest))
    twin = INNER.get(words[1])
    if twin is not None:
        return (yield from twin(guest, words[3:]))
    status = 0
    for part in (part.strip() for part in words[1].split(";")):
        if not part:
            continue
        ended, status = yield from _command(guest, part, status)
        if ended:
            break
    return status


def _command(guest: Guest, part: str, status: int) -> Generator[Wait, Any, tuple[bool, int]]:  # Any: see tool.Steps
    """One command of a script: whether it ends the shell, and the status."""
    part = re.sub(r"\$([A-Za-z_][A-Za-z0-9_]*)", lambda found: guest.env.get(found[1], ""), part)
    if found := re.fullmatch(r"exit(?: ([0-9]+))?", part):
        return True, int(found[1] or status) & 255
    if found := re.fullmatch(r"kill -(?:SIG)?([A-Z0-9]+) \$\$", part):
        return True, 128 + (_SIGNALS.get(found[1]) or int(found[1] if found[1].isdigit() else 15))
    if found := re.fullmatch(r"echo (.*?) ?(>>?) ?(/\S+)", part):
        before = (guest.read(found[3]) or b"") if found[2] == ">>" else b""
        guest.write(found[3], before + found[1].strip("'\"").encode("utf-8", "surrogateescape") + b"\n")
        return False, 0
    if found := re.fullmatch(r"echo (.*?)( ?>&2)?", part):
        (guest.ctx.err if found[2] else guest.ctx.out)(found[1].strip("'\"") + "\n")
        return False, 0
    return False, (yield from run(guest, tuple(part.split())))


def _typed(guest: Guest) -> Steps:
    """A shell that reads commands from its standard input."""
    rest = b""
    status = 0
    while data := (yield from guest.chunk()):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            ended, status = yield from _command(
                guest, line.decode("utf-8", "surrogateescape").strip() or "true", status
            )
            if ended:
                return status
    return status


PROGRAMS: dict[str, Program] = {
    "bash": _sh,
    "cat": _cat,
    "echo": _echo,
    "env": _env,
    "false": _status(1),
    "head": _head,
    "hostname": _hostname,
    "id": _id,
    "journalctl": _journalctl,
    "ls": _ls,
    "nc": _nc,
    "printf": _printf,
    "pwd": _pwd,
    "rm": _rm,
    "sh": _sh,
    "sha256sum": _sha256sum,
    "sleep": _sleep,
    "stat": _stat,
    "stty": _stty,
    "test": _test,
    "true": _status(0),
    "wc": _wc,
}
