"""Bytes that were made to confuse: one error with a place, never another exception, never two readings of one document."""

from __future__ import annotations

import json
import sys
import tracemalloc

import pytest

from nexcage import InvalidBundle, oci
from nexcage._core.bundle.strict import MAX_BYTES, MAX_DEPTH
from tests.core.bundle.documents import MINIMAL

OPEN = b'{"ociVersion":"1.3.0","root":{"path":"rootfs"},'


def refused(data: bytes | str) -> InvalidBundle:
    with pytest.raises(InvalidBundle) as caught:
        oci.decode_config(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode(), "byte order mark"),
        (json.dumps(MINIMAL).encode("utf-16"), "UTF-8"),
        (json.dumps(MINIMAL).encode("utf-16-le"), "JSON"),
        (OPEN + b'"x":"\xff"}', "UTF-8 (byte"),
        (OPEN + b'"x":"\xed\xa0\x80"}', "UTF-8"),
        (OPEN + b'"x":"\xc0\x80"}', "UTF-8"),
        (OPEN + b'"\xff":1}', "UTF-8"),
        (OPEN + b'"x":NaN}', "NaN"),
        (OPEN + b'"x":-Infinity}', "-Infinity"),
        (OPEN + b'"x":1}x', "Extra data"),
        (OPEN + b'"x":1,}', "JSON"),
        (OPEN + b'"x":01}', "JSON"),
        (OPEN + b'"x":0x1}', "JSON"),
        (OPEN + b"\"x\":'a'}", "JSON"),
        (OPEN + b'"x":"a\nb"}', "JSON"),
        (OPEN + b'"x":"a\x00b"}', "JSON"),
        (OPEN + b'"x":"\\x41"}', "JSON"),
        (OPEN + b"/* c */}", "JSON"),
        (OPEN[:-1], "JSON"),
        (b"\x00" * 100, "JSON"),
        ("{\udcff}", "UTF-8"),
        (b"[]", "expected an object, got an array"),
        (b"null", "expected an object, got null"),
        (b"1" * 100_000, "expected an object, got an integer"),
        (b'"' + b"x" * MAX_BYTES + b'"', "bytes, more than"),
    ],
)
def test_what_is_not_one_json_object_in_utf8_is_refused_as_a_whole(data, words):
    error = refused(data)

    assert error.pointer == ""
    assert words in error.reason


@pytest.mark.parametrize("shape", [(b"[", b"]"), (b'{"x":', b"}")])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 1000, 100_000])
def test_nesting_is_bounded_also_where_nobody_reads(shape, depth):
    begin, end = shape
    error = refused(OPEN + b'"x":' + begin * depth + b"1" + end * depth + b"}")

    assert "nested" in error.reason


def test_as_much_nesting_as_allowed_is_fine():
    depth = MAX_DEPTH - 1

    oci.decode_config(OPEN + b'"x":' + b"[" * depth + b"1" + b"]" * depth + b"}")


def test_a_caller_deep_in_its_own_stack_gets_an_answer():
    def deep(levels: int) -> str:
        if levels:
            return deep(levels - 1)
        try:
            oci.decode_config(OPEN + b'"x":' + b"[" * 60 + b"]" * 60 + b"}")
        except InvalidBundle as error:
            return error.reason
        return "valid"

    answers = {deep(levels) for levels in range(0, sys.getrecursionlimit() - 150, 50)}

    assert answers <= {"valid", "is nested too deeply"}


@pytest.mark.parametrize(
    ("rest", "pointer"),
    [
        (b'"root":{"path":"other"}}', "/root"),
        (b'"r\\u006fot":{"path":"other"}}', "/root"),
        (b'"process":{"cwd":"/","cwd":"/"}}', "/process/cwd"),
        (b'"annotations":{"a/b~c":"1","x":"2","a/b~c":"1"}}', "/annotations/a~1b~0c"),
        (b'"mounts":[{"destination":"/a"},{"destination":"/a","destination":"/b"}]}', "/mounts/1/destination"),
        (b'"unknown":[[{"":1,"":2}]]}', "/unknown/0/0/"),
        (b'"y":{"a":1,"a":2},"y":1}', "/y"),
    ],
)
def test_a_property_named_twice_is_an_error_wherever_it_is(rest, pointer):
    error = refused(OPEN + rest)

    assert error.pointer == pointer
    assert "twice" in error.reason


