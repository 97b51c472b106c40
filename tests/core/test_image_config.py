"""From what an image says of itself to a bundle's config.json."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexcage import InvalidImage, Spec
from nexcage._core.bundle.image import ImageConfig
from nexcage._core.bundle.image_rules import decode_image_config
from nexcage._core.image_config import document, encoded, user

PASSWD = b"""# users
root:x:0:0:root:/root:/bin/sh
ada:x:1000:1001:Ada:/home/ada:/bin/sh
42:x:1500:1500::/:/bin/sh
broken
huge:x:99999999999:1::/:
"""
GROUP = b"root:x:0:\nada:x:1001:ada\nwheel:x:10:root,ada\nvideo:x:44:ada\n"


def image(config: dict[str, Any] | None, **more: Any) -> ImageConfig:
    said = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": config,
        **more,
    }
    return decode_image_config(msgspec.json.encode(said)).document


def made(config: dict[str, Any], spec: Spec | None = None, **more: Any) -> Any:
    who = user(str(config.get("User") or ""), PASSWD, GROUP)
    return msgspec.json.decode(encoded(document("web-1", image(config, **more), spec or Spec("./x"), who)))


@pytest.mark.parametrize(
    ("given", "uid", "gid", "more"),
    [
        ("", 0, 0, (10,)),
        ("root", 0, 0, (10,)),
        ("ada", 1000, 1001, (10, 44)),
        ("1000", 1000, 1001, (10, 44)),
        ("ada:wheel", 1000, 10, ()),
        ("1000:5", 1000, 5, ()),
        ("7", 7, 0, ()),
        ("7:video", 7, 44, ()),
        ("7:", 7, 0, ()),
        (":video", 0, 44, ()),
        ("4294967294", 4294967294, 0, ()),
    ],
)
def test_users_are_looked_up_in_the_root_file_system(given: str, uid: int, gid: int, more: tuple[int, ...]) -> None:
    found = user(given, PASSWD, GROUP)
    assert (found.uid, found.gid, found.additional_gids) == (uid, gid, more)


@pytest.mark.parametrize(
    "given", ["nobody", "ada:nogroup", "huge", "4294967295", "99999999999", "-1", "a da", "\uff17", "1.5", "7:-1"]
)
def test_a_user_that_is_not_there_is_an_error(given: str) -> None:
    with pytest.raises(InvalidImage, match=r"^invalid image: its config: (user|group) "):
        user(given, PASSWD, GROUP)


def test_the_program_its_directory_and_its_environment() -> None:
    process = made({"Entrypoint": ["/bin/a", ""], "Cmd": ["c d", "\n"], "Env": ["A=1", "B="], "WorkingDir": "srv/app"})[
        "process"
    ]

    assert process["args"] == ["/bin/a", "", "c d", "\n"]
    assert process["cwd"] == "/srv/app"
    assert process["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B="]
    assert made({"Cmd": ["x"], "Env": ["PATH=/x"]})["process"]["env"] == ["PATH=/x"]
    assert made({"Cmd": ["x"]})["process"]["cwd"] == "/"


def test_only_root_has_capabilities_in_effect() -> None:
    assert made({"Cmd": ["x"]})["process"]["capabilities"]["effective"]
    mine = made({"Cmd": ["x"], "User": "ada"})["process"]
    assert mine["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [10, 44]}
    assert "effective" not in mine["capabilities"]
    assert mine["capabilities"]["bounding"]


@pytest.mark.parametrize("config", [{}, {"Entrypoint": [], "Cmd": None}, {"Cmd": [""]}])
def test_without_a_program_there_is_no_container(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidImage):
        made(config)


def test_labels_win_over_what_the_image_says_and_the_spec_over_both() -> None:
    config = {
        "Cmd": ["x"],
        "Labels": {"org.opencontainers.image.author": "label", "mine": "1"},
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"443/tcp": {}, "80/tcp": {}},
        "Volumes": {"/data": {}},
    }
    spec = Spec("./x", annotations={"mine": "2"})
    assert made(config, spec, author="image", created="2026-01-01T00:00:00Z", variant="v2")["annotations"] == {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.variant": "v2",
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
        "org.opencontainers.image.exposedPorts": "443/tcp,80/tcp",
        "org.opencontainers.image.author": "label",
        "mine": "2",
    }
    assert "org.opencontainers.image.stopSignal" not in made({"Cmd": ["x"], "StopSignal": "SIGFOO"})["annotations"]


def test_the_spec_bounds_memory_and_processors() -> None:
    linux = made({"Cmd": ["x"]}, Spec("./x", memory=256, cpulimit=1.5, cpuunits=100))["linux"]
    assert linux["resources"]["memory"] == {"limit": 256 << 20}
    assert linux["resources"]["cpu"] == {"quota": 150_000, "period": 100_000, "shares": 2597}
    swapping = made({"Cmd": ["x"]}, Spec("./x", memory=256, swap=64, cores=2))["linux"]["resources"]
    assert swapping["memory"] == {"limit": 256 << 20, "swap": 320 << 20}
    assert swapping["cpu"] == {"quota": 200_000, "period": 100_000}


def test_the_host_name_is_the_specs_or_the_id() -> None:
    assert made({"Cmd": ["x"]})["hostname"] == "web-1"
    assert made({"Cmd": ["x"]}, Spec("./x", hostname="other"))["hostname"] == "other"


def test_an_image_that_says_nothing_is_told_by_what_is_missing() -> None:
    with pytest.raises(InvalidImage, match="neither Entrypoint nor Cmd"):
        document("web-1", image(None), Spec("./x"), user(""))


def test_sections_that_say_nothing_are_left_out() -> None:
    resources = made({"Cmd": ["x"]})["linux"]["resources"]
    assert resources == {"devices": [{"allow": False, "access": "rwm"}], "memory": {"limit": 512 << 20}}
