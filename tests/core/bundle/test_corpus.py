"""Documents written from the specification's text and schemas, each with what has to be said of it: one change of a valid document.

A line of ``corpus/*.jsonl``: why, what is set and what is taken away (by JSON pointers), the pointer of the error or null, and where it
was decided for lxc whether a create would go on, what is refused and what is warned of. ``schema.jsonl`` changes ``full.json``, which
has every property for Linux; ``text.jsonl`` changes ``plain.json``, which every backend takes as it is. ``bytes.jsonl`` has whole
documents, a character for each byte.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from nexcage._core.bundle import decode_config
from nexcage._core.bundle_plan.decide import BACKENDS, FORGOTTEN, plan
from nexcage._core.bundle_plan.model import Bundle, BundlePlan
from tests.core.bundle.documents import DATA, MISSING, put

CORPUS = DATA / "corpus"
PLACE = Bundle("/srv/bundle")


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / name).read_text().splitlines()]


def changed(base: object, line: dict[str, Any]) -> str:
    document = base
    for pointer in line.get("unset", ()):
        document = put(document, pointer, MISSING)
    for pointer, value in line.get("set", {}).items():
        document = put(document, pointer, value)
    return json.dumps(document)


def failing(made: BundlePlan, line: dict[str, Any]) -> str:
    """What is not as the line says, or nothing."""
    error = made.error.pointer if made.error else None
    refused = [one.pointer for one in made.refused]
    if error != line["error"]:
        return f"the error is at {error}: {made.error}"
    if error is not None:
        return "an invalid document is planned" if refused or made.accepted else ""
    if FORGOTTEN in [one.reason for one in made.refused]:
        return "a property is forgotten"
    if made.backend != "lxc":
        return ""
    if made.accepted != line.get("accepted", made.accepted):
        return f"{'accepted' if made.accepted else 'refused'}: {made.refused}"
    wanted = line.get("refused", refused)
    near = all(any(f"{one}/".startswith(f"{place}/") for one in refused) for place in wanted)
    return "" if near and len(refused) == len(wanted) else f"refused are {refused}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "base"), [("schema.jsonl", "full.json"), ("text.jsonl", "plain.json")])
def test_every_document_of_the_corpus_gets_the_answer_that_the_specification_wants(name, base, backend):
    begun = json.loads((CORPUS / base).read_text())
    cases = [line for line in lines(name) if backend == "lxc" or line["error"] is None]

    wrong = [
        f"{line}: {reason}"
        for line in cases
        if (reason := failing(plan(changed(begun, line), PLACE, backend=backend), line))
    ]

    assert len(cases) > 150
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_are_read_in_one_way_or_not_at_all(backend):
    cases = lines("bytes.jsonl")

    wrong = [
        f"{line}: {reason}"
        for line in cases
        if (reason := failing(plan(line["latin1"].encode("latin-1"), PLACE, backend=backend), line))
    ]

    assert len(cases) > 70
    assert not wrong, "\n".join(wrong)


def test_warnings_of_the_corpus_are_at_their_places_and_no_others():
    plain = json.loads((CORPUS / "plain.json").read_text())
    cases = [line for line in lines("text.jsonl") if "warned" in line]

    for line in cases:
        warnings = decode_config(changed(plain, line)).warnings
        assert [note.pointer for note in warnings] == line["warned"], line
    assert cases


def test_what_the_corpus_begins_with_is_valid():
    full, plain = ((CORPUS / name).read_bytes() for name in ("full.json", "plain.json"))

    assert decode_config(full).warnings == ()
    assert decode_config(plain).warnings == ()
    assert all(plan(plain, PLACE, backend=backend).accepted for backend in BACKENDS)
