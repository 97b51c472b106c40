"""The other pretend tools print what the real ones print."""

from __future__ import annotations

import json

import pytest

from nexcage.testing._model import TOOLS
from nexcage.testing._model.tool import Ctx, Steps

from .conftest import ALPINE, World


def test_every_tool_can_be_found() -> None:
    assert all(callable(TOOLS[name]) for name in TOOLS)


def test_lxc_info_of_a_running_container(world: World) -> None:
    pid = world.started(100)

    assert (
        world.run("lxc-info", "-n", "100").stdout
        == f"Name:           100\nState:          RUNNING\nPID:            {pid}\n"
    )
    assert world.run("lxc-info", "-n", "100", "-p", "-H").stdout == f"{pid}\n"
    assert world.run("lxc-info", "-n", "100", "-s").stdout == "State:          RUNNING\n"


def test_lxc_does_not_know_a_container_that_never_ran(world: World) -> None:
    world.created(100)
    call = world.run("lxc-info", "-n", "100")

    assert (call.exit, call.stderr) == (1, "100 doesn't exist\n")
    assert world.run("lxc-ls", "-1").stdout == ""


def test_lxc_ls_by_state(world: World) -> None:
    world.started(100)
    world.started(101)
    world.run("lxc-freeze", "-n", "101")

    assert world.run("lxc-ls", "-1", "--running").stdout == "100\n"
    assert world.run("lxc-ls", "-1", "--frozen").stdout == "101\n"
    assert world.run("lxc-ls", "-1", "--active").stdout == "100\n101\n"


def test_lxc_destroys_only_what_it_knows_and_what_does_not_run(world: World) -> None:
    world.started(100)

    assert world.run("lxc-destroy", "-n", "101").exit == 1
    assert world.run("lxc-destroy", "-n", "100").stderr == "100 is running\n"
    world.run("pct", "stop", "100")
    assert world.run("lxc-destroy", "-n", "100").stdout == "Destroyed container 100\n"
    assert world.run("lxc-info", "-n", "100").exit == 1
    assert world.run("pct", "config", "100").exit == 0


def test_df_without_a_path_shows_the_pools_too(world: World) -> None:
    lines = world.run("df", "-h").stdout.splitlines()

    assert tuple(lines[1].split()[:2]) == ("/dev/mapper/pve-root", "100G")
    assert ["450G", "/rpool/data"] in [[line.split()[1], line.split()[-1]] for line in lines]


@pytest.mark.parametrize("word", ["-s XYZ 1", "-99 1", "-s TERM abc", "-s TERM 5000000"])
def test_kill_says_no(world: World, word: str) -> None:
    assert world.run("kill", *word.split()).exit != 0


def test_zfs_lists_without_head_by_tabs(world: World) -> None:
    world.created(100)
    call = world.run("zfs", "list", "-Hp", "-o", "name,refquota,type", "-t", "filesystem", "-r", "rpool/data")

    assert call.stdout == (
        "rpool/data\t0\tfilesystem\nrpool/data/subvol-100-disk-0\t4294967296\tfilesystem\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "stderr"),
    [
        (("list", "rpool/nope"), "cannot open 'rpool/nope': dataset does not exist\n"),
        (("create", "nopool/x"), "cannot create 'nopool/x': no such pool 'nopool'\n"),
        (("create", "rpool/a/b"), "cannot create 'rpool/a/b': parent does not exist\n"),
        (("create", "rpool/data"), "cannot create 'rpool/data': dataset already exists\n"),
        (("create", "/rpool/x"), "cannot create '/rpool/x': leading slash in name\n"),
        (("create", "rpool/x%y"), "cannot create 'rpool/x%y': invalid character '%' in name\n"),
        (("destroy", "rpool/data@s"), "could not find any snapshots to destroy; check snapshot names.\n"),
    ],
)
def test_zfs_errors_in_its_words(world: World, argv: tuple[str, ...], stderr: str) -> None:
    call = world.run("zfs", *argv)

    assert (call.exit, call.stderr) == (1, stderr)


def test_zfs_life_of_a_dataset(world: World) -> None:
    assert world.run("zfs", "create", "-p", "-o", "refquota=1G", "rpool/a/b").exit == 0
    assert world.run("zfs", "get", "-Hp", "-o", "value", "refquota", "rpool/a/b").stdout == "1073741824\n"
    assert world.run("zfs", "snapshot", "rpool/a/b@one").exit == 0
    assert world.run("zfs", "snapshot", "rpool/a/b@two").exit == 0
    assert "more recent snapshots" in world.run("zfs", "rollback", "rpool/a/b@one").stderr
    assert "filesystem has children" in world.run("zfs", "destroy", "rpool/a").stderr
    assert world.run("zfs", "destroy", "-r", "rpool/a").exit == 0
    assert "rpool/a" not in world.run("zfs", "list", "-H", "-o", "name").stdout.split()


def test_pvesm_status_is_a_table_of_fixed_columns(world: World) -> None:
    lines = world.run("pvesm", "status").stdout.splitlines()

    assert lines[0].split() == "Name Type Status Total (KiB) Used (KiB) Available (KiB) %".split()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert [line.split()[:3] for line in lines[1:]] == [["local", "dir", "active"], ["local-zfs", "zfspool", "active"]]


