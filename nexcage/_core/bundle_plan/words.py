"""Spelling of values in the lines of PVE's and LXC's files, and what cannot be spelled there."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["clean", "entry_word", "mebibytes", "pve_takes", "single"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENTRY = str.maketrans({" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"})
_UNSPELLABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# A raw key that PVE cannot match is lost on its next write (PVE::LXC::Config::parse_pct_config).
_RAW_KEY = re.compile(r"lxc\.[a-z0-9_.-]+")
_OPEN = ("lxc.cgroup2.", "lxc.prlimit.", "lxc.net.")
_TAKEN = frozenset("apparmor.profile arch cap.drop cap.keep idmap mount.entry seccomp.profile uts.name".split())


def single(text: str) -> bool:
    """One line, without control characters and without blanks at its ends, which the file formats would eat."""
    return text == text.strip() and not _CONTROL.search(text)


def clean(text: str) -> bool:
    """One word of a line: not empty, no blanks, no control characters, no quotes, not a comment."""
    return bool(text) and single(text) and not re.search(r"[\s'\"#\\]", text)


def entry_word(text: str) -> str | None:
    """A field of ``lxc.mount.entry`` as fstab spells it; None when it cannot be written."""
    if not text or _UNSPELLABLE.search(text) or text.startswith("#"):
        return None
    return text.translate(_ENTRY)


def mebibytes(count: int) -> int:
    """``count`` bytes in whole MiB, rounded up."""
    return -(-count // (1 << 20))


@lru_cache(256)
def pve_takes(key: str) -> bool:
    """Whether VMID.conf may have this raw key; others go to a file that ``lxc.include`` names."""
    return bool(_RAW_KEY.fullmatch(key)) and (key.startswith(_OPEN) or key.removeprefix("lxc.") in _TAKEN)
