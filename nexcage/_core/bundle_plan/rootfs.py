"""Root file system, names, annotations, hooks and other platforms of config.json on PVE."""

from __future__ import annotations

import re

from msgspec import UNSET

from nexcage._core.bundle import Config, Hook
from nexcage._core.bundle.flaws import at
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.model import Call, Hooks
from nexcage._core.bundle_plan.words import clean, single

__all__ = ["FOREIGN", "calls", "map_document", "map_foreign", "map_hooks", "map_names", "map_root", "rootfs_of"]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME_BYTES = 64  # the kernel's limit for host and domain names
FOREIGN = {"solaris": "Solaris", "windows": "Windows", "vm": "virtual machines", "zos": "z/OS", "freebsd": "FreeBSD"}


def map_document(draft: Draft, config: Config) -> None:
    draft.apply("/ociVersion", "ociVersion of state.json")
    for key in config.annotations:
        draft.apply(at("/annotations", key), "annotations of state.json")


def map_foreign(draft: Draft, config: Config) -> None:
    for name, platform in FOREIGN.items():
        if getattr(config, name) is not UNSET:
            draft.refuse(f"/{name}", f"it is for {platform}; containers here are Linux's")


def rootfs_of(draft: Draft, config: Config) -> str:
    """Absolute path of the root file system, or empty."""
    if config.root is UNSET:
        return ""
    path = config.root.path
    return path if path.startswith("/") else f"{draft.bundle.path.rstrip('/')}/{path}"


def root_problem(draft: Draft, config: Config) -> str:
    seen = draft.bundle.root
    if config.root is UNSET:
        return "a Linux container needs a root file system"
    if seen is None:
        return ""
    if not seen.exists:
        return "there is no such directory"
    if not seen.directory:
        return "it is not a directory"
    return "it leads out of where the bundle may be" if seen.outside else ""


def map_root(draft: Draft, config: Config) -> None:
    draft.rootfs = rootfs_of(draft, config)
    problem = root_problem(draft, config)
    if config.root is UNSET:
        draft.refuse("/root", problem)
        return
    if problem:
        draft.refuse("/root/path", problem)
    else:
        draft.near("/root/path", "rootfs: a new volume", "filled from the directory; later changes there do not arrive")
    draft.readonly = config.root.readonly is True
    if draft.readonly:
        how = "PVE's own set-up of the system inside is left out, for it would write there (ostype: unmanaged)"
        draft.near("/root/readonly", "rootfs: ro=1", how)
    elif config.root.readonly is not UNSET:
        draft.apply("/root/readonly", "the default")


def map_names(draft: Draft, config: Config) -> None:
    if config.hostname is not UNSET:
        _hostname(draft, config.hostname)
    if config.domainname is not UNSET:
        _domainname(draft, config.domainname)


def _hostname(draft: Draft, name: str) -> None:
    if not name:
        draft.apply("/hostname", "nothing: the name is empty")
    elif len(name.encode()) > _NAME_BYTES:
        draft.refuse("/hostname", f"the kernel takes {_NAME_BYTES} bytes")
    elif _DNS.fullmatch(name):
        draft.apply("/hostname", draft.option("hostname", name))
    elif clean(name):
        draft.set_line("/hostname", "lxc.uts.name", name, "PVE itself shows another name, for it takes DNS names only")
    else:
        draft.refuse("/hostname", "it cannot be written as one word of a line")


def _domainname(draft: Draft, name: str) -> None:
    if not name or name == "(none)":
        draft.apply("/domainname", "the default")
    elif len(name.encode()) > _NAME_BYTES:
        draft.refuse("/domainname", f"the kernel takes {_NAME_BYTES} bytes")
    elif not single(name):
        draft.refuse("/domainname", "it cannot be written as one line")
    else:
        draft.parameter("/domainname", "kernel/domainname", name)


def calls(hooks: tuple[Hook, ...]) -> tuple[Call, ...]:
    return tuple(
        Call(hook.path, hook.args or (hook.path,), hook.env, None if hook.timeout is UNSET else hook.timeout)
        for hook in hooks
    )


def map_hooks(draft: Draft, config: Config) -> None:
    """Those that run on the node; ``startContainer`` belongs to the program."""
    hooks = config.hooks
    at_gate = "nexcage runs it on the node"
    late = "when the container waits at its gate, its root file system in place"
    groups = {
        "prestart": (hooks.prestart, late),
        "createRuntime": (hooks.create_runtime, late),
        "createContainer": (hooks.create_container, f"{late}; in the node's namespaces"),
        "poststart": (hooks.poststart, ""),
        "poststop": (hooks.poststop, ""),
    }
    for name, (listed, how) in groups.items():
        for index in range(len(listed)):
            pointer = f"/hooks/{name}/{index}"
            draft.near(pointer, at_gate, how) if how else draft.apply(pointer, at_gate)
    draft.hooks = Hooks(
        calls(hooks.prestart),
        calls(hooks.create_runtime),
        calls(hooks.create_container),
        calls(hooks.poststart),
        calls(hooks.poststop),
    )
