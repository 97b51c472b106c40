"""What a test of the suite wants to see: not the exit status alone, but what was said and what came of it on the node."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from tests.e2e.site import Said, Site

__all__ = [
    "RUNTIMES",
    "Check",
    "Wrong",
    "any_state",
    "configured",
    "created",
    "deleted",
    "fails",
    "listed",
    "says",
    "signalled",
    "started",
    "state",
    "stopped",
    "timed",
    "vm_created",
    "weighed",
]

Check = Callable[[Said, Site], str]
"""Looks at what the command said and at the node; the message for the report, or raises `Wrong`."""


RUNTIMES = ("crun", "runc")


class Wrong(Exception):
    """The test failed, and why."""


def _need(true: object, message: str) -> None:
    if not true:
        raise Wrong(message)


def _well(said: Said) -> None:
    if said.exit:
        last = (said.err.strip() or said.out.strip() or "no message").splitlines()[0]
        raise Wrong(f"exit status {said.exit}: {last}")
    _need("Traceback" not in said.err, "it printed a traceback")


def says(*words: str) -> Check:
    """Exit 0, and each of these on standard output (as regular expressions)."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        missing = [word for word in words if not re.search(word, said.out, re.MULTILINE)]
        _need(not missing, f"not in its output: {', '.join(missing)}")
        return next((line for line in said.out.splitlines() if words and re.search(words[0], line)), "done")

    return check


def fails(*words: str) -> Check:
    """Exit 1 or 2, nothing on standard output, no traceback, and a message in which each of these is found."""

    def check(said: Said, site: Site) -> str:
        _need(said.exit in (1, 2), f"exit status {said.exit}, not 1 or 2: {said.err.strip() or said.out.strip()}")
        _need(not said.out, f"it printed {said.out[:80]!r}")
        _need("Traceback" not in said.err, "it printed a traceback")
        missing = [word for word in words if not re.search(word, said.err)]
        _need(not missing, f"the message lacks {', '.join(missing)}: {said.err.strip()}")
        return f"refused, exit {said.exit}: {said.err.strip().splitlines()[0]}"

    return check


# ---- what is so on the node, by other tools than ours -----------------------------------------------------------------------


def _state(site: Site, id: str) -> Mapping[str, Any]:
    said = site.run(f"nexcage state {shlex.quote(id)}")
    _well(said)
    return _document(said.out)


def _document(text: str) -> Mapping[str, Any]:  # Any: OCI state, whose fields are looked at one by one
    try:
        found: Any = json.loads(text)
    except ValueError:
        raise Wrong(f"not JSON: {text[:80]!r}") from None
    one: Mapping[str, Any] = found[0] if isinstance(found, list) and len(found) == 1 else found
    _need(
        isinstance(one, dict) and {"ociVersion", "id", "status", "bundle"} <= set(one), f"no OCI state: {text[:120]!r}"
    )
    return one


def _vmid(document: Mapping[str, Any]) -> str:
    return str(document.get("annotations", {}).get("org.nexcage.vmid", ""))


def _files(site: Site, id: str) -> str:
    return f"{site.run_dir}/{id}"


def created(id: str, *, backend: str) -> Check:
    """It is there, does not run, and its state file says so; for LXC, PVE has its configuration."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        document = _state(site, id)
        _need(document["status"] == "created", f"its status is {document['status']}")
        _need(site.run(f"test -s {_files(site, id)}/state.json").exit == 0, "it has no state.json")
        if backend == "lxc":
            config = site.run(f"pct config {_vmid(document)}")
            _need(config.exit == 0 and "rootfs:" in config.out, f"pct config {_vmid(document)}: {config.err.strip()}")
            return f"VMID {_vmid(document)}, rootfs {re.findall('rootfs: ([^,]+)', config.out)[0]}"
        return f"created by {document.get('annotations', {}).get('org.nexcage.backend', backend)}"

    return check


def listed(id: str) -> Check:
    """The table has its header and a row for it."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        rows = said.out.splitlines()
        _need(rows and rows[0].split()[:1] == ["ID"], f"no table: {said.out[:80]!r}")
        row = [line for line in rows[1:] if line.split()[:1] == [id]]
        _need(len(row) == 1, f"{len(row)} rows for {id}")
        return " ".join(row[0].split())

    return check


def started(id: str) -> Check:
    """It runs by what the node itself says."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        document = _state(site, id)
        _need(document["status"] == "running", f"its status is {document['status']}")
        return f"init has pid {_init(site, document)}"

    return check


def _init(site: Site, document: Mapping[str, Any]) -> int:
    """Its init's host pid, as the state says and as the node says."""
    pid = int(document.get("pid", 0))
    _need(pid > 1, f"its pid is {pid}")
    if document["annotations"].get("org.nexcage.backend") == "lxc":
        seen = site.run(f"lxc-info -n {_vmid(document)} -p -H").out.strip()
        _need(seen == str(pid), f"its pid is {pid}, and lxc-info says {seen or 'nothing'}")
    backend = document["annotations"].get("org.nexcage.backend")
    if not site.root or backend in RUNTIMES:
        _need(site.run(f"test -d /proc/{pid}").exit == 0, f"no process {pid} on the node")
    if backend in RUNTIMES:
        theirs = site.run(f"cat {_beside(site, document['id'])}/pid").out.strip()
        _need(theirs == str(pid), f"its pid is {pid}, and {backend} has written {theirs or 'nothing'}")
    return pid


def _beside(site: Site, id: str) -> str:
    """Where the node keeps what belongs to a container of a runtime."""
    fleet = site.run(f"cat {site.state}/fleet").out.strip()
    return f"/var/lib/nexcage-oci/{fleet}/{id}"


