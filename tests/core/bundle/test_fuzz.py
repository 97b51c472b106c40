"""Whatever the bytes are, the answer is a document or `InvalidBundle`."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexcage import InvalidBundle, oci
from tests.core.bundle.documents import SAMPLES

DECODERS = [
    oci.decode_config,
    oci.decode_features,
    oci.decode_image_config,
    oci.decode_index,
    oci.decode_layout,
    oci.decode_manifest,
    oci.decode_process,
    oci.decode_resources,
    oci.decode_state,
]
EXAMPLE = (SAMPLES / "config/good/spec-example.json").read_bytes()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["ociVersion", "root", "process", "linux", "config", "layers", "manifests", "annotations"])
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


def answered(data: bytes | str) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except InvalidBundle as error:
            assert error.pointer == "" or error.pointer.startswith("/")
            assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=100))
def test_random_bytes(data):
    answered(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=JSON)
def test_random_values(value):
    answered(json.dumps(value))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_document_with_some_of_its_bytes_changed(data):
    text = bytearray(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        kind = data.draw(st.sampled_from(["put", "insert", "cut", "repeat"]))
        if kind == "put":
            text[place] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            text[place:place] = data.draw(
                st.sampled_from([b'"', b"\\", b"{", b"]", b"\\u0000", b"\\ud800", b"9" * 30, b"null", b"1e9", b","])
            )
        elif kind == "cut":
            del text[place : place + data.draw(st.integers(1, 40))]
        else:
            text[place:place] = text[place : place + data.draw(st.integers(1, 200))]
    answered(bytes(text))


@pytest.mark.parametrize("cut", range(0, len(EXAMPLE) - 2, 97))
def test_a_document_that_ends_early(cut):
    with pytest.raises(InvalidBundle):
        oci.decode_config(EXAMPLE[:cut])
