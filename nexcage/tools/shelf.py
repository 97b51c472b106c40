"""Which images a node has, seen without starting a Perl tool: the storages that are directories, and what lies in them.

`pveam list` and `pvesm list` say the same for a second of CPU each and one storage at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, cast

from nexcage._core.command import Command, Result
from nexcage._core.images import Image, ImageStore, Shelf

__all__ = ["SHELF", "shelf", "stores"]

SHELF = r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
want=$1
shift
show() {
  [ -n "$id" ] || return 0
  case $want in ''|"$id") ;; *) return 0 ;; esac
  for kind in vztmpl:template/cache iso:template/iso import:import; do
    dir=${kind#*:} kind=${kind%%:*}
    case ,$dirs in *,$kind=*) dir=,$dirs dir=${dir##*,$kind=} dir=${dir%%,*} ;; esac
    (cd "$R$path/$dir" && stat -Lc "$id $kind %s %Y %F/%n" -- *)
  done
}
echo '@nexcage name'; readlink "$R/etc/pve/local"
echo '@nexcage storages'; cat "$R/etc/pve/storage.cfg"
echo '@nexcage images'
id= path= dirs= local=no
while read -r key value rest; do
  case $key in
    *:) show; id=$value path=/mnt/pve/$value dirs=; [ "$id" != local ] || local=yes ;;
    path) path=$value ;;
    content-dirs) dirs=$value ;;
  esac
done < "$R/etc/pve/storage.cfg"
show
[ "$local" = yes ] || { id=local path=/var/lib/vz dirs=; show; }
[ -n "$want" ] || (cd "$R/var/lib/nexcage-oci/cache" && stat -c "nexcage content %s %Y %F/%n" -- sha256-*.tar)
echo '@nexcage files'
for file in "$@"; do [ -f "$R$file" ] && echo yes || echo no; done
echo '@nexcage end'
"""

_ROW = re.compile(
    r"([A-Za-z][A-Za-z0-9_.-]*) (vztmpl|iso|import|content) ([0-9]{1,19}) ([0-9]{1,12}) regular (?:empty )?file/([ -~]+)"
)
_TEMPLATE = re.compile(r"[^/\s]+\.tar(?:\.(?:gz|xz|zst|bz2))?")
_CONTENT = re.compile(r"sha256-([0-9a-f]{64})\.tar")
_SHARED = frozenset({"nfs", "cifs", "cephfs", "glusterfs", "rbd", "iscsi", "iscsidirect", "pbs"})
_EVERYTHING = "images,rootdir,vztmpl,iso,backup,snippets,import"


def shelf(node: str, storage: str = "", files: tuple[str, ...] = ()) -> Command[Shelf]:
    """The images on a node (on one ``storage`` only, so that another one that hangs does no harm), and whether ``files`` exist.

    ``Shelf.stores`` is empty where storages cannot be read; then nothing is known about images either.
    """
    return Command(
        ("sh", "-c", SHELF, "nexcage", storage, *files),
        lambda result: _shelf(node, files, result),
        safe=True,
        weight="read",
        timeout=30.0,
        cap=16 << 20,
    )


def _shelf(node: str, files: tuple[str, ...], result: Result) -> Shelf:
    parts = _sections(result.stdout.decode("utf-8", "replace"))
    if "end" not in parts:
        raise ValueError("it ends before its last line")
    asked = dict(zip(files, (line == "yes" for line in parts["files"].splitlines()), strict=False))
    pve = parts["name"].strip().rpartition("/")[2]
    return Shelf(stores(parts["storages"]), tuple(_images(node, parts["images"])), asked, pve)


def _sections(text: str) -> Mapping[str, str]:
    """What stands below each marker line; a banner in front of the first is nobody's."""
    found = re.split(r"^@nexcage ([a-z]+)\n", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def _images(node: str, text: str) -> Iterator[Image]:
    for line in text.splitlines():
        row = _ROW.fullmatch(line)
        if row and row[2] == "content":
            if (kept := _CONTENT.fullmatch(row[5])) is not None:
                yield Image(f"sha256:{kept[1]}", node, kind="content", size=int(row[3]), at=int(row[4]))
        elif row and (row[2] != "vztmpl" or _TEMPLATE.fullmatch(row[5])):
            kind = cast('Literal["vztmpl", "iso", "import"]', row[2])
            yield Image(f"{row[1]}:{kind}/{row[5]}", node, kind=kind, size=int(row[3]), at=int(row[4]))


def stores(text: str) -> Mapping[str, ImageStore]:
    """The storages of a ``storage.cfg`` by name; ``local`` is there although it need not be written down."""
    found: dict[str, ImageStore] = {}
    for part in re.split(r"\n(?=\S)", text.strip()):
        head, *lines = part.split("\n")
        kind, colon, name = head.partition(":")
        if colon and name.strip():
            options = dict(_option(line) for line in lines if line.strip())
            found[name.strip()] = _store(name.strip(), kind.strip(), options)
    if found and "local" not in found:
        found["local"] = _store("local", "dir", {})
    return found


def _option(line: str) -> tuple[str, str]:
    key, _, value = line.strip().partition(" ")
    return key, value.strip() or "1"


def _store(name: str, kind: str, options: Mapping[str, str]) -> ImageStore:
    content = options.get("content", _EVERYTHING if kind in ("dir", "btrfs") else "images,rootdir")
    return ImageStore(
        name,
        kind,
        frozenset(word.strip() for word in content.split(",")),
        nodes=frozenset(word for word in options.get("nodes", "").split(",") if word),
        shared=options.get("shared") == "1" or kind in _SHARED,
        disabled=options.get("disable", "0") != "0",
    )
