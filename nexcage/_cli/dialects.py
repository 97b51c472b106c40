"""Three ways to say the same: ours (``create web-1 --image X``), the predecessor's (``create --name web-1 X``) and the OCI
runtime's (``--root DIR create --bundle DIR --pid-file F ID``). Here a `Call` becomes ids, a `Spec` and signals; and an
error becomes what ``runc`` would have said, for engines that read its words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nexcage import Net, Spec, Vm, names
from nexcage._cli.creating import asked, is_machines
from nexcage._cli.oci_words import Spoken, spoken
from nexcage._cli.parser import Call
from nexcage.errors import AlreadyExists, IllegalTransition, InvalidInput, InvalidPath, InvalidSpec, NotFound

__all__ = [
    "Targets",
    "creation",
    "is_term",
    "kill_targets",
    "mebibytes",
    "number",
    "oci_refusals",
    "runc_message",
    "tags",
    "targets",
]

_TERM = re.compile(r"(id|node|state|tag|backend|image|vmid)(!=|=|~).")
_DIGITS = re.compile(r"[0-9]{1,12}")
_SIZES = {"": 1, "M": 1, "G": 1024}


class Targets(NamedTuple):
    """Which containers a call names: words (ids or VMIDs), or a selector; an empty selector means all of them."""

    words: tuple[str, ...] = ()
    selector: str | None = None


def targets(call: Call) -> Targets:
    """Of a command that takes ids, ``--name``, ``--all`` or ``-l``."""
    return _targets(call, call.words)


def kill_targets(call: Call) -> tuple[Targets, str]:
    """Of ``kill``, with the signal: ``kill ID [SIGNAL]``, or ``-s SIGNAL`` and only ids. An engine's ``--all`` is ignored."""
    given = call.text("signal")
    if given is not None:
        return _targets(call, call.words), given
    words = list(call.words)
    named = call.text("name") is not None or (not call.oci and _selecting(call))
    most = 1 if named else 2
    if len(words) > most:
        raise call.usage("takes ID [SIGNAL]", "for several containers: kill -s SIGNAL ID...")
    # nexcage kill -9 web-1: what only looks like an option is the signal.
    dashed = [word for word in words if re.fullmatch("-[0-9]{1,2}", word)]
    if dashed:
        words.remove(dashed[0])
        words.append(dashed[0][1:])
    signal = words.pop() if len(words) == most else "TERM"
    return _targets(call, words), signal


def _selecting(call: Call) -> bool:
    return call.flag("all") or bool(call.many("selector"))


def is_term(word: str) -> bool:
    """Whether a word is part of a selector, which no id and no signal can look like."""
    return _TERM.match(word) is not None


def _targets(call: Call, words: Sequence[str]) -> Targets:
    named = call.text("name")
    if call.oci:
        return Targets((oci_id(call, words),))
    if named is not None:
        if words:
            raise call.usage(f"--name {named!a} and {words[0]!a} both name a container")
        words = (named,)
    terms = [word for word in words if is_term(word)]
    if _selecting(call) or terms:
        if len(terms) != len(words):
            raise call.usage("takes container ids, or --all or a selector, not both")
        return Targets(selector=" ".join((*call.many("selector"), *terms)))
    if not words:
        raise call.usage("which container?", "an id, a VMID, --all or -l SELECTOR")
    if "" in words:
        raise InvalidInput("container_id", "", "must not be empty")
    return Targets(tuple(dict.fromkeys(words)))


def oci_id(call: Call, words: Sequence[str]) -> str:
    """The one id that an OCI command takes."""
    if len(words) != 1:
        raise call.usage(f"{call.name} takes exactly 1 argument, the container id")
    if not words[0]:
        raise InvalidInput("container_id", "", "container id cannot be empty")
    return names.container_id(words[0])


