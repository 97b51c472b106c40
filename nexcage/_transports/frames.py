"""The frames between the driver and the runner on a node: docs/runner.md as functions. Pure.

A frame is a length (4 bytes, of all that follows), a kind (1 byte), a command's number (4 bytes, 0 for the session) and a
payload: text fields that each end in NUL, then raw bytes. One function makes each kind, one method or function reads it;
a driver needs half of them and a runner (the real one is ``runner.pl``) the other half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Literal, TypeAlias

import msgspec

from nexcage._core.command import Command
from nexcage.errors import NexcageError

__all__ = [
    "BEGUN",
    "CREDIT",
    "END",
    "EOF",
    "ERR",
    "FROM_NODE",
    "HELLO",
    "INPUT",
    "OUT",
    "PIECE",
    "PING",
    "PONG",
    "PROTOCOL",
    "QUIT",
    "REFUSED",
    "RESULT",
    "RUN",
    "TO_NODE",
    "WINDOW",
    "Decoder",
    "Ended",
    "Frame",
    "FrameError",
    "Hello",
    "Refused",
    "Run",
    "count",
    "field",
    "frame",
    "given",
    "one",
    "result",
    "run",
]

PROTOCOL = 1
WINDOW = 256 * 1024
"""Bytes of a streamed command, in either direction, that may be on their way without having been taken (`CREDIT`)."""
TO_NODE = (1 << 20) + 64
"""The longest frame to a node, by its length field."""
FROM_NODE = (1 << 16) + 64
"""The longest frame from a node."""

# Kinds. From the node:
HELLO, RESULT, PIECE, OUT, ERR, BEGUN, REFUSED, PONG, QUIT = b"HXCoeBNpQ"
# From the driver; CREDIT goes both ways: output that was taken here, input of a streamed command that was taken there.
RUN, INPUT, EOF, CREDIT, END, PING = b"RIEWKP"

Frame: TypeAlias = tuple[int, int, bytes]
"""Kind, number, payload. A plain tuple: there are two for every command."""

_HEAD = Struct(">IBI")
_LENGTH = 4
_LEAST = 5
_PART = 1 << 20
_PIECE = 1 << 16
_WITH = 1 << 16
"""The most input that comes with the command itself."""


class FrameError(NexcageError):
    """The other side does not speak this protocol, or its words came damaged: the session is over."""


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now; raises FrameError on a length that cannot be (and is of no use afterwards)."""
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        at, size = 0, len(data)
        while size - at >= 9:
            length, kind, number = _HEAD.unpack_from(data, at)
            if not _LEAST <= length <= self._most:
                break
            end = at + _LENGTH + length
            if end > size:
                break
            frames.append((kind, number, data[at + 9 : end]))
            at = end
        self._rest = data[at:] if at else data
        if size - at >= _LENGTH:
            length = int.from_bytes(self._rest[:_LENGTH])
            if not _LEAST <= length <= self._most:
                raise FrameError(f"a frame of {length} bytes")
        return frames

    @property
    def whole(self) -> bool:
        """Whether nothing is left of a frame that has not ended."""
        return not self._rest


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    """Any frame: the kinds without fields of their own (`INPUT`, `OUT`, `EOF`, `END`, `PING`...) are made by this alone."""
    return _HEAD.pack(len(payload) + _LEAST, kind, number) + payload


def field(value: object) -> bytes:
    """One text field, for the kinds that have just one (`BEGUN`: the pid, `CREDIT`: bytes, `QUIT`: why)."""
    return str(value).encode("utf-8", "surrogateescape") + b"\0"


def one(payload: bytes) -> bytes:
    """The text of a payload that is one field; raises FrameError."""
    text, end, rest = payload.partition(b"\0")
    if not end or rest:
        raise FrameError("a frame without its field")
    return text


