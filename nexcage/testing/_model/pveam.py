"""The pretend ``pveam``: an index of templates, and downloads that are copies of what the index says."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.pve import START_UP, contents, split, took, unknown, worker, wrong
from nexcage.testing._model.storage import Die, Storage
from nexcage.testing._model.tool import Ctx, Steps, Wait

__all__ = ["INDEX", "NEWER", "pveam"]

INDEX: Mapping[str, str] = {
    "alpine-3.20-default_20240908_amd64.tar.xz": "system",
    "alpine-3.22-default_20250617_amd64.tar.xz": "system",
    "debian-12-standard_12.7-1_amd64.tar.zst": "system",
    "debian-12-standard_12.12-1_amd64.tar.zst": "system",
    "ubuntu-20.04-standard_20.04-1_amd64.tar.gz": "system",
    "ubuntu-22.04-standard_22.04-1_amd64.tar.zst": "system",
    "ubuntu-24.04-standard_24.04-2_amd64.tar.zst": "system",
    "debian-12-turnkey-core_18.1-1_amd64.tar.gz": "turnkeylinux",
}
"""The templates that a node knows of, and their sections."""
NEWER: Mapping[str, str] = {"debian-13-standard_13.1-2_amd64.tar.zst": "system"}
"""Those that it knows of after ``pveam update``."""
_UPDATED = f"{SIM}/pveam-updated"


def pveam(ctx: Ctx) -> Steps:
    """``pveam update|available|list|download|remove``."""
    yield from took(ctx.node, START_UP)
    words = ctx.argv[1:]
    names = [
        name for name in ("available", "download", "list", "remove", "update") if words and name.startswith(words[0])
    ]
    if len(names) != 1:
        return unknown(ctx)
    options, rest = split(words[1:], ("section",))
    need = {"list": 1, "download": 2, "remove": 1}.get(names[0], 0)
    if len(rest) != need:
        ctx.err(f"400 {'not enough' if len(rest) < need else 'too many'} arguments\npveam {names[0]} [OPTIONS]\n")
        return 2
    try:
        match names[0]:
            case "update":
                ctx.node.files.write(_UPDATED, "")
                ctx.out("update successful\n")
            case "available":
                ctx.out(_available(ctx.node, options.get("section")))
            case "list":
                ctx.out(_templates(ctx.node, rest[0]))
            case "remove":
                _remove(ctx.node, rest[0])
            case _:
                yield from _download(ctx, rest[0], rest[1])
    except Die as error:
        return wrong(ctx, error)
    return 0


def _known(node: Node) -> Mapping[str, str]:
    return {**INDEX, **NEWER} if node.files.exists(_UPDATED) else INDEX


def _available(node: Node, section: str | None) -> str:
    if section not in (None, "system", "mail", "turnkeylinux"):
        raise Die(
            f"400 Parameter verification failed.\nsection: value '{section}' does not have a value in the enumeration"
        )
    rows = sorted((kind, name) for name, kind in _known(node).items() if section in (None, kind))
    return "".join(f"{kind:<15} {name:<60} amd64\n" for kind, name in rows)


def _place(node: Node, name: str) -> Storage:
    place = storage.check(node, name)
    if "vztmpl" not in place.content:
        raise Die(f"storage '{name}' does not support templates")
    return place


def _templates(node: Node, name: str) -> str:
    place = storage.check(node, name)
    if "vztmpl" not in place.content:
        raise Die("Storage does not support templates!")
    rows = [volid for volid, _, kind, _, _ in contents(node, place) if kind == "vztmpl"]
    return f"{'NAME':<60} {'SIZE':<6}\n" + "".join(f"{volid:<60} {'2.60MB':<6}\n" for volid in rows)


def _remove(node: Node, volid: str) -> None:
    vol = storage.volume(node, volid)
    if vol.kind != "vztmpl":
        raise Die(f"volume '{volid}' is no template")
    path = storage.path_of(vol)
    if not node.files.exists(path):
        raise Die(f"can't remove '{path}' - No such file or directory")
    node.files.remove(path)
    node.effect("template", volid, "removed")


def _download(ctx: Ctx, name: str, template: str) -> Generator[Wait, Any, None]:  # Any: what waits are answered with
    node = ctx.node
    place = _place(node, name)
    section = _known(node).get(template)
    if section is None:
        raise Die("400 Parameter verification failed.\ntemplate: no such template\npveam download <storage> <template>")
    path = f"{place.path}/template/cache/{template}"
    url = f"http://download.proxmox.com/images/{section}/{template}"

    def body(say: Callable[[str], None]) -> Generator[Wait, Any, None]:
        say(f"downloading {url} to {path}\n")
        if node.files.exists(path):
            say("OK, got correct file already, no need to download\n")
            return
        yield from took(node, 4.0)
        if storage.full(node, place):
            raise Die(f"download failed: wget: {path}: No space left on device")
        content = json.dumps(
            {"ostype": template.partition("-")[0], "init": "busybox" if "alpine" in template else "systemd"}
        )
        node.files.write(path, content)
        node.effect("template", f"{place.id}:vztmpl/{template}", "downloaded")
        say(f"calculating checksum...OK, checksum verified\ndownload of '{url}' to '{path}' finished\n")

    yield from worker(ctx, "download", "", body)