def creation(call: Call, read: Callable[[str], str], cwd: str | None = None) -> tuple[str, Spec]:
    """The id and the spec of ``create`` and ``run``; ``read`` gives the text of a file, of standard input for ``-``."""
    if call.text("from") is not None or call.name == "clone":
        return copy_of(call)
    id, image, bundle = _what(call, cwd)
    fields: dict[str, Any] = {}  # Any: the keywords of Spec
    for name, take in (("memory", mebibytes), ("swap", mebibytes), ("cores", number), ("size", _gibibytes)):
        value = call.text(name)
        if value is not None:
            fields[name] = take(name, value)
    for name in ("hostname", "storage", "description", "node"):
        if (text := call.text(name)) is not None:
            fields[name] = text
    if (backend := call.text("runtime")) is not None:
        fields["backend"] = backend
    if nets := call.many("net"):
        fields["nets"] = () if nets == ("none",) else tuple(Net.parse(net) for net in nets)
    if (keys := call.text("ssh_public_keys")) is not None:
        fields["ssh_public_keys"] = _keys(read(keys))
    if call.flag("privileged"):
        if call.flag("unprivileged"):
            raise call.usage("--privileged and --unprivileged contradict each other")
        fields["unprivileged"] = False
    if (machine := _vm(call)) is not None:
        fields["vm"] = machine
    if call.flag("onboot"):
        fields["onboot"] = True
    if call.flag("pull"):
        fields["pull"] = True
    if found := tags(call):
        fields["tags"] = found
    return id, Spec(image=image, bundle=bundle, **fields, **asked(call))


def _vm(call: Call) -> Vm | None:
    """What was said that only a virtual machine has."""
    given = {field: call.text(name) for field, name in (("user", "ci_user"), ("cpu", "cpu"))}
    if (ostype := call.text("ostype")) is not None and is_machines(call, ostype):
        given["ostype"] = ostype
    said: dict[str, Any] = {field: word for field, word in given.items() if word is not None}  # Any: keywords of Vm
    if call.flag("agent"):
        said["agent"] = True
    return Vm(**said) if said else None


_OF_A_COPY = ("hostname", "storage", "description")
_NOT_OF_A_COPY = (
    *("image", "bundle", "memory", "swap", "cores", "size", "net", "tag", "node", "runtime", "ssh_public_keys", "pull"),
    *(
        "privileged",
        "unprivileged",
        "onboot",
        "mount",
        "dev",
        "cpulimit",
        "cpuunits",
        "features",
        "startup",
        "nameserver",
    ),
    *("searchdomain", "timezone", "pool", "hookscript", "arch", "ostype", "protection", "allow", "keep_template"),
    "gate",
)


def copy_of(call: Call) -> tuple[str, Spec]:
    """The id and the spec of ``clone ID NEWID`` and of ``create NEWID --from ID``."""
    named, source, words = call.text("name"), call.text("from"), list(call.words)
    if call.name == "clone" and len(words) == 2:
        source, id = words
    elif call.name != "clone" and len(words) + (named is not None) == 1:
        id = named or words[0]
    else:
        raise call.usage("takes ID NEWID" if call.name == "clone" else "takes one new ID with --from")
    if refused := [option for option in _NOT_OF_A_COPY if call.given(option)]:
        flag = refused[0].replace("_", "-")
        raise call.usage(
            f"--{flag} is not for a copy: it has what its source has", "nexcage update changes it afterwards"
        )
    given = {key: text for key in _OF_A_COPY if (text := call.text(key)) is not None}
    fields: dict[str, Any] = {
        **given,
        "linked": call.flag("linked"),
        "snapshot": call.text("snapshot"),
    }  # Any: keywords
    return names.container_id(id), Spec.from_container(names.container_id(source), **fields)


def _what(call: Call, cwd: str | None) -> tuple[str, str, str | None]:
    """Id, image and bundle."""
    if call.oci:
        engine = oci_id(call, call.words)
        where = _absolute(call.text("bundle") or ".", cwd)
        return engine, where, where
    words, named = list(call.words), call.text("name")
    if named is None and not words:
        raise call.usage("which id?", f"nexcage {call.name} ID --image IMAGE")
    id = names.container_id(words.pop(0) if named is None else named)
    oci_refusals(call)
    image, bundle = call.text("image"), call.text("bundle")
    if words and named is not None and image is None:
        image = words.pop(0)
    if words:
        hint = (
            ""
            if named is not None
            else f"the image goes behind --image: nexcage {call.name} {id} --image {ascii(words[0])[1:-1]}"
        )
        raise call.usage(f"does not take the word {words[0]!a}", hint)
    if image is not None and bundle is not None:
        raise call.usage("--image and --bundle both say what to run")
    if bundle is not None:
        path = _absolute(bundle, cwd)
        return id, path, path
    if image is None:
        raise call.usage("which image?", "--image STORAGE:vztmpl/NAME.tar.zst, or --bundle DIR")
    return id, image, None