def count(payload: bytes) -> int:
    """The number in a payload that is one field; raises FrameError."""
    return _number(one(payload))


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise FrameError(f"not a number: {text[:32]!r}")
    return int(text)


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner says about itself and its node. ``tools`` are those of ours that are on PATH there; ``ops``: claims can be kept."""

    protocol: int
    boot_id: str = ""
    time: float = 0.0
    uptime: float = 0.0
    uid: int = 0
    perl: str = ""
    pid: int = 0
    tools: tuple[str, ...] = ()
    ops: bool = False

    def encode(self) -> bytes:
        fields = (
            f"protocol={self.protocol}",
            f"boot_id={self.boot_id}",
            f"time={self.time}",
            f"uptime={self.uptime}",
            f"uid={self.uid}",
            f"perl={self.perl}",
            f"pid={self.pid}",
            f"tools={' '.join(self.tools)}",
            f"ops={self.ops:d}",
        )
        return frame(HELLO, 0, b"".join(map(field, fields)))

    @classmethod
    def decode(cls, payload: bytes) -> Hello:
        """Names that are not known are left out: a later protocol may say more. Raises FrameError."""
        values = _pairs(_fields(payload))
        try:
            return cls(
                protocol=int(values["protocol"]),
                boot_id=values.get("boot_id", ""),
                time=float(values.get("time", 0)),
                uptime=float(values.get("uptime", 0)),
                uid=int(values.get("uid", 0)),
                perl=values.get("perl", ""),
                pid=int(values.get("pid", 0)),
                tools=tuple(values.get("tools", "").split()),
                ops=values.get("ops") == "1",
            )
        except (KeyError, ValueError) as error:
            raise FrameError(f"a greeting that cannot be read: {error}") from None


def _fields(payload: bytes) -> list[str]:
    if payload and not payload.endswith(b"\0"):
        raise FrameError("a field that does not end")
    return payload.decode("utf-8", "surrogateescape").split("\0")[:-1]


def _pairs(fields: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in fields:
        name, equals, value = text.partition("=")
        if not equals:
            raise FrameError(f"not NAME=VALUE: {text[:64]!r}")
        pairs[name] = value
    return pairs


class Ended(msgspec.Struct, frozen=True):
    """The end of a command. ``exit`` is None when it goes on without us; ``late``: its deadline on the node ended it.

    ``data`` is the end of both outputs (the pieces come before it), of which the first ``out`` bytes of the whole are stdout.
    """

    exit: int | None
    signalled: bool
    dropped: int
    late: bool
    seconds: float
    out: int
    attached: bool
    data: bytes

    @classmethod
    def decode(cls, payload: bytes) -> Ended:
        """Raises FrameError."""
        try:
            exit, signalled, dropped, late, seconds, out, attached, data = payload.split(b"\0", 7)
            return cls(
                None if exit == b"-" else int(exit),
                signalled == b"1",
                int(dropped),
                late == b"1",
                float(seconds),
                int(out),
                attached == b"1",
                data,
            )
        except ValueError as error:
            raise FrameError(f"a result that cannot be read: {error}") from None


def result(
    number: int,
    exit: int | None,
    stdout: bytes = b"",
    stderr: bytes = b"",
    *,
    signalled: bool = False,
    dropped: int = 0,
    late: bool = False,
    seconds: float = 0.0,
    attached: bool = False,
) -> bytes:
    """The frames of a command's end, long outputs in pieces."""
    data = stdout + stderr
    pieces: list[bytes] = []
    while len(data) > _PIECE - 256:
        pieces.append(frame(PIECE, number, data[:_PIECE]))
        data = data[_PIECE:]
    fields = (
        "-" if exit is None else exit,
        f"{signalled:d}",
        dropped,
        f"{late:d}",
        f"{seconds:.2f}",
        len(stdout),
        f"{attached:d}",
    )
    return b"".join((*pieces, frame(RESULT, number, b"".join(map(field, fields)) + data)))


class Refused(msgspec.Struct, frozen=True):
    """A command that surely did not begin, and why (kinds: ``fenced rebooted void claims full invalid``)."""

    kind: str
    message: str

    def encode(self, number: int) -> bytes:
        return frame(REFUSED, number, field(self.kind) + field(self.message))

    @classmethod
    def decode(cls, payload: bytes) -> Refused:
        """Raises FrameError."""
        fields = _fields(payload)
        if len(fields) != 2:
            raise FrameError("a refusal without its two fields")
        return cls(fields[0], fields[1])


