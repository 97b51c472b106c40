"""The wrapper is checked with real shells: what it sends arrives word for word, and its output is found among banners."""

import shlex
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexcage._transports.wire import Ending, Frame, Wrapped, ending, markers, split, unwrap, wrap
from nexcage.errors import InvalidInput

WORDS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)


@given(
    st.lists(WORDS, min_size=1, max_size=4).filter(lambda argv: argv[0]),
    st.dictionaries(st.sampled_from(["A", "B_1"]), WORDS),
)
def test_a_wrapped_line_reads_back_as_it_was(argv, env):
    line = wrap(argv, env, "7").decode()

    assert unwrap(line) == Wrapped(tuple(argv), {"LC_ALL": "C", **env}, "7")


@given(st.text(st.sampled_from("ab'\" \\\n$é\t#-x"), max_size=20), st.lists(WORDS))
def test_any_line_is_split_as_shlex_does(line, words):
    def split_or_none(how, text):
        try:
            return how(text)
        except ValueError:
            return None

    assert split_or_none(split, line) == split_or_none(shlex.split, line)
    assert split(shlex.join(words)) == words


@settings(max_examples=20)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
@pytest.mark.parametrize("login", ["sh", "bash", "dash"])
def test_every_word_arrives_through_a_login_shell(login, args, value):
    if not shutil.which(login):
        pytest.skip(f"no {login} here")
    line = wrap(["printf", "%s\\0", *args], {"V": value}, "1")

    done = subprocess.run([login, "-c", line.decode()], capture_output=True, check=True)

    frame = Frame("1")
    assert frame.feed(done.stdout) == b"".join(word.encode() + b"\0" for word in args)
    assert frame.pid > 0


def test_bytes_that_are_not_utf_8_arrive():
    name = b"/tmp/\xff".decode("utf-8", "surrogateescape")

    done = subprocess.run(["sh", "-c", wrap(["printf", "%s", name], {}, "1")], capture_output=True, check=True)

    assert done.stdout.endswith(b"\n/tmp/\xff")


@pytest.mark.parametrize("argv", [[], [""], ["true", "a\0b"], ["true", "\ud800"]])
def test_what_no_command_line_can_carry_is_refused(argv):
    with pytest.raises(InvalidInput):
        wrap(argv, {}, "1")


@pytest.mark.parametrize("env", [{"A B": ""}, {"": ""}, {"1": ""}, {"A": "\0"}, {"A=B": ""}, {"A\n": ""}])
def test_an_environment_that_is_not_one_is_refused(env):
    with pytest.raises(InvalidInput):
        wrap(["true"], env, "1")


def test_a_line_longer_than_the_kernel_takes_is_refused():
    with pytest.raises(InvalidInput, match="at most"):
        wrap(["true", "x" * 200_000], {}, "1")


def test_sudo_comes_before_everything():
    assert wrap(["pct", "list"], {}, "1", sudo=True).startswith(b"exec sudo -n -- env LC_ALL=C sh -c ")


@pytest.mark.parametrize("cancel", ["kill", "term"])
def test_an_ending_reads_back_as_it_was(cancel):
    assert unwrap(ending(123, cancel, sudo=True).decode()) == Ending(123, cancel)


@pytest.mark.parametrize(
    "line", ["", "ls", "sh", "sh -c ls", "'", "exec sh -c x nexcage 1 ls", "env A=B sh -c x nexcage"]
)
def test_other_lines_are_not_ours(line):
    assert unwrap(line) is None


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(1, 5))
def test_a_frame_gives_exactly_what_follows_the_marker_however_it_is_cut(banner, own, step):
    frame = Frame("9")
    data = banner.replace(b"\x1e", b"") + markers("9", 4242)[0] + own

    parts = [frame.feed(data[i : i + step]) for i in range(0, len(data), step)]

    assert b"".join(parts) == own
    assert frame.pid == 4242


def test_a_shell_that_echoes_what_it_runs_does_not_look_like_the_marker():
    line = wrap(["echo", "own"], {}, "3")

    done = subprocess.run(["sh", "-xvc", line], capture_output=True, check=True)

    stdout, stderr = Frame("3"), Frame("3")
    assert stdout.feed(done.stdout) == b"own\n"
    assert stderr.feed(done.stderr) == b""


def test_the_memory_for_a_banner_is_bounded():
    frame = Frame("1")

    for _ in range(100):
        frame.feed(bytes(10_000))

    assert len(frame.before) <= Frame.KEPT
