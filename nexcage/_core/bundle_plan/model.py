"""The values of a plan: for people what becomes of every field, for machines what to write, run and check.

Everything that is set in config.json has exactly one entry: in ``applied``, ``approximated`` or ``refused``. The machine's
part names things as PVE and LXC spell them; its texts are safe to write (no control characters, blanks escaped).
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Applied",
    "Approximated",
    "Bundle",
    "BundlePlan",
    "Call",
    "Hooks",
    "IdMap",
    "Launch",
    "Need",
    "Problem",
    "Refusal",
    "Root",
]


class Applied(msgspec.Struct, frozen=True):
    """``pointer`` (RFC 6901) reaches the container as it is; ``as_`` says through what."""

    pointer: str
    as_: str = msgspec.field(name="as")


class Approximated(msgspec.Struct, frozen=True):
    """``pointer`` reaches the container, not to the letter: ``how`` says the difference."""

    pointer: str
    as_: str = msgspec.field(name="as")
    how: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """``pointer`` cannot reach the container; create refuses it unless it is allowed to be dropped."""

    pointer: str
    reason: str


class Problem(msgspec.Struct, frozen=True):
    """The document is invalid at ``pointer``; then nothing else is planned."""

    pointer: str
    reason: str


class Call(msgspec.Struct, frozen=True):
    """One hook: ``path`` is executed with ``argv`` (its own name first) and exactly ``env``; ``timeout`` in seconds or None."""

    path: str
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hooks that nexcage runs on the node, in listed order (``startContainer`` is the launch's: it runs inside)."""

    prestart: tuple[Call, ...] = ()
    create_runtime: tuple[Call, ...] = ()
    create_container: tuple[Call, ...] = ()
    poststart: tuple[Call, ...] = ()
    poststop: tuple[Call, ...] = ()

    def __bool__(self) -> bool:
        return any((self.prestart, self.create_runtime, self.create_container, self.poststart, self.poststop))


class Launch(msgspec.Struct, frozen=True):
    """What the init shim does inside before it becomes the program. Bytes, because an argv is bytes."""

    argv: tuple[bytes, ...]
    env: tuple[bytes, ...] = ()
    cwd: bytes = b"/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int | None = None
    no_new_privs: bool = False
    capabilities: tuple[int, int, int, int, int] | None = None
    """Masks of bounding, permitted, effective, inheritable and ambient (bit N is capability N); None leaves them as they are."""
    start_container: tuple[Call, ...] = ()


class IdMap(msgspec.Struct, frozen=True):
    """One line ``lxc.idmap = KIND CONTAINER HOST SIZE``; ``kind`` is ``u`` or ``g``."""

    kind: str
    container: int
    host: int
    size: int

    def __str__(self) -> str:
        return f"{self.kind} {self.container} {self.host} {self.size}"


class Need(msgspec.Struct, frozen=True):
    """Something that must be so on the node before the create, for the sake of ``pointer``.

    ``kind``: ``path`` (exists), ``directory``, ``device`` (``value`` is ``TYPE PATH MAJOR MINOR``, numbers ``-`` when any),
    ``apparmor`` (profile is loaded), ``interface`` (host interface exists), ``machine`` (``uname -m``),
    ``subuid``/``subgid`` (root may map ``HOST SIZE``).
    """

    pointer: str
    kind: str
    value: str


GATE = "/process/args"
"""The pointer that stands for the init shim and its place, ``/.nexcage``."""


class Root(msgspec.Struct, frozen=True):
    """What was seen of the root file system's directory."""

    exists: bool = True
    directory: bool = True
    link: bool = False
    outside: bool = False
    """The path leads out of the bundle, and it is not an absolute one."""
    links: frozenset[str] = frozenset()
    """What of the document has a path inside that goes through a symbolic link; `GATE` for the place of the init shim."""


class Bundle(msgspec.Struct, frozen=True):
    """The facts about a bundle that its config.json does not say. ``root`` is None when it was not looked at."""

    path: str
    root: Root | None = None
    kinds: frozenset[tuple[str, str]] = frozenset()
    """What absolute sources of bind mounts are where that is known: ``("/etc/hosts", "file")``; others count as directories."""


class BundlePlan(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``allowed`` are the refused pointers that the caller lets go."""

    backend: str
    applied: tuple[Applied, ...] = ()
    approximated: tuple[Approximated, ...] = ()
    refused: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    error: Problem | None = None
    allowed: tuple[str, ...] = ()

    oci_version: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    rootfs: str = ""
    """Absolute path of the root file system's directory on the driver's machine."""
    readonly: bool = False
    unprivileged: bool = False
    idmap: tuple[IdMap, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    """``pct create``'s options in PVE's spelling, without dashes: ``("memory", "512")``. Never ``rootfs``, ``ostype`` or ``net``."""
    raw: tuple[tuple[str, str], ...] = ()
    """``lxc.*`` lines for VMID.conf, in order; an empty value clears the key."""
    include: tuple[tuple[str, str], ...] = ()
    """``lxc.*`` lines that PVE does not take in VMID.conf, for a file on the node that ``lxc.include`` names."""
    seccomp: str = ""
    """Text of the LXC policy file (version 2), or empty."""
    launch: Launch | None = None
    """None when the root file system's own /sbin/init runs, or when there is no process at all (``startable``)."""
    startable: bool = True
    """False: the document has no process, so start has to be refused."""
    terminal: bool = False
    hooks: Hooks = Hooks()
    needs: tuple[Need, ...] = ()

    @property
    def accepted(self) -> bool:
        """A create would go on."""
        return self.error is None and all(one.pointer in self.allowed for one in self.refused)

    def lines(self, directory: str) -> tuple[tuple[str, str], ...]:
        """All ``lxc.*`` lines for VMID.conf when :meth:`files` lie in ``directory`` on the node."""
        profile = (("lxc.seccomp.profile", f"{directory}/seccomp"),) if self.seccomp else ()
        include = (("lxc.include", f"{directory}/include"),) if self.include else ()
        return (*self.raw, *profile, *include)

    def files(self) -> tuple[tuple[str, str], ...]:
        """(name, text) of the files that :meth:`lines` refers to."""
        text = "".join(f"{key} = {value}\n" for key, value in self.include)
        given = (("seccomp", self.seccomp), ("include", text))
        return tuple((name, content) for name, content in given if content)
