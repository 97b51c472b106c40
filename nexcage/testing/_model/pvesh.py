"""The pretend ``pvesh``: a little of PVE's API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.conf import read
from nexcage.testing._model.pve import VERSION, split, took, unknown, worker, wrong
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Ctx, Steps, Wait

__all__ = ["REGISTRY", "pvesh"]

REGISTRY: Mapping[str, tuple[str, ...]] = {
    "docker.io/library/alpine": ("3.20", "3.22", "latest"),
    "docker.io/library/nginx": ("1.28", "1.29", "latest"),
    "docker.io/grafana/grafana": ("12.1", "latest"),
    "quay.io/prometheus/node-exporter": ("v1.9.1", "latest"),
}
"""The images that every registry of the model has, and their tags."""


def pvesh(ctx: Ctx) -> Steps:
    """``pvesh get|create PATH --output-format json`` for the paths that say what is where, and for pulling images."""
    yield from took(ctx.node, 1.2)
    options, rest = split(ctx.argv[1:], ("output-format", "type", "vmid", "reference", "filename"))
    if not rest or rest[0] not in ("get", "ls", "create", "set", "delete", "usage"):
        return unknown(ctx)
    if len(rest) != 2:
        ctx.err(
            f"400 {'not enough' if len(rest) < 2 else 'too many'} arguments\npvesh {rest[0]} <api_path> [OPTIONS]\n"
        )
        return 2
    path = "/" + rest[1].strip("/")
    try:
        answer = (yield from _create(ctx, path, options)) if rest[0] == "create" else _answer(ctx.node, path, options)
    except Die as error:
        return wrong(ctx, error)
    if answer is None:
        ctx.err(f"No '{rest[0]}' handler defined for '{path}'\n")
        return 1
    pretty = 3 if options.get("output-format") == "json-pretty" else None
    ctx.out(json.dumps(answer, sort_keys=True, indent=pretty, separators=None if pretty else (",", ":")) + "\n")
    return 0


def _create(
    ctx: Ctx, path: str, options: dict[str, str]
) -> Generator[Wait, Any, str | None]:  # Any: what waits are answered with
    found = re.fullmatch(r"/nodes/([^/]+)/storage/([^/]+)/oci-registry-pull", path)
    if found is None:
        return None
    node = ctx.node
    if found[1] != node.name:
        raise Die(f"proxy handler failed: hostname lookup '{found[1]}' failed - failed to get address info")
    place = storage.check(node, found[2])
    if "vztmpl" not in place.content:
        raise Die(f"storage '{found[2]}' is not configured for content-type 'vztmpl'")
    reference = options.get("reference", "")
    tagged = re.fullmatch(r"((?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-z0-9._/-]+):([A-Za-z0-9_.-]+)", reference)
    if tagged is None:
        raise Die("400 Parameter verification failed.\nreference: value does not match the regex pattern")
    if node.files.exists(f"{SIM}/no-skopeo"):
        raise Die("Install 'skopeo' to pull OCI images from registries.")
    name = options.get("filename") or reference.rpartition("/")[2].replace(":", "_")
    file = f"{place.path}/template/cache/{name}.tar"
    if node.files.exists(file):
        raise Die(f"refusing to override existing file '{name}.tar'")

    def body(say: Callable[[str], None]) -> Generator[Wait, Any, None]:
        say(f"starting pull of 'docker://{reference}'\n")
        yield from took(node, 6.0)
        if tagged[2] not in REGISTRY.get(tagged[1], ()):
            raise Die(f"command 'skopeo copy docker://{reference} oci-archive:{file}' failed: exit code 1")
        if storage.full(node, place):
            raise Die(f"command 'skopeo copy docker://{reference} oci-archive:{file}' failed: exit code 1")
        node.files.write(file, json.dumps({"ostype": "debian", "oci": {"Cmd": [tagged[1].rpartition("/")[2]]}}))
        node.effect("template", f"{place.id}:vztmpl/{name}.tar", "pulled")

    task = yield from worker(ctx, "ociregistrypull", place.id, body)
    return task.upid


def _task(node: Node, upid: str) -> dict[str, str] | None:
    log = node.files.read(f"/var/log/pve/tasks/{upid.split(':')[4][-1]}/{upid}") if upid.count(":") == 8 else None
    if log is None:
        return None
    last = log.splitlines()[-1] if log else ""
    if not last.startswith("TASK "):
        return {"status": "running", "upid": upid}
    return {"status": "stopped", "upid": upid, "exitstatus": last[5:].removeprefix("ERROR: ")}


def _answer(node: Node, path: str, options: dict[str, str]) -> object:
    parts = path.strip("/").split("/")
    if path == "/version":
        return {"release": "9.1", "repoid": "42db4a6cf33dac83", "version": "9.1.1"}
    if path == "/cluster/status":
        return _cluster_status(node)
    if path == "/cluster/resources":
        return [
            entry for entry in _resources(node) if options.get("type", "") in ("", entry["type"], _KINDS[entry["type"]])
        ]
    if path == "/cluster/nextid":
        return str(next(n for n in range(100, 10**9) if node.guest_node(n) is None))
    if path == "/nodes":
        return [entry for entry in _resources(node) if entry["type"] == "node"]
    if len(parts) == 3 and parts[0] == "nodes" and parts[2] == "lxc":
        return [entry for entry in _resources(node) if entry["type"] == "lxc" and entry["node"] == parts[1]]
    if len(parts) == 5 and parts[0] == "nodes" and parts[2] == "tasks" and parts[4] == "status":
        return _task(node, parts[3])
    if len(parts) == 3 and parts[0] == "nodes" and parts[2] == "query-oci-repo-tags":
        return list(REGISTRY.get(options.get("reference", ""), ())) or None
    if len(parts) == 3 and parts[0] == "nodes" and parts[2] == "status":
        return {"pveversion": VERSION.partition(" ")[0], "uptime": int(node.steady() - node.booted)}
    return None


_KINDS = {"lxc": "vm", "qemu": "vm", "node": "node", "storage": "storage"}


def _members(node: Node) -> dict[str, Any]:  # Any: JSON
    loaded: dict[str, Any] = json.loads(node.files.read("/etc/pve/.members") or "{}")
    return loaded


def _cluster_status(node: Node) -> list[dict[str, object]]:
    members = _members(node)
    answer: list[dict[str, object]] = []
    cluster = members.get("cluster")
    if cluster is not None:
        answer.append({"id": "cluster", "type": "cluster", **cluster, "quorate": int(node.quorate)})
    for name, entry in members.get("nodelist", {node.name: {"id": 0, "online": 1, "ip": "10.99.0.1"}}).items():
        local = int(name == node.name)
        fields = {"nodeid": entry["id"], "online": entry["online"], "ip": entry["ip"], "local": local, "level": ""}
        answer.append({"id": f"node/{name}", "type": "node", "name": name, **fields})
    return answer


def _resources(node: Node) -> list[dict[str, Any]]:  # Any: JSON
    answer: list[dict[str, Any]] = []
    for name in node.files.names("/etc/pve/nodes"):
        answer.append(
            {
                "id": f"node/{name}",
                "type": "node",
                "node": name,
                "status": "online",
                "maxcpu": 16,
                "maxmem": 67424120832,
            }
        )
        for file in node.files.names(f"/etc/pve/nodes/{name}/lxc"):
            if not file.endswith(".conf"):
                continue
            vmid = int(file[:-5])
            conf = read(vmid, node.files.read(f"/etc/pve/nodes/{name}/lxc/{file}") or "")[0]
            status = ("running" if node.is_running(vmid) else "stopped") if name == node.name else "unknown"
            entry: dict[str, Any] = {"id": f"lxc/{vmid}", "type": "lxc", "vmid": vmid, "node": name, "status": status}
            entry |= {"name": conf.values.get("hostname", f"CT{vmid}"), "template": int(conf.values.get("template", 0))}
            entry |= {key: conf.values[key] for key in ("lock", "tags") if conf.values.get(key)}
            answer.append(entry)
    here = {"type": "storage", "node": node.name, "status": "available"}
    answer += [{"id": f"storage/{node.name}/{name}", "storage": name, **here} for name in storage.storages(node)]
    return answer
