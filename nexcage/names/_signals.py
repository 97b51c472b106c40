"""Signals by name or number. Real-time names mean glibc's numbers (``RTMIN`` is 34), whatever the container's libc."""

from __future__ import annotations

import re

from nexcage.errors import InvalidName
from nexcage.names._checks import text, whole

# Linux on x86-64 and arm64; the position is the number.
_IN_ORDER = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_RTMIN, _RTMAX = 34, 64
_NUMBERS = {name: number for number, name in enumerate(_IN_ORDER.split(), start=1)}
_NUMBERS.update(IOT=_NUMBERS["ABRT"], CLD=_NUMBERS["CHLD"], POLL=_NUMBERS["IO"], RTMIN=_RTMIN, RTMAX=_RTMAX)

_DIGITS = r"[1-9][0-9]?"
_NAME = r"(?:SIG)?([A-Z][A-Z0-9]*)"
_REAL_TIME = r"(?:SIG)?RTM(?:IN\+|AX-)(0|[1-9][0-9]?)"


def signal(value: object) -> int:
    """A signal number, 1 to 64, from a number or a name: any case, with or without ``SIG``, ``RTMIN+3`` too."""
    number = whole(value)
    if number is None and issubclass(type(value), str):
        number = _read(text("signal", value))
    if number is None or not 1 <= number <= _RTMAX:
        raise InvalidName("signal", value, "a number from 1 to 64 or a name such as TERM, SIGHUP, RTMIN+3")
    return number


def _read(word: str) -> int | None:
    # upper() only of ASCII: of a dotless i or a long s it would make an honest letter.
    if not word.isascii() or len(word) > 16:
        return None
    word = word.upper()
    if re.fullmatch(_DIGITS, word):
        return int(word)
    if found := re.fullmatch(_REAL_TIME, word):
        steps = int(found[1])
        number = _RTMIN + steps if "+" in word else _RTMAX - steps
        return number if _RTMIN <= number <= _RTMAX else None
    found = re.fullmatch(_NAME, word)
    return _NUMBERS.get(found[1]) if found else None
