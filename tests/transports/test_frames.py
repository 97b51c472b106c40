from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Command
from nexcage._core.command import Claim, nothing
from nexcage._transports import frames
from nexcage._transports.boot import Greeting
from nexcage._transports.frames import Decoder, Ended, FrameError, Hello, Refused, Run
from nexcage.errors import NexcageError

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30) | st.binary(max_size=30).filter(
    lambda data: b"\0" not in data
).map(lambda data: data.decode("utf-8", "surrogateescape"))
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)


def read(data: bytes, most: int = frames.TO_NODE) -> list[frames.Frame]:
    decoder = Decoder(most)
    found = decoder.feed(data)
    assert decoder.whole
    return found


@given(
    st.lists(words, min_size=1, max_size=5).filter(lambda argv: argv[0] != ""),
    st.dictionaries(names, words, max_size=3),
    st.binary(max_size=200),
    st.sampled_from(["kill", "term"]),
    st.booleans(),
    st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
)
def test_a_command_arrives_as_it_was_sent(argv, env, stdin, cancel, stream, timeout):
    command = Command(tuple(argv), nothing, stdin=stdin, env=env, cancel=cancel, timeout=timeout, cap=77)

    ((kind, number, payload),) = read(frames.run(7, command, patience=2.5, stream=stream))

    assert (kind, number) == (frames.RUN, 7)
    assert Run.decode(payload) == Run(
        argv=tuple(argv), env=env, stdin=stdin, cancel=cancel, timeout=timeout, cap=77, patience=2.5, stream=stream
    )


def test_a_claim_travels_with_its_fence():
    claim = Claim(fleet="f", op="op1", step=2, id="web-1", boot_id="b", epoch=3, seq=44)

    ((_, _, payload),) = read(frames.run(1, Command(("true",), nothing, claim=claim), patience=1))

    got = Run.decode(payload)
    assert (got.claim, got.id, got.boot, got.epoch, got.seq) == ("f/op1.2", "web-1", "b", 3, 44)


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 5 << 20])
@pytest.mark.parametrize("stream", [False, True])
def test_input_of_any_size_arrives_whole(size, stream):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    first, *rest = read(frames.run(9, Command(("cat",), nothing, stdin=data), patience=1, stream=stream))

    run = Run.decode(first[2])
    assert run.stdin + b"".join(payload for _, _, payload in rest) == data
    assert all((kind, number) == (frames.INPUT, 9) for kind, number, _ in rest)
    assert run.total == (size if rest and not stream else None)


@pytest.mark.parametrize("argv", [("a\0b",), ("\udfff" * 3 + "\ud800",), ("x" * (1 << 20),)])
def test_what_no_frame_can_carry_is_a_value_error(argv):
    with pytest.raises(ValueError):
        frames.run(1, Command(argv, nothing), patience=1)


@given(st.binary(max_size=300), st.binary(max_size=300), st.none() | st.integers(0, 255), st.booleans())
def test_a_result_arrives_as_it_was_sent(out, err, exit, late):
    ((kind, number, payload),) = read(frames.result(3, exit, out, err, late=late, dropped=5, seconds=1.25))

    assert (kind, number) == (frames.RESULT, 3)
    got = Ended.decode(payload)
    assert (got.exit, got.late, got.dropped, got.seconds) == (exit, late, 5, 1.25)
    assert (got.data[: got.out], got.data[got.out :]) == (out, err)


def test_a_long_result_comes_in_frames_that_the_driver_takes():
    out, err = b"o" * 200_000, b"e" * 300_000

    *pieces, (_, _, payload) = read(frames.result(3, 0, out, err), frames.FROM_NODE)

    got = Ended.decode(payload)
    assert {kind for kind, _, _ in pieces} == {frames.PIECE}
    data = b"".join(piece for _, _, piece in pieces) + got.data
    assert (data[: got.out], data[got.out :]) == (out, err)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=50))), st.data())
def test_frames_are_the_same_however_the_bytes_come(wanted, data):
    stream = b"".join(frames.frame(*one) for one in wanted)
    decoder, got, at = Decoder(frames.FROM_NODE), [], 0

    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        got += decoder.feed(stream[at : at + size])
        at += size

    assert got == wanted
    assert decoder.whole


@pytest.mark.parametrize("length", [0, 4, frames.FROM_NODE + 1, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_at_once(length):
    good = frames.frame(frames.PONG)

    with pytest.raises(FrameError):
        Decoder(frames.FROM_NODE).feed(good + length.to_bytes(4))


@given(st.binary(max_size=200))
def test_random_bytes_raise_our_errors_only(data):
    decoders = (Ended.decode, Hello.decode, Refused.decode, Run.decode, frames.count, frames.one)
    for decode in (Decoder(frames.FROM_NODE).feed, *decoders):
        with suppress(NexcageError):
            decode(data)


@given(st.sampled_from([Ended, Hello, Run, Refused]), st.data())
def test_a_damaged_message_raises_our_errors_only(kind, data):
    good = {
        Ended: frames.result(1, 0, b"out"),
        Hello: Hello(protocol=1).encode(),
        Run: frames.run(1, Command(("true",), nothing, timeout=1.0), patience=1),
        Refused: Refused("full", "no").encode(1),
    }[kind][9:]
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]

    with suppress(NexcageError):
        kind.decode(damaged)


def test_a_greeting_says_what_is_there():
    hello = Hello(
        protocol=1, boot_id="b", time=5.0, uptime=6.5, uid=0, perl="5.36", pid=9, tools=("pct", "qm"), ops=True
    )

    ((_, _, payload),) = read(hello.encode())

    assert Hello.decode(payload) == hello
    assert Hello.decode(payload + b"later=1\0") == hello  # what a newer one adds is left out


@given(st.binary(max_size=50).filter(lambda data: b"\x1e" not in data), st.binary(max_size=50), st.integers(1, 7))
def test_what_a_login_shell_prints_is_dropped(noise, rest, size):
    greeting, got = Greeting("n1"), b""
    data = noise + b"\x1enexcage-runner n1\n" + rest

    for at in range(0, len(data), size):
        got += greeting.feed(data[at : at + size])

    assert got == rest
    assert greeting.before == noise
