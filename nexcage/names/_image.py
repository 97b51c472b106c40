"""What an image text means, decided from the text alone. Whether it exists is looked up later.

``STORAGE:vztmpl/NAME`` and absolute or plain file names that end in ``.tar``, ``.tar.zst``, ``.tar.xz``, ``.tar.gz`` or
``.tar.bz2`` are templates (a plain ``.tar`` may turn out to be an OCI archive); ``/x``, ``./x`` and ``../x`` are paths
(a bundle or an OCI layout); everything else is a reference, read as container tools read it. So a missing path never
becomes a reference, and nothing is misread as a template. ``oci:/x``, ``oci-archive:/x`` and ``docker-archive:/x`` (``./x`` ``../x``) are
paths too, whatever they end in; ``:TAG`` may follow them. What a virtual machine is made from is a disk:
``STORAGE:import/NAME.qcow2``, ``STORAGE:iso/NAME.iso``, ``vm:template/VMID`` (a VM that was made a template), or an absolute file
name that ends as those do. ``STORAGE:backup/NAME.tar.zst`` is an archive of a container.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from nexcage.errors import InvalidInput, InvalidPath, UnsupportedImage
from nexcage.names import _words
from nexcage.names._checks import text
from nexcage.names._paths import path_fault

_ENDINGS = ".tar .tar.zst .tar.xz .tar.gz .tar.bz2"
_WAYS = (
    f"STORAGE:vztmpl/NAME.tar.zst, a file name ending in {_ENDINGS}, a path (/x ./x ../x), "
    "or a reference such as ubuntu:20.04"
)
_TAR = r".+\.tar(?:\.zst|\.xz|\.gz|\.bz2)?"
_TEMPLATE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*"
_OSTEMPLATE_MAX = 255  # of pct create's argument
_DISK_ENDINGS = r"\.(?:qcow2|raw|vmdk|img|iso)"
_DISK_VOLUME = rf"import/{_TEMPLATE_NAME}\.(?:qcow2|raw|vmdk)|iso/{_TEMPLATE_NAME}\.(?:iso|img)"
_BACKUP = rf"backup/(?:{_TEMPLATE_NAME}\.(?:tgz|tar(?:\.(?:gz|lzo|zst))?)|ct/[1-9][0-9]{{2,8}}/[0-9TZ:-]+)"
_VM_TEMPLATE = r"template/[1-9][0-9]{2,8}"

_PRINTABLE = r"[ -~]{1,4095}"
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?"
_REPOSITORY_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_IMAGE_ID = r"[0-9a-f]{64}"


class ImageRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image, classified. ``str(ref)`` is its canonical text; ``text`` is what was given."""

    text: str
    kind: Literal["template", "path", "reference", "disk", "backup"]
    storage: str | None = None
    """Of a template ``STORAGE:vztmpl/NAME``, and of a disk that is a volume (``vm``: of a VM that is a template)."""
    name: str | None = None
    """File name of a template, without directory; of a disk what follows the storage (``import/NAME.qcow2``), or its file name."""
    path: str | None = None
    """Of a path, and of a template or disk given by an absolute path."""
    registry: str | None = None
    """Of a reference, ``docker.io`` when none was given."""
    repository: str | None = None
    """Of a reference, ``library/`` included."""
    tag: str | None = None
    """Of a reference: ``latest`` when neither tag nor digest was given."""
    digest: str | None = None

    def __str__(self) -> str:
        if self.kind == "reference":
            tag = f":{self.tag}" if self.tag else ""
            digest = f"@{self.digest}" if self.digest else ""
            return f"{self.registry}/{self.repository}{tag}{digest}"
        if self.storage:
            return (
                f"{self.storage}:{self.name}"
                if self.kind in ("disk", "backup")
                else f"{self.storage}:vztmpl/{self.name}"
            )
        return self.text if self.kind == "path" else self.path or self.name or self.text

    def __repr__(self) -> str:
        return f"<ImageRef {self}: {self.kind}>"


def image(value: object) -> ImageRef:
    """The image that ``value`` (its text, or an ``ImageRef``, which is read again) means.

    Malformed text is ``UnsupportedImage``, a bad path ``InvalidPath``. Printable ASCII only.
    """
    if type(value) is ImageRef:
        value = value.text
    given = text("image", value, UnsupportedImage)
    if not re.fullmatch(_PRINTABLE, given):
        raise UnsupportedImage("image", given, "1 to 4095 printable ASCII characters")
    if given.startswith(("/", "./", "../")) or given in (".", ".."):
        return _path(given)
    if at_hand := re.match(r"(?:oci|oci-archive|docker-archive):(?=\.{0,2}/)", given):
        return _at_hand(given, given[at_hand.end() :])
    if ":vztmpl/" in given:
        return _volume(given)
    if re.match(r"[^/:]*:backup/", given):
        return _backup(given)
    if re.match(r"[^/:]*:(?:import|iso|template)/", given):  # no port, so never a registry
        return _disk(given)
    if re.fullmatch(_TAR, given) and re.fullmatch(_TEMPLATE_NAME, given):
        return ImageRef(given, "template", name=given)
    return _reference(given)


