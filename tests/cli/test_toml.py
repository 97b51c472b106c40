"""What is written as TOML is read back equal."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage._cli.toml import as_toml

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(texts, values, max_size=4))
def test_any_document_is_read_back_equal(document: dict[str, Any]) -> None:
    assert tomllib.loads(as_toml(document)) == document


def test_it_looks_as_a_person_would_write_it() -> None:
    document = {
        "hosts": ["pve-01"],
        "limits": {"per_node": 3},
        "routing": [{"id": "web-*", "backend": "lxc"}, {"id": "/db$/"}],
        "nodes": {"pve-01.lan": {"user": "root"}},
    }
    assert as_toml(document) == (
        'hosts = ["pve-01"]\n\n[limits]\nper_node = 3\n\n[[routing]]\nid = "web-*"\nbackend = "lxc"\n\n[[routing]]\nid = "/db$/"\n'
        '\n[nodes]\n\n[nodes."pve-01.lan"]\nuser = "root"\n'
    )


def test_what_toml_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        as_toml({"a": b"x"})
