"""The specifications' own JSON schemas as a second opinion: on changed documents both come to the same verdict about types."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from nexcage import InvalidBundle, oci
from nexcage._core.bundle.blame import blame
from nexcage._core.bundle.image import ImageConfig, ImageIndex, ImageManifest
from tests.core.bundle.documents import DATA, EXAMPLE, MISSING, SAMPLES, pointers, put, resolved, samples

SCHEMA = DATA / "schema"
DIGEST = "sha256:" + "0" * 64
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 5}
INDEX = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [{**LAYER, "platform": {"architecture": "amd64", "os": "linux", "os.features": ["x"]}}],
    "annotations": {"a": "b"},
}
MANIFEST = {"schemaVersion": 2, "config": {**LAYER, "annotations": {"a": "b"}}, "layers": [LAYER, LAYER]}
IMAGE = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "config": {
        "User": "www-data:33",
        "Env": ["A=b"],
        "Entrypoint": ["/bin/sh"],
        "Cmd": None,
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "b"},
        "WorkingDir": "/",
        "StopSignal": "SIGQUIT",
    },
    "history": [{"created_by": "x", "empty_layer": False}],
}
OTHERS = [
    {"ociVersion": "1.3.0", "root": {"path": "r"}, "vm": {"kernel": {"path": "/k", "parameters": ["a"]}}},
    {
        "ociVersion": "1.3.0",
        "windows": {
            "layerFolders": ["a"],
            "resources": {"cpu": {"shares": 5, "affinity": {"mask": 1}}},
            "network": {"DNSSearchList": ["x"], "allowUnqualifiedDNSQuery": True},
            "devices": [{"id": "a", "idType": "class"}],
        },
    },
    {
        "ociVersion": "1.3.0",
        "root": {"path": "r"},
        "solaris": {"cappedCPU": {"ncpus": "8"}, "anet": [{"linkname": "x"}]},
    },
    {
        "ociVersion": "1.3.0",
        "root": {"path": "r"},
        "process": {
            "cwd": "/",
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "scheduler": {"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RECLAIM"]},
            "execCPUAffinity": {"initial": "0-3"},
            "consoleSize": {"height": 1, "width": 2},
        },
        "linux": {
            "intelRdt": {"closID": "a", "schemata": ["L3:0=f"], "memBwSchema": "MB:0=1", "enableMonitoring": True},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX32"},
            "resources": {"unified": {"cpu.max": "1"}, "rdma": {"a": {"hcaHandles": 1}}, "cpu": {"idle": 1}},
            "netDevices": {"eth0": {"name": "a"}},
        },
    },
]
CONFIGS = [EXAMPLE, *OTHERS, *(json.loads(path.read_text()) for path in samples("config", "good"))]
STATE = json.loads((SAMPLES / "state/good/spec-example.json").read_text())
FEATURES = json.loads((SAMPLES / "features/good/runc.json").read_text())

EDGES = [-1, 0, 1, 511, 512, 2**16, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]
WORDS = [
    "",
    "x",
    "/x",
    "RLIMIT_CORE",
    "2MB",
    "64kB",
    "SCMP_ACT_LOG",
    "new",
    "user",
    "0-3",
    DIGEST,
    "text/plain",
    "a b",
    "é",
]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(EDGES),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from([1, "x", None]), min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(["path", "type", "limit", "x"]), st.sampled_from([1, "x", None]), min_size=1),
)


@cache
def checker(name: str) -> jsonschema.Draft4Validator:
    path = SCHEMA / name
    registry: Registry[Any] = Registry()
    for one in path.parent.glob("*.json"):
        contents = json.loads(one.read_text())
        resource = Resource.from_contents(contents, default_specification=DRAFT4)
        for uri in (
            one.name,
            f"https://opencontainers.org/schema/{one.name}",
            f"https://opencontainers.org/schema/image/{one.name}",
        ):
            registry = registry.with_resource(uri, resource)
        for inner in ("descriptor", "image/index", "image/manifest", "image"):
            registry = registry.with_resource(f"https://opencontainers.org/schema/{inner}/{one.name}", resource)
    return jsonschema.Draft4Validator(json.loads(path.read_text()), registry=registry)


@st.composite
def changed(draw: st.DrawFn, documents: list[Any]) -> Any:
    """One of these documents with one to three places changed, removed or added."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        places = pointers(document)
        place = draw(st.sampled_from(places))
        assume(place)
        if draw(st.integers(0, 4)) == 0:
            document = put(document, place, MISSING)
        elif isinstance(resolved(document, place), dict) and draw(st.booleans()):
            document = put(document, f"{place}/{draw(st.sampled_from(['x', 'path', 'a b']))}", draw(JUNK))
        else:
            document = put(document, place, draw(JUNK))
    return document