def _path(given: str) -> ImageRef:
    # Leading ../ say where a relative path begins; one further on would only hide where it ends.
    beyond = given
    while beyond.startswith("../"):
        beyond = beyond[3:]
    if fault := path_fault(beyond or ".."):
        raise InvalidPath("image", given, fault)
    name = given.rpartition("/")[2]
    if given.startswith("/") and re.fullmatch(_TAR, name):
        return ImageRef(given, "template", name=name, path=given)
    if given.startswith("/") and re.search(rf".{_DISK_ENDINGS}\Z", name):
        return ImageRef(given, "disk", name=name, path=given)
    return ImageRef(given, "path", path=given)


def _at_hand(given: str, path: str) -> ImageRef:
    beyond = path
    while beyond.startswith("../"):
        beyond = beyond[3:]
    if fault := path_fault(beyond or ".."):
        raise InvalidPath("image", given, fault)
    return ImageRef(given, "path", path=path)


def _volume(given: str) -> ImageRef:
    storage, _, name = given.partition(":vztmpl/")
    try:
        _words.storage(storage)
    except InvalidInput as error:
        raise UnsupportedImage("image", given, f"STORAGE:vztmpl/NAME whose storage is {error.reason}") from None
    if not re.fullmatch(_TAR, name) or not re.fullmatch(_TEMPLATE_NAME, name) or len(given) > _OSTEMPLATE_MAX:
        raise UnsupportedImage("image", given, f"at most {_OSTEMPLATE_MAX} characters, and the name ends in {_ENDINGS}")
    return ImageRef(given, "template", storage=storage, name=name)


def _disk(given: str) -> ImageRef:
    storage, _, name = given.partition(":")
    try:
        _words.storage(storage)
    except InvalidInput as error:
        raise UnsupportedImage("image", given, f"STORAGE:import/NAME whose storage is {error.reason}") from None
    if not re.fullmatch(_VM_TEMPLATE if storage == "vm" else _DISK_VOLUME, name) or len(given) > _OSTEMPLATE_MAX:
        ways = "STORAGE:import/NAME.qcow2 (.raw, .vmdk), STORAGE:iso/NAME.iso (.img), or vm:template/VMID"
        raise UnsupportedImage("image", given, ways)
    return ImageRef(given, "disk", storage=storage, name=name)


def _backup(given: str) -> ImageRef:
    storage, _, name = given.partition(":")
    try:
        _words.storage(storage)
    except InvalidInput as error:
        raise UnsupportedImage("image", given, f"STORAGE:backup/NAME whose storage is {error.reason}") from None
    if not re.fullmatch(_BACKUP, name) or len(given) > _OSTEMPLATE_MAX:
        raise UnsupportedImage("image", given, "an archive of a container, STORAGE:backup/vzdump-lxc-VMID-TIME.tar.zst")
    return ImageRef(given, "backup", storage=storage, name=name)


def _reference(given: str) -> ImageRef:
    named, at, digest = given.removeprefix("docker://").partition("@")
    registry, rest = _split_registry(named)
    repository, colon, tag = rest.partition(":")
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if fault := _name_fault(registry, repository) or _version_fault(tag if colon else None, digest if at else None):
        raise UnsupportedImage("image", given, fault)
    tag = tag if colon or at else "latest"
    parts = {"registry": registry, "repository": repository, "tag": tag or None, "digest": digest or None}
    return ImageRef(given, "reference", **parts)


def _split_registry(named: str) -> tuple[str, str]:
    """What stands before the first slash is a registry if it has a dot or a colon or is localhost."""
    first, slash, rest = named.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        return "docker.io", named
    return ("docker.io" if first == "index.docker.io" else first), rest


def _name_fault(registry: str, repository: str) -> str:
    if len(registry) + len(repository) > 254:
        return "registry and repository have at most 255 characters"
    if repository != repository.lower():
        return "a repository has no upper-case letters"
    if not re.fullmatch(_REGISTRY, registry) or not all(
        re.fullmatch(_REPOSITORY_PART, part) for part in repository.split("/")
    ):
        return _WAYS
    if re.fullmatch(_IMAGE_ID, repository.removeprefix("library/")):
        return "an image id is no reference; give a name, or NAME@sha256:..."
    return ""


def _version_fault(tag: str | None, digest: str | None) -> str:
    if tag is not None and not re.fullmatch(_TAG, tag):
        return "a tag is 1 to 128 of A-Z a-z 0-9 _ . - and does not begin with . or -"
    if digest is not None and not re.fullmatch(_DIGEST, digest):
        return "a digest is sha256: and 64 lower-case hex digits (or sha384:, sha512:)"
    return ""
