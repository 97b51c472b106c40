"""Documents of images: what the text of image-spec 1.1 asks beyond its schemas."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from nexcage import InvalidBundle, oci
from tests.core.bundle.documents import MISSING, put

DIGEST = "sha256:" + "0a" * 32
BLOB = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 5}
INDEX = {"schemaVersion": 2, "manifests": [BLOB]}
MANIFEST = {"schemaVersion": 2, "config": BLOB, "layers": [BLOB]}
IMAGE = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "config": {}}

REFUSED = [
    (oci.decode_layout, {"imageLayoutVersion": "1.0.0"}, "/imageLayoutVersion", "2.0.0"),
    (oci.decode_layout, {"imageLayoutVersion": "1.0.0"}, "/imageLayoutVersion", MISSING),
    (oci.decode_index, INDEX, "/schemaVersion", 1),
    (oci.decode_index, INDEX, "/schemaVersion", MISSING),
    (oci.decode_index, INDEX, "/manifests", MISSING),
    (oci.decode_index, INDEX, "/manifests", None),
    (oci.decode_index, INDEX, "/manifests/0/size", -1),
    (oci.decode_index, INDEX, "/manifests/0/size", 2**63),
    (oci.decode_index, INDEX, "/manifests/0/digest", "sha256:../../../etc/passwd"),
    (oci.decode_index, INDEX, "/manifests/0/digest", DIGEST.upper()),
    (oci.decode_index, INDEX, "/manifests/0/digest", f"sha256:{'0A' * 32}"),
    (oci.decode_index, INDEX, "/manifests/0/digest", DIGEST + "00"),
    (oci.decode_index, INDEX, "/manifests/0/digest", DIGEST + "\n"),
    (oci.decode_index, INDEX, "/manifests/0/digest", f"sha512:{'0' * 64}"),
    (oci.decode_index, INDEX, "/manifests/0/mediaType", "tar"),
    (oci.decode_index, INDEX, "/mediaType", "application/vnd.oci.image.manifest.v1+json"),
    (oci.decode_index, INDEX, "/layers", [BLOB]),
    (oci.decode_index, INDEX, "/config", BLOB),
    (oci.decode_manifest, MANIFEST, "/mediaType", "application/vnd.oci.image.index.v1+json"),
    (oci.decode_manifest, MANIFEST, "/manifests", [BLOB]),
    (oci.decode_manifest, MANIFEST, "/layers", None),
    (oci.decode_manifest, MANIFEST, "/layers/0/data", "!"),
    (oci.decode_manifest, MANIFEST, "/layers/0/data", b64encode(b"1234").decode()),
    (oci.decode_manifest, MANIFEST, "/layers/0/annotations", {"": "x"}),
    (oci.decode_image_config, IMAGE, "/architecture", ""),
    (oci.decode_image_config, IMAGE, "/os", MISSING),
    (oci.decode_image_config, IMAGE, "/rootfs/type", "files"),
    (oci.decode_image_config, IMAGE, "/rootfs/diff_ids/0", "x"),
    (oci.decode_image_config, IMAGE, "/rootfs/diff_ids/0", "sha256:x"),
    (oci.decode_image_config, IMAGE, "/config/Env", "A=b"),
    (oci.decode_image_config, IMAGE, "/config/Labels", {"a": 1}),
    (oci.decode_image_config, IMAGE, "/config/Labels", {"a": "x\0"}),
    (oci.decode_image_config, IMAGE, "/config/ExposedPorts", {"80": []}),
]
NOTED = [
    (oci.decode_index, INDEX, "/manifests/0/digest", "blake3:abc"),
    (oci.decode_manifest, MANIFEST, "/layers", []),
    (oci.decode_image_config, IMAGE, "/config/Env/0", ["A"]),
    (oci.decode_image_config, IMAGE, "/config/WorkingDir", "srv"),
    (oci.decode_image_config, IMAGE, "/config/StopSignal", "SIGNOTHING"),
    (oci.decode_image_config, IMAGE, "/config/ExposedPorts/http", {}),
    (oci.decode_image_config, IMAGE, "/history", [{}, {"empty_layer": True}, {}]),
]


def ids(cases: list) -> list[str]:
    return [f"{number}-{case[2]}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("decode", "document", "pointer", "value"), REFUSED, ids=ids(REFUSED))
def test_what_the_specification_forbids_is_an_error_in_its_document(decode, document, pointer, value):
    with pytest.raises(InvalidBundle) as caught:
        decode(json.dumps(put(document, pointer, value)))

    assert caught.value.pointer.startswith(pointer)


@pytest.mark.parametrize(("decode", "document", "pointer", "value"), NOTED, ids=ids(NOTED))
def test_what_is_odd_in_an_image_is_a_warning(decode, document, pointer, value):
    place, changed = (
        (pointer.rpartition("/")[0], value) if pointer.endswith("/0") and value == ["A"] else (pointer, value)
    )

    warnings = decode(json.dumps(put(document, place, changed))).warnings

    assert [note.pointer for note in warnings] == [pointer]


@pytest.mark.parametrize(
    "name", ["User", "Env", "Cmd", "Entrypoint", "Volumes", "Labels", "ExposedPorts", "StopSignal"]
)
def test_null_in_an_image_config_is_the_same_as_absent(name):
    given = oci.decode_image_config(json.dumps(put(IMAGE, f"/config/{name}", None))).document

    assert given == oci.decode_image_config(json.dumps(IMAGE)).document


def test_a_manifest_of_docker_reads_as_well():
    docker = {
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "layers": [{**BLOB, "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}],
    }

    assert oci.decode_manifest(json.dumps({**MANIFEST, **docker})).warnings == ()


def test_an_image_config_is_read_with_its_own_spelling():
    document = {**IMAGE, "os.version": "1", "config": {"WorkingDir": "/srv", "User": "33", "StopSignal": "SIGRTMIN+3"}}

    image = oci.decode_image_config(json.dumps(document)).document

    assert image.os_version == "1"
    assert image.config
    assert (image.config.working_dir, image.config.user) == ("/srv", "33")