def run(number: int, command: Command[Any], *, patience: float, stream: bool = False) -> bytes:
    """The frames that start ``command``, with all of its input; that of a streamed one stays open behind it.

    Raises ValueError when a word holds a NUL, is not text that has bytes, or when all of them are too long for a frame.
    """
    argv, env, claim, stdin = command.argv, command.env, command.claim, command.stdin
    options = [*_limits(command.cancel, command.cap, command.timeout, patience, stream)]
    if claim is not None:
        options += (
            f"claim={claim.path}",
            f"id={claim.id}",
            f"boot={claim.boot_id}",
            f"epoch={claim.epoch}",
            f"seq={claim.seq}",
        )
    later = len(stdin) > _WITH
    if later and not stream:
        options.append(f"stdin={len(stdin)}")
    texts = [str(len(options)), *options, str(len(env))]
    if env:
        texts += [f"{name}={value}" for name, value in env.items()]
    texts.append(str(len(argv)))
    text = "\0".join((*texts, *argv, ""))
    if text.count("\0") != len(texts) + len(argv):
        raise ValueError("a word with a NUL")
    payload = text.encode("utf-8", "surrogateescape")
    if len(payload) > _PART - _WITH:
        raise ValueError(f"at most {_PART - _WITH} bytes in all; these are {len(payload)}")
    if not stdin:
        return _HEAD.pack(len(payload) + _LEAST, RUN, number) + payload
    if not later:
        return frame(RUN, number, payload + stdin)
    return frame(RUN, number, payload) + given(number, stdin)


@lru_cache(maxsize=256)
def _limits(cancel: str, cap: int, timeout: float | None, patience: float, stream: bool) -> tuple[str, ...]:
    """The options that commands of one kind have in common: they are few, and their numbers take long to write."""
    options: tuple[str, ...] = (f"cancel={cancel}", f"cap={cap}", f"patience={patience:g}")
    if timeout is not None:
        options += (f"timeout={timeout:.3f}",)
    return (*options, "stream=1") if stream else options


def given(number: int, data: bytes) -> bytes:
    """Input in frames that are not too long."""
    return b"".join(frame(INPUT, number, data[at : at + _PART]) for at in range(0, len(data), _PART))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What `run` asks for, as a runner reads it. ``total``: bytes of input that come in `INPUT` frames before it may begin.

    ``claim`` is the claim's path (FLEET/OPID.STEP), empty without one; ``boot``, ``epoch`` and ``seq`` belong to it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    cancel: Literal["kill", "term"] = "kill"
    timeout: float | None = None
    cap: int = 1 << 20
    patience: float = 90.0
    stream: bool = False
    claim: str = ""
    id: str = ""
    boot: str = ""
    epoch: int = 0
    seq: int = 0
    total: int | None = None
    stdin: bytes = b""

    @classmethod
    def decode(cls, payload: bytes) -> Run:
        """Raises FrameError."""
        options, rest = _counted(payload)
        env, rest = _counted(rest)
        argv, stdin = _counted(rest)
        values = _pairs(options)
        cancel = values.pop("cancel", "kill")
        if not argv or not argv[0] or cancel not in {"kill", "term"} or not values.keys() <= _OPTIONS:
            raise FrameError("a command that cannot be read")
        try:
            return cls(
                argv=tuple(argv),
                env=_pairs(env),
                cancel="term" if cancel == "term" else "kill",
                timeout=float(values["timeout"]) if "timeout" in values else None,
                cap=int(values.get("cap", 1 << 20)),
                patience=float(values.get("patience", 90)),
                stream=values.get("stream") == "1",
                claim=values.get("claim", ""),
                id=values.get("id", ""),
                boot=values.get("boot", ""),
                epoch=int(values.get("epoch", 0)),
                seq=int(values.get("seq", 0)),
                total=int(values["stdin"]) if "stdin" in values else None,
                stdin=stdin,
            )
        except ValueError as error:
            raise FrameError(f"a command that cannot be read: {error}") from None


_OPTIONS = frozenset({"cap", "patience", "timeout", "stream", "claim", "id", "boot", "epoch", "seq", "stdin"})


def _counted(payload: bytes) -> tuple[list[str], bytes]:
    """Fields that are preceded by their number, and what follows them."""
    text, end, rest = payload.partition(b"\0")
    number = _number(text)
    if not end or number > rest.count(b"\0"):
        raise FrameError("fewer fields than announced")
    *fields, rest = rest.split(b"\0", number)
    return [field.decode("utf-8", "surrogateescape") for field in fields], rest