def test_pvesm_list_shows_templates_and_volumes(world: World) -> None:
    world.created(100)

    assert "local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz txz" in world.run("pvesm", "list", "local").stdout
    assert "local-zfs:subvol-100-disk-0 subvol rootdir 4294967296 100" in world.run("pvesm", "list", "local-zfs").stdout
    assert world.run("pvesm", "list", "nosuch").stderr == "storage 'nosuch' does not exist\n"
    assert world.run("pvesm", "path", "local-zfs:subvol-100-disk-0").stdout == "/rpool/data/subvol-100-disk-0\n"


def test_pvesh_prints_one_line_of_json(world: World) -> None:
    world.created(100, "--hostname", "web")
    status = json.loads(world.run("pvesh", "get", "/cluster/status", "--output-format", "json").stdout)
    guests = json.loads(
        world.run("pvesh", "get", "/cluster/resources", "--type", "vm", "--output-format", "json").stdout
    )

    assert [entry["name"] for entry in status] == ["sim", "pve-01", "pve-02"]
    assert [(guest["vmid"], guest["name"], guest["status"]) for guest in guests] == [(100, "web", "stopped")]
    assert world.run("pvesh", "get", "/nope").stderr == "No 'get' handler defined for '/nope'\n"


def test_env_becomes_the_program(world: World) -> None:
    call = world.run("env", "NEXCAGE_OP_ID=op-9", "LC_ALL=C", "pct", "create", "100", "local:iso/x.iso")
    world.run("env", "NEXCAGE_OP_ID=op-9", "zfs", "create", "rpool/x")

    assert "content type needs to be 'vztmpl'" in call.stderr
    assert world.effects()[0]["op_id"] == "op-9"
    assert world.effects()[0]["argv"] == ["zfs", "create", "rpool/x"]


def test_an_unknown_script_is_not_guessed_at(world: World) -> None:
    call = world.run("sh", "-c", "rm -rf /")

    assert (call.exit, call.stderr) == (127, "sh: script not simulated\n")


def test_a_node_can_be_taught_a_program(world: World) -> None:
    def hello(ctx: Ctx) -> Steps:
        ctx.out("hello\n")
        yield from ()
        return 3

    world.node.taught["hello"] = hello

    assert world.run("env", "hello").stdout == "hello\n"
    assert world.run("hello").exit == 3
    assert world.run("env", "hello", on=world.nodes["pve-02"]).exit == 127


@pytest.mark.parametrize(
    ("argv", "stderr"),
    [
        (("create", "100", "x", "--c", "2"), "Option c is ambiguous (cmode, console, cores, cpulimit, cpuunits)\n"),
        (("create", "100", "x", "y"), "400 too many arguments\n"),
        (("create", "100", "x", "--tags="), "Option tags requires an argument\n"),
        (("create", "100", "x", "--password", "abc"), "password: value must be at least 5 characters long\n"),
        (("create", "100", "x", "--unique"), "restore: missing property - 'unique' requires this property\n"),
        (("create", "100", "x", "--net0", "eth0"), "value without key, but schema does not define a default key\n"),
        (("create", "100", "x", "--mp0", "/srv"), "mp0.mp: property is missing and it is not optional\n"),
        (("status", "100", "-v"), "Option v is ambiguous (verbose, vmid)\n"),
        (("st", "100"), "ERROR: incomplete command 'pct st'\n"),
    ],
)
def test_pct_refuses_in_pves_words(world: World, argv: tuple[str, ...], stderr: str) -> None:
    call = world.run("pct", *argv)

    assert call.exit not in (0, None)
    assert stderr in call.stderr


def test_pct_takes_options_as_short_as_they_are_unique(world: World) -> None:
    world.created(100, "--mem", "64", "-HOSTN", "web", "--onboot", "--unpriv=no", "--tags", "B,a", "--tags", "a;C")

    config = world.run("pct", "conf", "100").stdout
    assert "memory: 64\n" in config
    assert "hostname: web\nmemory" in config
    assert "onboot: 1\n" in config
    assert "unprivileged" not in config
    assert "tags: a;b;c\n" in config


def test_a_missing_bridge_is_told_after_the_config_has_it(world: World) -> None:
    world.created(100)

    call = world.run("pct", "set", "100", "--net0", "name=eth0,bridge=nosuchbr")

    assert call.exit != 0
    assert call.stderr == "bridge 'nosuchbr' does not exist\n"
    assert "bridge=nosuchbr" in (world.node.config(100) or "")
    assert world.run("pct", "start", "100").stderr == "bridge 'nosuchbr' does not exist\n"


def test_a_command_cut_short_too_early_is_called_incomplete(world: World) -> None:
    assert world.run("pct", "st", "100").stderr.startswith("ERROR: incomplete command 'pct st'\n")
    assert world.run("pct", "help", "nosuch").stderr.startswith("ERROR: unknown command 'nosuch'\n")
    assert world.run("pct", "help", "df", "--verbose", "0").stdout == "USAGE: pct df <vmid>\n\n"


def test_a_password_is_read_twice_from_standard_input(world: World) -> None:
    def create(vmid: str, typed: bytes) -> tuple[int | None, str]:
        call = world.start("pct", "create", vmid, ALPINE, "--storage", "local-zfs", "--password", stdin=typed)
        return world.finish(call).exit, call.stderr

    assert create("100", b"secret\nsecret\n") == (0, "")
    assert create("101", b"secret\nsesame\n")[1] == "passwords do not match\n"
    assert create("101", b"abc\nabc\n")[1].startswith("400 Parameter verification failed.\npassword: ")
    assert create("101", b"")[1] == "EOF while reading password\n"
