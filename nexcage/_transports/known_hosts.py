"""Reading OpenSSH's ``known_hosts``: which keys are known under a name. Pure; nothing in ssh_config can switch it off."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator

import msgspec

__all__ = ["Known", "KnownHosts", "fingerprint", "name_of"]

SSH_PORT = 22


class Known(msgspec.Struct, frozen=True):
    """The keys under one name, each as ``TYPE BASE64``: the host's own, those that may sign for it, and forbidden ones."""

    keys: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.authorities)


class KnownHosts:
    """The entries of some known_hosts files. A line that cannot be read costs only itself, as with ``ssh``."""

    def __init__(self, *texts: str) -> None:
        self._entries = [entry for text in texts for line in text.splitlines() if (entry := _entry(line)) is not None]

    def find(self, host: str, port: int) -> Known:
        """What is known under the exact name; for another port than 22 and no entry, what is known under the bare host name.

        Only names count: that another name with the same address has a key says nothing about this one.
        """
        exact = self._under(name_of(host, port))
        if exact or port == SSH_PORT:
            return exact
        bare = self._under(name_of(host, SSH_PORT))
        return Known(bare.keys, bare.authorities, bare.revoked + exact.revoked)

    def first_seen(self, host: str, port: int) -> bool:
        """Whether no key at all is known under the exact name, so that trust on first use may apply."""
        return not self._under(name_of(host, port))

    def _under(self, name: str) -> Known:
        found: dict[str, list[str]] = {"": [], "@cert-authority": [], "@revoked": []}
        for marker, patterns, key in self._entries:
            if _matches(patterns, name.lower()):
                found[marker].append(key)
        return Known(tuple(found[""]), tuple(found["@cert-authority"]), tuple(found["@revoked"]))


def name_of(host: str, port: int) -> str:
    """The name under which known_hosts keeps a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def fingerprint(key: str) -> str:
    """``SHA256:...`` of a key given as ``TYPE BASE64``, as OpenSSH shows it, with the type before it."""
    kind, _, data = key.partition(" ")
    digest = hashlib.sha256(base64.b64decode(data)).digest()
    return f"{kind} SHA256:{base64.b64encode(digest).rstrip(b'=').decode()}"


def _entry(line: str) -> tuple[str, str, str] | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if marker not in ("", "@cert-authority", "@revoked") or len(words) < 3:
        return None
    patterns, kind, data = words[:3]
    try:
        blob = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode("utf-8", "replace")):
        return None
    return marker, patterns, f"{kind} {data}"


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|"):
        return _matches_hash(patterns, name)
    found = False
    for pattern in patterns.lower().split(","):
        if pattern.startswith("!") and _glob(pattern[1:], name):
            return False
        found = found or _glob(pattern, name)
    return found


def _glob(pattern: str, name: str) -> bool:
    parts: Iterator[str] = ({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch("".join(parts), name, re.DOTALL) is not None


def _matches_hash(pattern: str, name: str) -> bool:
    try:
        _, version, salt, digest = pattern.split("|")
        expected = base64.b64decode(digest, validate=True)
        made = hmac.new(base64.b64decode(salt, validate=True), name.encode(), hashlib.sha1).digest()
    except (binascii.Error, ValueError):
        return False
    return version == "1" and hmac.compare_digest(made, expected)
