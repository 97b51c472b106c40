"""What a pulled image is called on a node, and which names are like one that is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Config, Defaults, Spec, UnsupportedImage, names
from nexcage._core.images import Image, closest, volume_of
from nexcage._core.route import Plan, plan

KNOWN = [
    "alpine-3.22-default_20250617_amd64.tar.xz",
    "debian-12-standard_12.12-1_amd64.tar.zst",
    "debian-12-standard_12.7-1_amd64.tar.zst",
    "ubuntu-22.04-standard_22.04-1_amd64.tar.zst",
    "ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
]
letters = st.text("abz019", min_size=1, max_size=4)
part = st.builds(
    lambda words, between: between.join(words), st.lists(letters, min_size=1, max_size=3), st.sampled_from("._-")
)
references = st.builds(
    lambda registry, parts, tag: f"{registry}{'/'.join(parts)}:{tag}",
    st.sampled_from(["", "quay.io/", "localhost:5000/", "docker.io/"]),
    st.lists(part, min_size=1, max_size=3),
    st.builds(str.__add__, st.sampled_from("aZ0_"), st.text("aZ0_.-", max_size=6)),
)


@pytest.mark.parametrize(
    ("given", "volume"),
    [
        ("nginx", "local:vztmpl/nginx_latest.tar"),
        ("docker.io/library/nginx:1.29", "local:vztmpl/nginx_1.29.tar"),
        ("docker://nginx:1.29", "local:vztmpl/nginx_1.29.tar"),
        ("grafana/grafana:12.1", "local:vztmpl/docker.io_grafana_grafana_12.1-3ae45a1c.tar"),
    ],
)
def test_a_pulled_image_has_the_name_that_pve_gives_or_one_of_its_own(given: str, volume: str) -> None:
    made = volume_of(names.image(given), "local")
    assert made.rpartition("-")[0] == volume.rpartition("-")[0]
    assert made == volume or "/" in given.removeprefix("docker.io/library/").removeprefix("docker://")


@given(references, references)
def test_two_references_never_mean_one_file_and_each_is_a_template(one: str, other: str) -> None:
    first, second = names.image(one), names.image(other)
    assert names.image(volume_of(first, "local")).kind == "template"
    assert (volume_of(first, "local") == volume_of(second, "local")) == (str(first) == str(second))


@pytest.mark.parametrize("given", ["nginx@sha256:" + "a" * 64, "nginx:1@sha256:" + "a" * 64])
def test_a_digest_cannot_be_pulled(given: str) -> None:
    with pytest.raises(UnsupportedImage, match="tags, not digests"):
        volume_of(names.image(given), "local")


@pytest.mark.parametrize(
    ("missing", "first"),
    [
        ("debian-12-standrd_12.7-1_amd64.tar.zst", "debian-12-standard_12.7-1_amd64.tar.zst"),
        ("ubuntu-22.04-standard_22.04-2_amd64.tar.zst", "ubuntu-22.04-standard_22.04-1_amd64.tar.zst"),
        ("alpine-3.22.tar.xz", "alpine-3.22-default_20250617_amd64.tar.xz"),
    ],
)
def test_the_closest_names_begin_with_the_same_system(missing: str, first: str) -> None:
    assert closest(missing, KNOWN)[0] == first


def test_nothing_is_like_a_name_of_another_kind() -> None:
    assert closest("zzz", KNOWN) == []


def test_an_image_says_its_storage_and_its_name() -> None:
    image = Image("local:vztmpl/a.tar", "pve-01")
    assert (image.storage, image.name) == ("local", "a.tar")


# ---- what routing makes of it ------------------------------------------------------------------------------------------------


def planned(spec: Spec, **settings: object) -> Plan:
    return plan("web-1", spec, Config(**settings), ("pve-01",), ("lxc", "vm", "mine"))  # type: ignore[arg-type]


def test_the_rule_of_references_nothing_named_is_refused_a_named_backend_has_its_own_alias() -> None:
    aliases = {"ubuntu:20.04": {"lxc": "local:vztmpl/ubuntu.tar.zst", "qemu": "/var/lib/vz/template/iso/u.img"}}
    with pytest.raises(UnsupportedImage):
        planned(Spec("ubuntu:20.04"), images=aliases)
    assert (
        planned(Spec("ubuntu:20.04", backend="proxmox-lxc"), images=aliases).spec.image == "local:vztmpl/ubuntu.tar.zst"
    )
    assert planned(Spec("ubuntu:20.04", backend="vm"), images=aliases).spec.image == "/var/lib/vz/template/iso/u.img"
    with pytest.raises(UnsupportedImage):
        planned(Spec("ubuntu:20.04", backend="vm"), images={"ubuntu:20.04": {"lxc": "local:vztmpl/ubuntu.tar.zst"}})


@pytest.mark.parametrize("settings", [{"pull": True}, {}])
def test_a_reference_that_may_be_pulled_is_a_template_with_its_source(settings: dict[str, object]) -> None:
    spec = Spec("nginx:1.29", backend="lxc", pull=not settings)
    found = planned(spec, defaults=Defaults(image_storage="far"), **settings)
    assert (found.spec.image, found.source) == ("far:vztmpl/nginx_1.29.tar", "docker.io/library/nginx:1.29")
    assert found.spec.pull
    assert found.spec.annotations["org.nexcage.image.requested"] == "nginx:1.29"


def test_an_alias_may_name_a_reference_that_is_pulled() -> None:
    found = planned(Spec("web", backend="lxc", pull=True), images={"web": "quay.io/me/web:3"})
    assert found.source == "quay.io/me/web:3"
    with pytest.raises(UnsupportedImage):
        planned(Spec("web", backend="lxc"), images={"web": "quay.io/me/web:3"})


def test_an_alias_of_a_template_wins_over_pulling() -> None:
    found = planned(Spec("nginx", backend="lxc", pull=True), images={"nginx": "local:vztmpl/mine.tar.zst"})
    assert (found.spec.image, found.source) == ("local:vztmpl/mine.tar.zst", "")


def test_without_a_named_backend_nothing_is_pulled() -> None:
    with pytest.raises(UnsupportedImage):
        planned(Spec("nginx", pull=True))


def test_defaults_of_size_and_cores_are_taken_where_nothing_was_said() -> None:
    defaults = Defaults(size=12, cores=3)
    found = planned(Spec("a.tar.zst"), defaults=defaults).spec
    said = planned(Spec("a.tar.zst", size=4, cores=1), defaults=defaults).spec
    assert (found.size, found.cores, said.size, said.cores) == (12, 3, 4, 1)
