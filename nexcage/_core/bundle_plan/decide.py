"""``plan``: every property of a config.json ends as applied, approximated or refused. Pure: what is on disk comes in as facts."""

from __future__ import annotations

from collections.abc import Iterable

from nexcage._core.bundle import Config, Decoded, decode_config
from nexcage._core.bundle_plan.devices import map_devices, map_net_devices
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.isolation import map_identity, map_isolation
from nexcage._core.bundle_plan.limits import map_resources
from nexcage._core.bundle_plan.model import GATE, Bundle, BundlePlan, Problem
from nexcage._core.bundle_plan.mounts import LINKED, map_mounts
from nexcage._core.bundle_plan.program import map_process
from nexcage._core.bundle_plan.rootfs import calls, map_document, map_foreign, map_hooks, map_names, map_root
from nexcage._core.bundle_plan.runtimes import Runtime, map_runtime, split_flaws
from nexcage._core.bundle_plan.seccomp import map_seccomp
from nexcage._core.bundle_plan.walk import leaves
from nexcage.errors import BundleRefused, InvalidBundle, InvalidInput

__all__ = ["BACKENDS", "FORGOTTEN", "allowed", "demand", "plan"]

BACKENDS = ("lxc", "crun", "runc")
FORGOTTEN = "nothing carries it to the container"
"""The reason of a property that no mapping knows: it is refused rather than dropped."""
STANDS = "/.nexcage of the root file system is a symbolic link, and the init has to stand there"


def plan(
    config: bytes | str | Decoded[Config],
    bundle: Bundle,
    *,
    backend: str = "lxc",
    allow: Iterable[str] = (),
    runtime: Runtime | None = None,
) -> BundlePlan:
    """What becomes of ``config`` on ``backend``. An invalid document is the plan's ``error``, not an exception.

    ``allow`` names properties (JSON pointers, or with dots) that may be dropped when they are refused, with all below them.
    ``runtime`` says which version of crun or runc it is; without it the oldest one that nexcage works with is assumed.
    """
    if backend not in BACKENDS:
        raise InvalidInput("backend", backend, f"one of {', '.join(BACKENDS)}")
    draft = Draft(backend, bundle)
    decoded = _decoded(config)
    if isinstance(decoded, Problem):
        return draft.done(oci_version="", annotations=(), allowed=(), error=decoded)
    document = decoded.document
    draft.warnings += [str(notice) for notice in decoded.warnings if notice.misread_by != backend]
    if backend == "lxc":
        _lxc(draft, document)
    else:
        map_runtime(draft, document, runtime or Runtime(backend))
    for pointer in leaves(document, covered=draft.entries):
        draft.refuse(pointer, FORGOTTEN)
    if backend == "lxc" and bundle.root is not None:
        for pointer in sorted(bundle.root.links):
            if not pointer.startswith("/mounts/"):
                draft.overrule(pointer, STANDS if pointer == GATE else LINKED)
    for notice in decoded.warnings:
        if notice.misread_by == backend:
            draft.refuse(notice.pointer, notice.reason)
    if backend != "lxc" and decoded.untaken:
        split_flaws(draft, document, decoded.untaken)
    for notice in decoded.untaken:
        draft.overrule(notice.pointer, notice.reason)
    return draft.done(
        oci_version=document.oci_version,
        annotations=tuple(document.annotations.items()),
        allowed=allowed(draft.refusals(), allow),
        error=None,
    )


def _decoded(config: bytes | str | Decoded[Config]) -> Decoded[Config] | Problem:
    try:
        return config if isinstance(config, Decoded) else decode_config(config)
    except InvalidBundle as error:
        return Problem(error.pointer, error.reason)


def _lxc(draft: Draft, config: Config) -> None:
    """In an order in which a later mapping may rely on an earlier one: ids are known before users, mounts before hidden paths."""
    start_container = calls(config.hooks.start_container)
    map_document(draft, config)
    map_identity(draft, config.linux)
    map_root(draft, config)
    map_process(draft, config, start_container)
    map_names(draft, config)
    map_mounts(draft, config.mounts)
    map_hooks(draft, config)
    map_devices(draft, config.linux.devices)
    map_net_devices(draft, config.linux)
    map_resources(draft, config.linux.resources)
    if config.linux.seccomp:
        map_seccomp(draft, config.linux.seccomp)
    map_isolation(draft, config.linux)
    map_foreign(draft, config)


def allowed(refused: Iterable[str], allow: Iterable[str]) -> tuple[str, ...]:
    """Those of ``refused`` that one of ``allow`` names or holds. A root file system can not be done without."""
    fields = [_pointer(one) for one in allow]
    return tuple(
        pointer
        for pointer in refused
        if not pointer.startswith("/root")
        and any(pointer == field or pointer.startswith(field + "/") for field in fields)
    )


def _pointer(field: str) -> str:
    if field.startswith("/"):
        return field.rstrip("/")
    return "/" + field.replace(".", "/")


def demand(bundle: str, plan: BundlePlan) -> None:
    """Raises InvalidBundle for a document that is not valid and BundleRefused for a plan with refusals that are not allowed."""
    if plan.error is not None:
        raise InvalidBundle("config.json", plan.error.pointer, plan.error.reason)
    left = [one for one in plan.refused if one.pointer not in plan.allowed]
    if left:
        pointers, reasons = tuple(one.pointer for one in left), tuple(one.reason for one in left)
        raise BundleRefused(bundle, plan.backend, pointers, reasons)