def agree(document: Any, schema: str, decode: Any, *, except_for: Any) -> None:
    errors = list(checker(schema).iter_errors(document))
    theirs = [error for error in errors if not except_for(error)]
    try:
        decode(json.dumps(document))
        ours = ""
    except InvalidBundle as error:
        ours = str(error)
    assert ours or not theirs, f"valid here, but not by the schema: {theirs[0].json_path} {theirs[0].message}"


# In the schemas of images the bounds of a size are rounded, and those of an index let it be negative.


def nothing(_error: object) -> bool:
    return False


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(document=changed(CONFIGS))
def test_what_the_schema_of_a_config_refuses_is_refused_and_types_are_refused_by_both(document):
    agree(document, "config-schema.json", oci.decode_config, except_for=nothing)

    flaw = blame(oci.Config, document)
    if flaw is not None and flaw.pointer != "/process/args":  # the text asks for an entry, the schema does not
        assert list(checker("config-schema.json").iter_errors(document)), flaw


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(document=changed([STATE]))
def test_what_the_schema_of_a_state_refuses_is_refused(document):
    # The text allows more words for a status than the schema lists.
    agree(document, "state-schema.json", oci.decode_state, except_for=lambda error: error.validator == "enum")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(document=changed([FEATURES]))
def test_what_the_schema_of_features_refuses_is_refused(document):
    # A newer runtime has words that the schema does not list; null is the same as absent.
    agree(
        document,
        "features-schema.json",
        oci.decode_features,
        except_for=lambda error: error.validator == "enum" or error.instance is None,
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(document=changed([INDEX]))
def test_what_the_schema_of_an_index_refuses_is_refused_and_types_by_both(document):
    agree(document, "image-spec/image-index-schema.json", oci.decode_index, except_for=nothing)

    flaw = blame(ImageIndex, document)
    if flaw is not None and not flaw.pointer.endswith("/size"):
        assert not valid(document, "image-spec/image-index-schema.json")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(document=changed([MANIFEST]))
def test_what_the_schema_of_a_manifest_refuses_is_refused_and_types_by_both(document):
    # An image without layers is odd, and says so; the text allows it.
    agree(
        document,
        "image-spec/image-manifest-schema.json",
        oci.decode_manifest,
        except_for=lambda error: error.validator == "minItems",
    )

    flaw = blame(ImageManifest, document)
    if flaw is not None and not flaw.pointer.endswith("/size"):
        assert not valid(document, "image-spec/image-manifest-schema.json")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(document=changed([IMAGE]))
def test_what_the_schema_of_an_image_config_refuses_is_refused_and_types_by_both(document):
    agree(
        document,
        "image-spec/config-schema.json",
        oci.decode_image_config,
        except_for=lambda error: error.instance is None,  # null is the same as absent
    )

    if blame(ImageConfig, document) is not None:
        assert not valid(document, "image-spec/config-schema.json")


def valid(document: Any, schema: str) -> bool:
    return bool(checker(schema).is_valid(document))


@pytest.mark.parametrize("document", [*CONFIGS], ids=range(len(CONFIGS)))
def test_the_documents_that_are_changed_are_valid_for_both(document):
    assert valid(document, "config-schema.json")

    oci.decode_config(json.dumps(document))


def test_the_other_documents_that_are_changed_are_valid_for_both():
    assert valid(INDEX, "image-spec/image-index-schema.json")
    assert valid(MANIFEST, "image-spec/image-manifest-schema.json")
    assert valid(IMAGE, "image-spec/config-schema.json")
    assert oci.decode_index(json.dumps(INDEX)).warnings == ()
    assert oci.decode_manifest(json.dumps(MANIFEST)).warnings == ()
    assert oci.decode_image_config(json.dumps(IMAGE)).warnings == ()
