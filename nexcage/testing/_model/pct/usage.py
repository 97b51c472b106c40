"""What ``pct help`` and a wrong call print. ``usage.txt`` is the program's own text, the long lists of volume keys left out."""

from __future__ import annotations

from functools import cache

__all__ = ["brief", "full", "listing", "short"]

_GROUPS = (
    "clone create destroy list migrate move-volume pending resize restore template",
    "config set",
    "delsnapshot listsnapshot rollback snapshot",
    "reboot resume shutdown start stop suspend",
    "console cpusets df enter exec fsck fstrim mount pull push remote-migrate rescan status unlock unmount",
    "help",
)
_VOLUMES = ("rootfs", *(f"mp{n}" for n in range(256)))
_UNUSED = tuple(f"unused{n}" for n in range(256))
_WIDTH = 62  # of the column that the lists are filled into


@cache
def _sections() -> dict[str, str]:
    """Each command's part of the help, by name."""
    with open(__file__.removesuffix("usage.py") + "usage.txt", encoding="utf-8") as file:
        text = file.read().rstrip("\n")
    parts = text.split("\n\nUSAGE: pct ")
    parts[0] = parts[0].removeprefix("USAGE: pct ")
    return {part.split(None, 1)[0]: f"USAGE: pct {part}" for part in parts}


def _fill(line: str) -> str:
    label, _, mark = line.partition("@")
    names = _VOLUMES + _UNUSED if "unused" in mark else _VOLUMES
    words = f"<{' | '.join(sorted(names))}>".split(" ")
    lines, column = [label + words[0]], max(0, len(label) - 14) + len(words[0])
    for word in words[1:]:
        if column + 1 + len(word) > _WIDTH:
            lines.append(f"\t     {word}")
            column = len(word)
        else:
            lines[-1] += f" {word}"
            column += 1 + len(word)
    return "\n".join(lines)


def full(command: str | None = None) -> str:
    """The long help of one command, or of all."""
    sections = _sections()
    texts = list(sections.values()) if command is None else [sections[command]]
    lines = "\n\n".join(texts).split("\n")
    return "\n".join(_fill(line) if "@volumes" in line else line for line in lines) + "\n\n\n"


def short(command: str) -> str:
    """One command's usage in one line, without the word USAGE."""
    return _sections()[command].split("\n", 1)[0].removeprefix("USAGE: ")


def brief(command: str | None = None) -> str:
    """The short help of one command, or of all by name."""
    lines = [short(name) for name in sorted(_sections()) if command in (None, name)]
    return "USAGE: " + "\n       ".join(lines) + "\n\n"


def listing(error: str, between: str = "\n") -> str:
    """What a wrong or missing command name prints."""
    groups = ["".join(f"       {short(name)}\n" for name in group.split()) for group in _GROUPS]
    return f"ERROR: {error}\nUSAGE: pct <COMMAND> [ARGS] [OPTIONS]\n\n" + between.join(groups)