@pytest.mark.parametrize(
    ("rest", "pointer"),
    [
        (b'"hostname":"\\ud800"}', "/hostname"),
        (b'"unknown":["\\udc00\\ud800"]}', "/unknown/0"),
        (b'"annotations":{"\\ud83d":"x"}}', "/annotations/\ufffd"),
    ],
)
def test_half_a_surrogate_pair_is_no_text(rest, pointer):
    error = refused(OPEN + rest)

    assert error.pointer == pointer
    assert "surrogate" in error.reason


def test_a_number_too_large_for_a_float_is_ignored_where_nobody_reads():
    assert oci.decode_config(OPEN + b'"x":[1e400,-1e400]}').warnings == ()


def test_a_whole_surrogate_pair_is_text():
    config = oci.decode_config(OPEN + b'"annotations":{"a":"\\ud83d\\ude00"}}').document

    assert config.annotations == {"a": "\U0001f600"}


@pytest.mark.parametrize("digits", [20, 400, 4301, 100_000])
def test_a_huge_number_is_an_error_only_where_somebody_reads_it(digits):
    number = b"9" * digits
    known = refused(OPEN + b'"process":{"cwd":"/","oomScoreAdj":-' + number + b"}}")

    assert known.pointer == "/process/oomScoreAdj"
    assert oci.decode_config(OPEN + b'"unknown":' + number + b"}").warnings == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Process", "process"), ("proceſs", "process"), ("HOOKS", "hooks"), ("hooKs", "hooks")],
)
def test_a_name_that_go_takes_for_another_is_noted_alone_and_beside_it(name, meant):
    value = {"process": {"cwd": "/"}, "hooks": {}}[meant]

    alone = oci.decode_config(json.dumps({**MINIMAL, name: value})).warnings
    both = oci.decode_config(json.dumps({**MINIMAL, name: value, meant: value})).warnings

    assert [note.pointer for note in alone] == [note.pointer for note in both] == [f"/{name}"]
    assert "runc" in alone[0].reason
    assert (alone[0].misread_by, both[0].misread_by) == ("", "runc")


def test_a_name_that_a_program_misreads_is_not_lost_among_very_many_warnings():
    many = {"oci" + "_" * n + "Version": 1 for n in range(1, 60)}
    many |= {"host" + "_" * n + "name": 1 for n in range(1, 60)}
    notes = oci.decode_config(json.dumps({**MINIMAL, **many, "Root": {}})).warnings

    assert notes[0].pointer == "/Root"
    assert "warnings more" in notes[-1].reason


@pytest.mark.parametrize("name", ["prосess", "oci_version", "proc\u200bess", "ｐrocess", "host-name"])
def test_a_name_that_only_looks_like_another_is_noted_and_ignored(name):
    document = {**MINIMAL, "process": {"cwd": "/"}, "hostname": "x", name: 5}

    assert [note.pointer for note in oci.decode_config(json.dumps(document)).warnings] == [f"/{name}"]


def test_look_alikes_are_looked_for_in_sections_and_not_in_maps():
    document = {**MINIMAL, "annotations": {"Process": "x"}, "linux": {"sysctl": {"ROOT": "1"}, "Devices": []}}

    assert [note.pointer for note in oci.decode_config(json.dumps(document)).warnings] == ["/linux/Devices"]


def test_ten_thousand_unknown_properties_cost_little_and_say_nothing():
    document = {**MINIMAL, **{f"x{number}": number for number in range(10_000)}}

    assert oci.decode_config(json.dumps(document)).warnings == ()


def test_the_size_that_is_allowed_can_be_chosen():
    with pytest.raises(InvalidBundle, match="more than 10"):
        oci.decode_config(b'{"ociVersion":"1.0.0"}', max_bytes=10)


@pytest.mark.parametrize("tail", [b'"x":"\\ud800"', b'"y":1,"y":2'])
def test_long_names_above_many_properties_cost_no_more_memory_than_the_document(tail):
    name = b'"' + b"n" * 20_000 + b'":{'
    many = b",".join(b'"%d":1' % number for number in range(20_000))
    data = OPEN + name * 50 + many + b"," + tail + b"}" * 51

    tracemalloc.start()
    try:
        error = refused(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert error.pointer.count("/") == 51
    assert len(str(error)) < 1000
    assert peak < 30 * len(data)
