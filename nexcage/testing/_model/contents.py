"""Twins of the scripts by which a node keeps content. In memory an archive is only what is known of it: its size and checksum."""

from __future__ import annotations

import hashlib
import json
import re

from nexcage.testing._model.node import Node
from nexcage.testing._model.oci_archive import image_of
from nexcage.testing._model.tool import Ctx, Input, Steps
from nexcage.tools.shipping import DISCARD, HELD, RECEIVE

__all__ = ["CONTENTS", "size_of"]


def _receive(ctx: Ctx) -> Steps:
    dest, sha256, size = ctx.argv[1:4]
    free = _free(ctx.node)
    if free is not None and free * 1024 < int(size):
        ctx.err(f"nexcage: there are {free} KiB free of the {int(size) // 1024} that it takes\n")
        return 28
    data, ctx.stdin = ctx.stdin, b""
    while not ctx.eof:
        yield Input()  # which waits only while there is none left to take
        data, ctx.stdin = data + ctx.stdin, b""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        ctx.err(f"nexcage: what arrived ({len(data)} bytes) is not what was sent ({size})\n")
        return 74
    ctx.node.files.write(dest, _kept(dest, data, found))
    ctx.out("@nexcage kept\n")
    return 0


def _kept(dest: str, data: bytes, sha256: str) -> str:
    if re.search(r"\.tar(\.[a-z0-9]+)?$", dest):
        image = image_of(data) if dest.endswith(".tar") else None
        return json.dumps({"sha256": sha256, "size": len(data), **({} if image is None else {"oci": image})})
    return data.decode("utf-8", "replace")


def _free(node: Node) -> int | None:
    text = node.files.read("/var/lib/nexcage-sim/free")
    return int(text) if text else None


def size_of(text: str) -> int:
    """What a file of a node in memory would have of bytes."""
    match = re.match(r'\{"sha256": "[0-9a-f]{64}", "size": ([0-9]+)[,}]', text)
    return int(match[1]) if match else len(text.encode("utf-8", "surrogateescape"))


def _held(ctx: Ctx) -> Steps:
    for path in ctx.argv[1:]:
        if (text := ctx.node.files.read(path)) is not None:
            ctx.out(f"@nexcage {size_of(text)} {path}\n")
    ctx.out("@nexcage end\n")
    return 0
    yield


def _discard(ctx: Ctx) -> Steps:
    for path in ctx.argv[1:]:
        ctx.node.files.remove(path)
    return 0
    yield


CONTENTS = {RECEIVE: _receive, HELD: _held, DISCARD: _discard}
"""The scripts to their twins."""