def state(id: str, status: str) -> Check:
    """OCI JSON with this status, the right pid, and the same in state.json."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        document = _document(said.out)
        _need(document["id"] == id, f"it is the state of {document['id']}")
        _need(document["status"] == status, f"its status is {document['status']}")
        kept = _document(site.run(f"cat {_files(site, id)}/state.json").out)
        _need(kept["status"] == status, f"state.json says {kept['status']}")
        if status == "running":
            return f"running, init has pid {_init(site, document)}"
        _need(not document.get("pid"), f"it is {status} and has pid {document.get('pid')}")
        return status

    return check


def configured(said: Said, site: Site) -> str:
    """The help of create; and the predecessor's configuration can be read."""
    says("^usage: nexcage create")(said, site)
    read = site.run(f"nexcage --config {site.etc}/config.json config show --output json")
    _need(read.exit == 0, f"config.json: {read.err.strip()}")
    return "config.json is read"


def timed(said: Said, site: Site) -> str:
    """The help, and how long it took there."""
    says("^usage: nexcage")(said, site)
    found = re.search(r"^real\s+(\S+)", said.err, re.MULTILINE)
    _need(found, f"no time: {said.err[:80]!r}")
    return f"real {found[1] if found else ''}"


def weighed(said: Said, site: Site) -> str:
    """The help, a process listing, and how much memory the program takes there at most."""
    says("^usage: nexcage", "nexcage")(said, site)
    usage = "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss"
    program = f"import resource, subprocess; subprocess.run(['nexcage', 'list'], capture_output=True); print({usage})"
    seen = site.run(f'{site.opt}/bin/python -c "{program}"').out.strip()
    _need(seen.isdigit(), f"no resident size: {seen!r}")
    _need(int(seen) < 256 * 1024, f"nexcage list took {int(seen) // 1024} MiB")
    return f"nexcage list took {int(seen) // 1024} MiB"


def any_state(said: Said, site: Site) -> str:
    """OCI JSON, found by VMID."""
    _well(said)
    document = _document(said.out.strip())
    _need(_vmid(document) in ("101", "999"), f"it is the state of VMID {_vmid(document)}")
    return f"VMID {_vmid(document)} is {document['id']}, {document['status']}"


def signalled(id: str, name: str) -> Check:
    """The signal was delivered to init by the host, and the journal says so; a simulated node says that it arrived."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        events = [
            json.loads(line) for line in site.run(f"nexcage events --id {id} --op kill --output jsonl").out.splitlines()
        ]
        _need([one.get("event") for one in events[-1:]] == ["succeeded"], "the journal has no kill that succeeded")
        if events[-1].get("backend") in RUNTIMES:
            told = site.run(
                f"for n in 1 2 3 4 5 6 7 8 9; do nexcage logs {id} | grep told && break; sleep 0.2; done"
            ).out
            _need("told" in told, f"its program was not told of {name}")
            return f"{name} reached its program"
        if site.sim is None:
            return f"{name} delivered to init by the host"
        arrived = [
            change for effect in site.sim.effects() for change in effect["changed"] if change["kind"] == "signal"
        ]
        _need(arrived and arrived[-1]["change"] == name, f"no {name} arrived at its init")
        return f"{name} arrived at the init of {arrived[-1]['target']}"

    return check


def stopped(id: str) -> Check:
    """Nothing of it runs any more."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        document = _state(site, id)
        _need(document["status"] == "stopped", f"its status is {document['status']}")
        if document["annotations"].get("org.nexcage.backend") == "lxc":
            seen = site.run(f"pct status {_vmid(document)}").out.strip()
            _need(seen == "status: stopped", f"pct says {seen}")
        return "stopped"

    return check


def deleted(id: str) -> Check:
    """The container, its volumes and its state directory are gone."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        gone = site.run(f"nexcage state {id}")
        _need(
            gone.exit == 1 and ("does not exist" in gone.err or "is gone" in gone.err),
            f"its state: {gone.out or gone.err}",
        )
        _need(site.run(f"test ! -e {_files(site, id)}").exit == 0, "its state directory is still there")
        left = site.run("nexcage list --all-guests --output json").out
        _need(f'"{id}"' not in left, "the node still has a guest with its mark")
        if any(one.get("backend") in RUNTIMES for one in _events(site, id)):
            _need(site.run(f"test ! -e {_beside(site, id)}").exit == 0, "the node still keeps something of it")
            return "gone, with its root file system and its state directory"
        vmids = {str(one.get("vmid")) for one in _events(site, id) if one.get("vmid")}
        for vmid in vmids:
            _need(site.run(f"pct config {vmid}").exit != 0, f"pct still has {vmid}")
            volumes = site.run(f"zfs list -H -o name 2>/dev/null | grep -E -- '-{vmid}-(disk|state)'").out.strip()
            _need(not volumes, f"its datasets are still there: {volumes}")
        return f"gone, with its datasets and its state directory (VMID {', '.join(sorted(vmids)) or 'none'})"

    return check


def _events(site: Site, id: str) -> list[Mapping[str, Any]]:  # Any: JSON
    return [json.loads(line) for line in site.run(f"nexcage events --id {id} --output jsonl").out.splitlines()]


def vm_created(id: str) -> Check:
    """PVE has a virtual machine of that name, which does not run."""

    def check(said: Said, site: Site) -> str:
        _well(said)
        document = _state(site, id)
        config = site.run(f"qm config {_vmid(document)}")
        _need(config.exit == 0, f"qm config {_vmid(document)}: {config.err.strip()}")
        return f"VMID {_vmid(document)}, {document['status']}"

    return check
