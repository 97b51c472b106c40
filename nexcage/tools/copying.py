"""Files into and out of containers: a shell inside does it, so that names and links mean what they mean there.

Into: the whole file arrives beside its place, its checksum is compared there, and only then it takes the place: whoever looks sees
the old file or the new one. Out of: the checksum is taken there too, and said behind the bytes.
"""

from __future__ import annotations

import re

import msgspec

from nexcage._core.command import Result, shown
from nexcage._core.seen import Mark
from nexcage.errors import CommandFailed, InvalidInput, InvalidPath, NexcageError, NodeNotUsable
from nexcage.tools.inside import DIGEST, PULL, PUSH

__all__ = ["Pulled", "checked_mode", "checked_path", "digest", "pull", "push", "refusal", "said"]

_SAID = re.compile(rb"@nexcage file ([0-9a-f]{64}) ([0-7]{1,4}) ([0-9]{1,10}) ([0-9]{1,10})\n\Z")
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}(?::[A-Za-z0-9_][A-Za-z0-9_-]{0,31})?")


class Pulled(msgspec.Struct, frozen=True):
    """What is known of a file that came out of a container."""

    sha256: str
    mode: int
    uid: int
    gid: int


def checked_path(path: str) -> str:
    """A path inside a container; raises InvalidPath."""
    if (
        not isinstance(path, str)
        or not path.startswith("/")
        or "\0" in path
        or path.endswith("/")
        or len(path.encode("utf-8", "replace")) > 4000
    ):
        raise InvalidPath("path", path, "the absolute path of a file inside the container")
    return path


def checked_mode(mode: int) -> int:
    """File permissions; raises InvalidInput."""
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o7777:
        raise InvalidInput("mode", mode, "file permissions from 0 to 0o7777")
    return mode


def push(path: str, *, mode: int, owner: str, sha256: str, nonce: str) -> tuple[str, ...]:
    """The words that run inside: standard input becomes the file ``path``; raises InvalidInput."""
    octal = f"{checked_mode(mode):o}".rjust(3, "0")
    if owner != "" and not (isinstance(owner, str) and _OWNER.fullmatch(owner)):
        raise InvalidInput("owner", owner, "USER, UID, USER:GROUP or UID:GID, known inside")
    return ("sh", "-c", PUSH, "push", checked_path(path), octal, owner, sha256, nonce)


def pull(path: str) -> tuple[str, ...]:
    """The words that run inside: the file ``path`` comes out of standard output."""
    return ("sh", "-c", PULL, "pull", checked_path(path))


def digest(path: str, nonce: str) -> tuple[str, ...]:
    """The words that run inside: the checksum of the file, or nothing when there is none. What a push left half done goes."""
    return ("sh", "-c", DIGEST, "digest", checked_path(path), nonce)


def said(stderr: bytes) -> Pulled:
    """What a pull said of the file behind its bytes; raises ValueError."""
    match = _SAID.search(stderr)
    if match is None:
        raise ValueError("its checksum is missing")
    return Pulled(match[1].decode(), int(match[2], 8), int(match[3]), int(match[4]))


def refusal(mark: Mark, verb: str, path: str, result: Result, node: str) -> NexcageError:
    """The error of a push or pull that ended with a status of its own."""
    text = shown(result.stderr).strip()
    reason = text.rpartition("nexcage: ")[2]
    match result.exit:
        case 71 if "nexcage: there is no" in text:
            return NodeNotUsable(node, f"{reason}: container '{mark.id}' lacks what {verb} needs")
        case 72 | 76 if "nexcage: " in text:
            return InvalidPath("path", path, f"a file inside the container is wanted, and {reason}")
        case 127 if 'Failed to exec "sh"' in text:
            return NodeNotUsable(node, f"there is no shell in container '{mark.id}', which {verb} needs")
        case _:
            return CommandFailed(node, (verb, path), result.exit or 0, text)
