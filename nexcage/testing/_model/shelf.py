"""Twins of the scripts that look at the images of a node, at the versions of its parts and at the members of its cluster."""

from __future__ import annotations

from collections.abc import Iterator

from nexcage.testing._model import storage
from nexcage.testing._model.contents import size_of
from nexcage.testing._model.node import Node
from nexcage.testing._model.pve import packages
from nexcage.testing._model.storage import Storage
from nexcage.testing._model.tool import Ctx, Steps
from nexcage.tools.members import MEMBERS
from nexcage.tools.parts import PART
from nexcage.tools.shelf import SHELF
from nexcage.tools.shipping import CACHE

__all__ = ["SHELVES"]


def _shelf(ctx: Ctx) -> Steps:
    node, want, files = ctx.node, ctx.argv[1], ctx.argv[2:]
    places = [place for place in storage.storages(node).values() if want in ("", place.id)]
    ctx.out(
        f"@nexcage name\nnodes/{node.name}\n"
        f"@nexcage storages\n{node.files.read('/etc/pve/storage.cfg') or ''}"
        f"@nexcage images\n{''.join(line for place in places for line in _images(node, place))}"
        f"{''.join(_contents(node)) if not want else ''}"
        f"@nexcage files\n{''.join('yes' + chr(10) if node.files.read(file) is not None else 'no' + chr(10) for file in files)}"
        "@nexcage end\n"
    )
    return 0
    yield


def _images(node: Node, place: Storage) -> Iterator[str]:
    if "path" not in place.options:
        return
    for kind in ("vztmpl", "iso", "import"):
        directory = f"{place.path}/{storage.DIRECTORIES[kind]}"
        for name in node.files.names(directory):
            if (text := node.files.read(f"{directory}/{name}")) is not None:
                yield f"{place.id} {kind} {size_of(text)} 0 regular file/{name}\n"


def _contents(node: Node) -> Iterator[str]:
    for name in node.files.names(CACHE):
        if name.startswith("sha256-") and name.endswith(".tar"):
            yield f"nexcage content {size_of(node.files.read(f'{CACHE}/{name}') or '')} 0 regular file/{name}\n"


def _members(ctx: Ctx) -> Steps:
    read = ctx.node.files.read
    ctx.out(
        f"@nexcage members\n{read('/etc/pve/.members') or ''}@nexcage vmlist\n{read('/etc/pve/.vmlist') or ''}@nexcage end\n"
    )
    return 0
    yield


def _part(ctx: Ctx) -> Steps:
    ctx.out(f"{packages(ctx.node).get(ctx.argv[1], '')}\n@nexcage end\n")
    return 0
    yield


SHELVES = {SHELF: _shelf, MEMBERS: _members, PART: _part}
"""The scripts to their twins."""