def oci_refusals(call: Call, where: str = "") -> None:
    """Raise InvalidInput for what only a runtime of this machine can do with its caller; ``where`` the container is to be."""
    # Accepting these and doing nothing would be a lie that an engine finds out much later.
    but = f": {where}" if where else ""
    if call.text("console_socket") is not None:
        raise InvalidInput(
            "console-socket", call.text("console_socket"), f"only with crun or runc on this machine{but}"
        )
    if call.text("preserve_fds") not in (None, "0"):
        raise InvalidInput("preserve-fds", call.text("preserve_fds"), f"only with crun or runc on this machine{but}")


def _absolute(path: str, cwd: str | None) -> str:
    if not path or "\x00" in path:
        raise InvalidPath("bundle", path, "a directory with config.json")
    return os.path.normpath(os.path.join(cwd or os.getcwd(), path))


def number(field: str, value: str) -> int:
    """A whole number in ASCII digits."""
    if not _DIGITS.fullmatch(value):
        raise InvalidSpec(field, value, "a whole number")
    return int(value)


def mebibytes(field: str, value: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})(M|G|)", value)
    if match is None:
        raise InvalidSpec(field, value, "MiB as a whole number, or with M or G behind it")
    return int(match[1]) * _SIZES[match[2]]


def _gibibytes(field: str, value: str) -> int:
    return number(field, value.removesuffix("G"))


def tags(call: Call) -> tuple[str, ...]:
    # As in PVE itself, one option may carry several: --tag 'web;blue' and --tag web,blue.
    return tuple(names.tag(tag) for given in call.many("tag") for tag in re.split("[;,]", given))


def _keys(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines()]
    return tuple(line for line in lines if line and not line.startswith("#"))


def runc_message(call: Call, error: Exception) -> str:
    """What runc says in this situation, where engines read its words; our own line for everything else."""
    own = spoken(error)
    said = _runc_words(call.name, error, own)
    if said is None:
        text = own.text if own is not None else str(error)
        return text.replace("runc create failed: ", "runc run failed: ", 1) if call.name == "run" else text
    if call.name == "exec":
        return f"exec failed: {said}"
    return (
        f"runc {call.name} failed: {said}"
        if call.name in ("create", "run") and isinstance(error, (AlreadyExists, InvalidInput))
        else said
    )


def _runc_words(verb: str, error: Exception, own: Spoken | None) -> str | None:
    match error:
        case InvalidPath(field="pid-file"):
            return f"open {ascii(error.value)[1:-1]}: no such file or directory"
        case InvalidSpec(field="process.terminal"):
            return "cannot allocate tty if runc will detach without setting console socket"
        case NotFound(what="container"):
            return "container does not exist"
        case AlreadyExists(what="container"):
            return "container with given ID already exists"
        case InvalidInput(field="container_id"):
            return "container id cannot be empty" if error.value == "" else "invalid container ID format"
        case InvalidInput(field="signal"):
            return f'unknown signal "{ascii(error.value)[1:-1]}"'
        case InvalidPath() if own is None:
            return _bundle_words(error)
        case IllegalTransition(state=state):
            return _refused(verb, state, error.id)
        case _:
            return None


def _bundle_words(error: InvalidInput) -> str:
    path = str(error.value)
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "config.json")):
        return "JSON specification file config.json not found"
    if not os.path.exists(path):
        return f"chdir {ascii(path)[1:-1]}: no such file or directory"
    return str(error)


def _refused(verb: str, state: str, id: str) -> str | None:
    match verb, state:
        case "start", "running" | "starting" | "pausing":
            return "cannot start an already running container"
        case "start", "stopped" | "stopping" | "deleting":
            return "cannot start a container that has stopped"
        case "start", "paused" | "resuming":
            return "cannot start a container in the paused state"
        case (("kill" | "pause"), ("stopped" | "stopping" | "created" | "deleting")):
            return "container not running"
        case "pause", "paused" | "resuming":
            return "container not running"
        case "exec", "paused" | "resuming":
            return "cannot exec in a paused container (use --ignore-paused to override)"
        case "exec", _:
            return "cannot exec in a stopped container"
        case (("events" | "measure"), _):
            return f"container with id {id} is not running"
        case "update", _:
            return "container not running"
        case "resume", _:
            return "container not paused"
        case "delete", _:
            return f"cannot delete container {id} that is not stopped: {state}"
        case _:
            return None
