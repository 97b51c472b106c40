"""Selectors pick what they name, and a bad term is named."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import InvalidInput, Machine, Selector, Spec, State

SPEC = Spec("debian-12.tar.zst", tags=("Web", "prod"))
WEB = Machine("web-1", state=State.RUNNING, node="pve-01", vmid=104, backend="lxc", spec=SPEC)
BARE = Machine("db.2", state=State.UNKNOWN, node="pve-02", backend="lxc")


@pytest.mark.parametrize(
    ("text", "web", "bare"),
    [
        ("", True, True),
        ("  \n", True, True),
        ("id=web-1", True, False),
        ("id=web", False, False),
        ("id=web-*", True, False),
        ("id=WEB-1", False, False),
        ("id!=web-*", False, True),
        ("id~^web-", True, False),
        ("id~2$", False, True),
        ("id=db?2", False, True),
        ("node=pve-0[12]", True, True),
        ("node=pve-0[!1]", False, True),
        ("state=running", True, False),
        ("state!=running", False, True),
        ("tag=web", True, False),
        ("tag=Web", True, False),
        ("tag=w*", True, False),
        ("tag!=web", False, True),
        ("tag!=nosuch", True, True),
        ("tag~^(web|db)$", True, False),
        ("vmid=104", True, False),
        ("vmid!=104", False, True),
        ("vmid=0", False, False),
        ("backend=lxc", True, True),
        ("image=debian-*", True, False),
        ("image!=debian-*", False, True),
        ("tag=web tag=prod node=pve-01", True, False),
        ("tag=web tag=db", False, False),
    ],
)
def test_every_term_must_match(text: str, web: bool, bare: bool) -> None:
    chosen = Selector.parse(text)
    assert (chosen.matches(WEB), chosen.matches(BARE)) == (web, bare)


@pytest.mark.parametrize(
    "text",
    ["web", "=x", "name=x", "id", "id~(", "id~a{99999999999}", "ID=x", "id<5", None, 5, b"id=x", "id=" + "x" * 5000],
)
def test_a_bad_term_is_named(text: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        Selector.parse(text)
    assert refused.value.field == "selector"


@given(st.text(alphabet="idtag~=!*?[]()|+ ^$\\ab-&", max_size=30) | st.text(max_size=20).map("id~{}".format))
def test_a_selector_is_read_or_refused(text: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of re, about what people may mean by [[
            chosen = Selector.parse(text)
    except InvalidInput:
        return
    assert chosen.matches(WEB) in (True, False)


@given(st.sampled_from(["id", "node", "state", "backend", "tag", "vmid"]), st.text(alphabet="abcw1-*?0", max_size=8))
def test_not_equal_is_the_opposite_of_equal(key: str, glob: str) -> None:
    for machine in (WEB, BARE):
        assert Selector.parse(f"{key}={glob}").matches(machine) != Selector.parse(f"{key}!={glob}").matches(machine)
