"""Any config.json that the types allow, drawn by Hypothesis from the types themselves: a property that is new is drawn too."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from nexcage._core.bundle import Config, Namespace

__all__ = ["configs", "drawn", "leaf_values"]

_ODD = [
    "/",
    "/proc",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/a b",
    "a,b=c",
    "..",
    "/x/../y",
    "#",
    "x\ny",
    "\t",
    "'q' \"",
    "é",
    "-1",
    "0-3,5",
]
_WORDS = [
    *_ODD,
    *"proc sysfs tmpfs bind rbind ro rro remount tmpcopyup idmap cgroup devpts mqueue none mode=755 size=1k optional".split(),
    *"net.core.somaxconn kernel.msgmax kernel.panic fs.mqueue.msg_max net/ipv4/conf/eth0.5/forwarding".split(),
    *"CAP_KILL CAP_SYS_ADMIN CAP_NONE read openat clone3 /dev/null /dev/fuse /dev/../x eth0 a rwm c b memory.high cgroup.procs".split(),
    *"/proc/sys /proc/kcore /sys/firmware system.slice:nexcage:web /web 1.0.2".split(),
]
_NUMBERS = (-1, 0, 1, 2, 5, 100, 1024, 65536, 1 << 20, (64 << 20) + 1)
_FORMED = ["RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_STRANGE", "2MB", "1GB", "64KB", "", "0-3", "1,2", "MB:0=70"]


def configs() -> st.SearchStrategy[Config]:
    return _value(inspect.type_info(Config)).map(lambda made: _completed(msgspec.convert(made, Config)))


def drawn(chance: random.Random) -> Config:
    """One config.json with about two of three properties set; the same for the same ``chance``."""
    return _completed(msgspec.convert(_draw(inspect.type_info(Config), chance), Config))


def _completed(config: Config) -> Config:
    """Lists of namespaces with an odd number of them get the rest: short ones alone would leave something out, all of them."""
    listed = config.linux.namespaces or ()
    if len(listed) % 2 == 0:
        return config
    rest = {"mount", "pid", "network", "uts", "ipc", "cgroup"} - {one.type for one in listed}
    more = tuple(msgspec.convert({"type": kind}, Namespace) for kind in sorted(rest))
    return msgspec.structs.replace(config, linux=msgspec.structs.replace(config.linux, namespaces=(*listed, *more)))


def _draw(kind: inspect.Type, chance: random.Random) -> object:
    match kind:
        case inspect.StructType():
            fields = [field for field in kind.fields if field.required or chance.random() < 0.65]
            return {field.encode_name: _draw(field.type, chance) for field in fields}
        case inspect.UnionType():
            return _draw(chance.choice([one for one in kind.types if not isinstance(one, inspect.UnsetType)]), chance)
        case inspect.VarTupleType():
            return [_draw(kind.item_type, chance) for _ in range(chance.randint(kind.min_length or 0, 3))]
        case inspect.DictType():
            return {chance.choice(_WORDS): _draw(kind.value_type, chance) for _ in range(3)}
        case inspect.LiteralType():
            return chance.choice(kind.values)
        case inspect.BoolType():
            return chance.random() < 0.5
        case inspect.IntType():
            low = -(2**63) if kind.ge is None else kind.ge
            high = 2**63 - 1 if kind.le is None else kind.le
            return chance.choice([low, *(one for one in _NUMBERS if low <= one <= high)])
        case inspect.StrType():
            return chance.choice([one for one in _FORMED if re.search(kind.pattern, one)] if kind.pattern else _WORDS)
        case _:
            return "x"


def leaf_values(value: object, pointer: str = "") -> dict[str, object]:
    """The scalars of a document, by their pointers: what a walk over its properties has to find."""
    if isinstance(value, dict):
        items = [(str(key).replace("~", "~0").replace("/", "~1"), one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(index), one) for index, one in enumerate(value)]
    else:
        return {pointer: value}
    return {place: leaf for key, one in items for place, leaf in leaf_values(one, f"{pointer}/{key}").items()}


def _value(kind: inspect.Type) -> st.SearchStrategy[Any]:  # Any: whatever JSON can say
    match kind:
        case inspect.StructType():
            return _struct(kind)
        case inspect.UnionType():
            return st.one_of(*(_value(one) for one in kind.types if not isinstance(one, inspect.UnsetType)))
        case inspect.VarTupleType():
            return st.lists(_value(kind.item_type), min_size=kind.min_length or 0, max_size=3)
        case inspect.DictType():
            return st.dictionaries(st.sampled_from(_WORDS), _value(kind.value_type), max_size=3)
        case inspect.LiteralType():
            return st.sampled_from(list(kind.values))
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            low = -(2**63) if kind.ge is None else kind.ge
            high = 2**63 - 1 if kind.le is None else kind.le
            return st.integers(low, high) | st.sampled_from(
                [one for one in (-1, 0, 1, 100, 1024, 65536) if low <= one <= high]
            )
        case inspect.AnyType():
            return st.sampled_from([0, "x", [1], {"y": True}])
        case inspect.StrType():
            if kind.pattern:
                return st.sampled_from([one for one in _FORMED if re.search(kind.pattern or "", one)])
            return st.sampled_from(_WORDS) | st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
            )
        case _:
            raise AssertionError(kind)


def _struct(kind: inspect.StructType) -> st.SearchStrategy[Any]:  # Any: whatever JSON can say
    required = {field.encode_name: _value(field.type) for field in kind.fields if field.required}
    optional = {field.encode_name: _value(field.type) for field in kind.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional)
