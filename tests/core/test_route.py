"""Routing: the first rule that matches decides, what was asked for explicitly beats it, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest

from nexcage import Config, Defaults, InvalidSpec, Net, NoRoute, Route, Spec, UnsupportedImage
from nexcage._core.route import Plan, plan

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
NODES = ("pve-01", "pve-02", "gpu-01")
BACKENDS = ("lxc", "vm", "crun", "runc", "mine")


def planned(spec: Spec, *, id: str = "web-1", routing: tuple[Route, ...] = (), **settings: object) -> Plan:
    return plan(id, spec, Config(routing=routing, **settings), NODES, BACKENDS)  # type: ignore[arg-type]


def test_without_rules_every_node_may_take_it_with_the_default_backend() -> None:
    found = planned(Spec(DEBIAN))
    assert (found.backend, found.nodes, found.spec) == ("lxc", NODES, Spec(DEBIAN))
    assert found.why == ("backend lxc is the default",)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Route(id="web-*", nodes="gpu-*"), True),
        (Route(id="WEB-*", nodes="gpu-*"), False),
        (Route(id="/^web-[0-9]+$/", nodes="gpu-*"), True),
        (Route(id="/^db/", nodes="gpu-*"), False),
        (Route(tag="PROD", nodes="gpu-*"), True),
        (Route(tag="pro?", nodes="gpu-*"), True),
        (Route(tag="db", nodes="gpu-*"), False),
        (Route(image="template", nodes="gpu-*"), True),
        (Route(image="reference", nodes="gpu-*"), False),
        (Route(id="web-*", tag="db", nodes="gpu-*"), False),
    ],
)
def test_a_rule_matches_by_id_image_kind_and_tag_together(rule: Route, matches: bool) -> None:
    assert planned(Spec(DEBIAN, tags=("Prod",)), routing=(rule,)).nodes == (("gpu-01",) if matches else NODES)


def test_the_first_rule_that_matches_wins_and_is_named() -> None:
    found = planned(Spec(DEBIAN), routing=(Route(id="db-*"), Route(id="web-*", nodes="pve-*"), Route(nodes="gpu-*")))
    assert found.nodes == ("pve-01", "pve-02")
    assert "routing rule 2" in found.why[0]


def test_an_explicit_backend_and_node_beat_the_rule() -> None:
    rules = (Route(backend="vm", nodes="gpu-*"),)
    assert planned(Spec(DEBIAN), routing=rules).backend == "vm"
    found = planned(Spec(DEBIAN, backend="mine", node="pve-02"), routing=rules)
    assert (found.backend, found.nodes) == ("mine", ("pve-02",))


@pytest.mark.parametrize(
    ("given", "meant"), [("proxmox-lxc", "lxc"), ("pct", "lxc"), ("qemu", "vm"), ("proxmox-vm", "vm")]
)
def test_other_names_of_a_backend_mean_it(given: str, meant: str) -> None:
    assert planned(Spec(DEBIAN, backend=given)).backend == meant
    assert planned(Spec(DEBIAN), routing=(Route(backend=given),)).backend == meant
    assert planned(Spec(DEBIAN), defaults=Defaults(backend=given)).backend == meant


def test_a_backend_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidSpec, match="crun, lxc, mine, runc, vm"):
        planned(Spec(DEBIAN, backend="docker"))


@pytest.mark.parametrize("images", [{}, {"ubuntu:20.04": DEBIAN}])
def test_a_reference_without_a_named_backend_is_refused_and_both_ways_are_named(images: dict[str, str]) -> None:
    with pytest.raises(UnsupportedImage) as refused:
        planned(Spec("ubuntu:20.04"), images=images)
    for way in ("--runtime lxc", "[images]", "pull = true", "STORAGE:vztmpl/"):
        assert way in refused.value.reason


@pytest.mark.parametrize("alias", ["ubuntu:20.04", "docker.io/library/ubuntu:20.04", "library/ubuntu:20.04"])
@pytest.mark.parametrize("asked", ["ubuntu:20.04", "docker.io/library/ubuntu:20.04", "docker://ubuntu:20.04"])
def test_an_alias_is_found_under_every_spelling_of_its_reference(alias: str, asked: str) -> None:
    found = planned(Spec(asked, backend="lxc"), images={"debian": "x.tar", alias: DEBIAN})
    assert found.spec.image == DEBIAN
    assert found.spec.annotations["org.nexcage.image.requested"] == asked


def test_a_rule_that_names_the_backend_permits_the_alias_too() -> None:
    assert (
        planned(Spec("ubuntu"), routing=(Route(backend="lxc"),), images={"ubuntu:latest": DEBIAN}).spec.image == DEBIAN
    )
    with pytest.raises(UnsupportedImage):
        planned(Spec("ubuntu"), routing=(Route(nodes="pve-*"),), images={"ubuntu:latest": DEBIAN})


def test_somebodys_own_backend_reads_its_own_references() -> None:
    assert planned(Spec("ubuntu:20.04", backend="mine")).spec.image == "ubuntu:20.04"


def test_no_node_left_is_no_route() -> None:
    with pytest.raises(NoRoute, match="pve-99"):
        planned(Spec(DEBIAN, node="pve-99"))
    with pytest.raises(NoRoute, match="arm-"):
        planned(Spec(DEBIAN), routing=(Route(nodes="arm-*"),))
    with pytest.raises(NoRoute, match="it has none"):
        plan("web-1", Spec(DEBIAN), Config(), (), BACKENDS)


def test_defaults_fill_in_only_what_was_not_said() -> None:
    settings: dict[str, Any] = {"defaults": Defaults(storage="tank", bridge="vmbr7")}
    assert planned(Spec("debian-12.tar.zst"), **settings).spec == Spec(
        "local:vztmpl/debian-12.tar.zst", storage="tank", nets=(Net(bridge="vmbr7"),)
    )
    said = Spec("/srv/debian-12.tar.zst", storage="local", nets=(Net(bridge="vmbr1"),))
    assert planned(said, **settings).spec == said
    assert planned(Spec(DEBIAN, nets=()), **settings).spec.nets == ()


def test_an_alias_for_another_backend_is_named_where_one_is_missing() -> None:
    images = {"ubuntu:20.04": {"vm": "local:import/focal.qcow2"}}

    with pytest.raises(UnsupportedImage, match=r"an alias for lxc, as it has one for vm, in \[images\]"):
        planned(Spec("ubuntu:20.04", backend="lxc"), images=images)


@pytest.mark.parametrize(
    ("backend", "way"),
    [("lxc", "--pull"), ("vm", "STORAGE:import/NAME"), ("crun", "oci-archive:./FILE.tar"), ("runc", "./DIR:TAG")],
)
def test_who_names_an_unknown_image_reads_the_ways_of_that_backend(backend: str, way: str) -> None:
    with pytest.raises(UnsupportedImage) as refused:
        planned(Spec("nginx", backend=backend))
    assert way in str(refused.value)
    assert ("--pull" in str(refused.value)) is (backend == "lxc")
