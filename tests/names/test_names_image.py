"""What an image text means is decided from the text alone, and the same way every time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage.errors import InvalidInput, InvalidPath, UnsupportedImage
from nexcage.names import ImageRef, image

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:20.04", "docker.io/library/ubuntu:20.04"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("docker.io/nginx:1.29", "docker.io/library/nginx:1.29"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("docker://ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("ghcr.io/a/b/c:V1.0", "ghcr.io/a/b/c:V1.0"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("registry:5000/x", "registry:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("Registry.Example.com/x", "Registry.Example.com/x:latest"),
        (f"ubuntu@{SHA}", f"docker.io/library/ubuntu@{SHA}"),
        (f"ghcr.io/a/b:1@{SHA}", f"ghcr.io/a/b:1@{SHA}"),
        ("nspawn:debian-12", "docker.io/library/nspawn:debian-12"),
        ("ab/a__b.c---d/e_f", "docker.io/ab/a__b.c---d/e_f:latest"),
        ("foo/bar.tar", "docker.io/foo/bar.tar:latest"),
        ("foo:1.tar", "docker.io/library/foo:1.tar"),
    ],
)
def test_a_reference_is_read_as_container_tools_read_it(text: str, canonical: str) -> None:
    ref = image(text)

    assert ref.kind == "reference"
    assert str(ref) == canonical
    assert ref.text == text


def test_the_parts_of_a_reference_are_attributes() -> None:
    ref = image(f"ghcr.io/a/b:1@{SHA}")

    assert (ref.registry, ref.repository, ref.tag, ref.digest) == ("ghcr.io", "a/b", "1", SHA)
    assert (ref.storage, ref.name, ref.path) == (None, None, None)
    assert image("nspawn:debian-12").tag == "debian-12"
    assert image(f"ubuntu@{SHA}").tag is None


@pytest.mark.parametrize("ending", [".tar", ".tar.zst", ".tar.xz", ".tar.gz", ".tar.bz2"])
def test_a_template_is_known_by_its_ending(ending: str) -> None:
    volume, plain, absolute = (
        image(f"local:vztmpl/d-12_1{ending}"),
        image(f"d-12_1{ending}"),
        image(f"/srv/a b/d{ending}"),
    )

    assert (volume.kind, volume.storage, volume.name, volume.path) == ("template", "local", f"d-12_1{ending}", None)
    assert (plain.kind, plain.storage, plain.name, plain.path) == ("template", None, f"d-12_1{ending}", None)
    assert (absolute.kind, absolute.name, absolute.path) == ("template", f"d{ending}", f"/srv/a b/d{ending}")
    assert [str(ref) for ref in (volume, plain, absolute)] == [volume.text, plain.text, absolute.text]


@pytest.mark.parametrize(
    ("text", "storage", "name", "path"),
    [
        ("local:import/ubuntu-20.04.qcow2", "local", "import/ubuntu-20.04.qcow2", None),
        ("nfs.1:import/x.vmdk", "nfs.1", "import/x.vmdk", None),
        ("local:iso/debian-12.iso", "local", "iso/debian-12.iso", None),
        ("local:iso/noble.img", "local", "iso/noble.img", None),
        ("vm:template/9000", "vm", "template/9000", None),
        ("/srv/images/x.raw", None, "x.raw", "/srv/images/x.raw"),
        ("/srv/x.qcow2", None, "x.qcow2", "/srv/x.qcow2"),
    ],
)
def test_what_a_virtual_machine_is_made_from_is_a_disk(
    text: str, storage: str | None, name: str, path: str | None
) -> None:
    ref = image(text)

    assert (ref.kind, ref.storage, ref.name, ref.path) == ("disk", storage, name, path)
    assert str(ref) == text


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/srv/.qcow2",
        "./x.qcow2",
        "/srv/bundle",
        "/srv/x.tar/",
        "/x.tgz",
        "./b",
        "../b",
        "../../b",
        ".",
        "./",
        "./x.tar",
        "/ubuntu:20.04",
        "./Ubuntu",
    ],
)
def test_a_path_is_a_path_whether_or_not_it_exists(text: str) -> None:
    ref = image(text)

    assert (ref.kind, ref.path, str(ref)) == ("path", text, text)


@pytest.mark.parametrize(
    "text", ["/a/../b", "/..", "..", "../", "../..", "./../b", "../a/../b", "./a/..", "/a/../x.tar.zst"]
)
def test_a_path_that_climbs_in_its_middle_is_refused(text: str) -> None:
    with pytest.raises(InvalidPath):
        image(text)


@pytest.mark.parametrize(
    "text",
    ["local:vztmpl/", "local:vztmpl/x", "local:vztmpl/x.tgz", "local:vztmpl/.tar", "local:vztmpl/../x.tar",
    "local:vztmpl/a/x.tar.zst",
     "local:vztmpl/-x.tar", "local:vztmpl/x.tar.zst\n", "l:vztmpl/x.tar", "1x:vztmpl/x.tar", "-l:vztmpl/x.tar",
     ":vztmpl/x.tar", "local:vztmpl/x.TAR",
     "local:vztmpl/x y.tar", "local:vztmpl/x.tar.zst,size=1", "local:backup/x.zip",
     "local:iso/x", "local:iso/x.qcow2", "local:import/x.iso", "local:import/x.ova", "local:import/", "local:iso/../x.iso",
     "local:import/a/x.raw", "l:iso/x.iso", ":iso/x.iso", "local:import/x.raw,discard=on", "local:import/x y.raw",
     "vm:template/", "vm:template/99", "vm:template/x", "vm:iso/x.iso", "local:template/9000",
     "local:vztmpl/" + "x" * 250 + ".tar"],
)  # fmt: skip
def test_a_malformed_template_is_refused_and_never_becomes_a_reference(text: str) -> None:
    with pytest.raises(UnsupportedImage):
        image(text)


@pytest.mark.parametrize(
    "text",
    ["Ubuntu", "Ubuntu:20.04", "foo/Bar", "Foo/bar", "ubuntu:", "ubuntu@", "ubuntu:-x", "ubuntu:.x",
    "ubuntu:" + "x" * 129, "ubuntu@sha256:00",
     f"ubuntu@{SHA.upper()}", f"ubuntu@{SHA}@{SHA}", "ubuntu@md5:" + "0" * 64, "a//b", "/".join(["a" * 60] * 5), "a/",
     "-a", "a-", "_a", "a___b", "a..b", "a/../b",
     "a b", " a", "a ", "a;id", "$(id)", "a,b", "~/x", "a\\b", "host:port/x", "ubuntu:20.04/x", "http://x/y",
     "docker://", "0" * 64,
     "ubuntu:20.04:1", "ubuntu\u200b", "\u0430lpine", "alpine:\u2170", "alpine\n", "alpine\x00", "", "a" * 5000],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        image(text)


def test_the_refusal_names_the_ways_that_exist() -> None:
    with pytest.raises(UnsupportedImage, match=r"vztmpl.*\.tar\.zst.*path.*ubuntu:20\.04"):
        image("not an image")


@given(
    registry=st.sampled_from(["", "ghcr.io/", "localhost:5000/", "docker.io/", "library/"]),
    repository=st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+){0,2}", fullmatch=True),
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True),
    digest=st.sampled_from(["", f"@{SHA}"]),
)
def test_the_canonical_text_means_the_same_image(registry: str, repository: str, tag: str | None, digest: str) -> None:
    try:
        ref = image(f"{registry}{repository}{f':{tag}' if tag else ''}{digest}")
    except InvalidInput:
        return
    again = image(str(ref))

    assert str(again) == str(ref)
    assert again.kind == ref.kind
    assert image(ref) == ref


@given(
    text=st.text("aA0.:/@-_ t~", max_size=30)
    | st.text("a./:tr", max_size=12)
    | st.from_regex(r"[a-z]{1,3}:(iso|import|template)/[a-z0-9.]{0,9}")
)
def test_any_accepted_text_has_a_stable_reading(text: str) -> None:
    try:
        ref = image(text)
    except InvalidInput:
        return

    assert (str(image(str(ref))), image(str(ref)).kind) == (str(ref), ref.kind)
    assert ref.kind != "template" or ".tar" in text


def test_an_image_ref_is_a_value_that_travels() -> None:
    for text in (f"ghcr.io/a/b:1@{SHA}", "local:vztmpl/x.tar.zst", "./b"):
        ref = image(text)

        assert msgspec.json.decode(msgspec.json.encode(ref), type=ImageRef) == ref
        assert hash(ref) == hash(image(text))


def test_an_image_ref_made_by_hand_is_read_again() -> None:
    with pytest.raises(InvalidInput):
        image(ImageRef("-x; id", "template", name="-x; id"))
    assert image(ImageRef("ubuntu", "path", path="/etc")).kind == "reference"


def test_the_repr_is_a_status_line() -> None:
    assert repr(image("ubuntu:20.04")) == "<ImageRef docker.io/library/ubuntu:20.04: reference>"
    assert repr(image("local:vztmpl/x.tar.zst")) == "<ImageRef local:vztmpl/x.tar.zst: template>"


@pytest.mark.parametrize(
    "text", ["local:backup/vzdump-lxc-104-2025_11_24-16_00_05.tar.zst", "pbs:backup/ct/104/2025-11-24T16:00:05Z"]
)
def test_an_archive_of_a_container_is_a_backup(text: str) -> None:
    ref = image(text)

    assert (ref.kind, str(ref)) == ("backup", text)


@pytest.mark.parametrize(
    "text", ["oci:/srv/nginx", "oci-archive:./x.tar", "docker-archive:../x.tar.gz:library/nginx:1.29"]
)
def test_a_transport_of_files_makes_a_path_whatever_it_ends_in(text: str) -> None:
    ref = image(text)
    assert (ref.kind, ref.path, str(ref)) == ("path", text.partition(":")[2], text)
    assert image(str(ref)) == ref


@pytest.mark.parametrize("text", ["oci:latest", "oci-archive:1.2", "docker-archive:x"])
def test_a_repository_may_be_called_like_a_transport(text: str) -> None:
    assert image(text).kind == "reference"
