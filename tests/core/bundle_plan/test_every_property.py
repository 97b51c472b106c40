"""Nothing that a document sets is dropped in silence: it has one entry, and what reaches files and options can do no harm there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexcage._core.bundle import Config, Decoded
from nexcage._core.bundle_plan.decide import BACKENDS, FORGOTTEN, plan
from nexcage._core.bundle_plan.model import Bundle, BundlePlan
from nexcage._core.bundle_plan.walk import leaves
from nexcage._core.bundle_plan.words import pve_takes
from tests.core.bundle_plan.documents import configs, leaf_values

GOOD = sorted((Path(__file__).parents[2] / "data" / "oci").rglob("good/*.json"))
_RAW = re.compile(r"lxc\.[a-z0-9_.-]+")
_OPTIONS = re.compile(r"unprivileged|cmode|hostname|memory|swap|cpuunits|cpulimit|dev[0-9]{1,3}")


def planned(config: Config, backend: str) -> BundlePlan:
    return plan(Decoded(config), Bundle("/srv/bundle"), backend=backend)


def entries(made: BundlePlan) -> list[str]:
    return [one.pointer for group in (made.applied, made.approximated, made.refused) for one in group]


def holders(leaf: str, pointers: list[str]) -> list[str]:
    return [pointer for pointer in pointers if leaf == pointer or leaf.startswith(pointer + "/")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(config=configs(), backend=st.sampled_from(BACKENDS))
def test_every_property_that_is_set_has_exactly_one_entry(config: Config, backend: str) -> None:
    made = planned(config, backend)
    pointers = entries(made)

    for leaf in leaves(config):
        assert len(holders(leaf, pointers)) == 1, leaf
    assert len(set(pointers)) == len(pointers)
    assert not [one for one in made.refused if one.reason == FORGOTTEN]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(config=configs())
def test_the_walk_finds_every_scalar_of_the_document(config: Config) -> None:
    document = json.loads(msgspec.json.encode(config))
    document.pop("windows", None)

    assert leaf_values(document).keys() <= set(leaves(config))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(config=configs())
def test_nothing_of_a_document_can_break_out_of_its_line(config: Config) -> None:
    made = planned(config, "lxc")

    for key, value in (*made.options, *made.raw, *made.include):
        assert not re.search(r"[\x00-\x1f\x7f]", key + value), (key, value)
        assert value == value.strip()
    assert all(_RAW.fullmatch(key) and pve_takes(key) for key, _ in made.raw)
    assert all(key.startswith("lxc.") and " " not in key for key, _ in made.include)
    assert all(_OPTIONS.fullmatch(key) for key, _ in made.options)
    for key, value in made.raw:
        if key == "lxc.mount.entry":
            assert len(value.split(" ")) == 6


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(config=configs())
def test_a_policy_has_only_lines_that_lxc_reads(config: Config) -> None:
    text = planned(config, "lxc").seccomp

    rule = re.compile(
        r"[a-z_][a-z0-9_]* (?:allow|kill|trap|errno [0-9]+)(?: (?:\[[0-5],[0-9]+,SCMP_CMP_[A-Z_]+(?:,[0-9]+)?\])+)?"
    )
    for line in text.splitlines()[3:]:
        assert rule.fullmatch(line), line
    head = "".join(text.splitlines(keepends=True)[:3])
    assert not text or re.fullmatch(r"2\n(?:allow|deny)list (?:allow|kill|trap|errno [0-9]+)\n\[all\]\n", head)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_specifications_own_documents_are_valid(path: Path, backend: str) -> None:
    if path.parent.parent.name == "config":
        assert plan(path.read_bytes(), Bundle("/srv/bundle"), backend=backend).error is None


def test_a_bad_document_is_an_error_and_nothing_else() -> None:
    made = plan(b'{"ociVersion": "1.3.0", "root": {"path": 5}}', Bundle("/srv/bundle"))

    assert made.error is not None
    assert made.error.pointer == "/root/path"
    assert (entries(made), made.accepted) == ([], False)
