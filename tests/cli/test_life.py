"""Containers through the command line, on this machine as a simulated PVE node."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import nexcage

from .conftest import IMAGE, PveNode, Ran

Run = Callable[..., Ran]


def ok(ran: Ran) -> str:
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def status(run: Run, id: str) -> str:
    return json.loads(ok(run("state", id)))["status"]


def test_the_whole_life_of_a_container_is_quiet_and_state_tells_each_step(
    pve: PveNode, run: Run, tmp_path: Path
) -> None:
    assert ok(run("create", "web-1", "--image", IMAGE, "--memory", "1G", "--tag", "web")) == ""
    assert status(run, "web-1") == "created"
    assert ok(run("start", "web-1")) == ""
    state = json.loads(ok(run("state", "web-1")))
    assert (state["status"], state["pid"] > 4194304) == ("running", True)
    assert json.loads((tmp_path / "run" / "web-1" / "state.json").read_text())["pid"] == state["pid"]
    assert ok(run("kill", "-s", "SIGHUP", "web-1")) == ""
    assert ok(run("pause", "web-1")) == ""
    assert status(run, "web-1") == "paused"
    assert ok(run("resume", "web-1")) == ""
    assert ok(run("stop", "web-1", "--timeout", "5")) == ""
    assert status(run, "web-1") == "stopped"
    assert ok(run("delete", "web-1")) == ""

    gone = run("state", "web-1")
    assert (gone.status, gone.out, gone.err) == (1, "", "nexcage: state: container 'web-1' does not exist\n")
    assert not (tmp_path / "run" / "web-1").exists()
    assert pve.tool("pct", "list") == ""


def test_the_predecessors_words_and_vmids_work_everywhere(pve: PveNode, run: Run) -> None:
    ok(run("create", "--name", "web-1", IMAGE, "--runtime", "proxmox-lxc"))
    vmid = json.loads(ok(run("state", "web-1")))["annotations"]["org.nexcage.vmid"]

    ok(run("start", "--name", vmid, "--runtime", "lxc"))
    assert json.loads(ok(run("state", vmid)))["id"] == "web-1"
    assert ok(run("list", "--runtime", "lxc", "--output", "name")) == "web-1\n"
    ok(run("stop", vmid, "--force"))
    ok(run("delete", "--name", "web-1"))


def test_the_states_of_several_are_an_array_and_an_unknown_one_costs_only_itself(pve: PveNode, run: Run) -> None:
    for id in ("web-1", "web-2"):
        ok(run("create", id, "--image", IMAGE))

    both = json.loads(ok(run("state", "web-2", "web-1")))
    mixed = run("state", "web-1", "nobody", "--output", "jsonl")

    assert [state["id"] for state in both] == ["web-2", "web-1"]
    assert (mixed.status, json.loads(mixed.out)["id"]) == (1, "web-1")
    assert mixed.err == "nexcage: state: container 'nobody' does not exist\n"
    assert ok(run("state", "web-1", "--output", "table")).splitlines()[1].split()[:3] == ["web-1", "created", "0"]


def test_create_as_json_says_where_it_went(pve: PveNode, run: Run) -> None:
    outcome = json.loads(ok(run("create", "web-1", "--image", IMAGE, "--output", "json", "--op-id", "key-1")))

    assert (outcome["id"], outcome["result"], outcome["state"], outcome["op_id"]) == (
        "web-1",
        "done",
        "created",
        "key-1",
    )
    assert f"{outcome['vmid']}" in pve.tool("pct", "list")


def test_the_same_op_id_again_is_the_same_outcome_and_no_second_container(pve: PveNode, run: Run) -> None:
    first = json.loads(ok(run("create", "web-1", "--image", IMAGE, "--op-id", "k", "--output", "json")))

    again = run("create", "web-1", "--image", IMAGE, "--op-id", "k", "--output", "json")

    assert again.status == 0
    assert json.loads(again.out)["vmid"] == first["vmid"]
    assert len(pve.tool("pct", "list").splitlines()) == 2


def test_what_is_refused_exits_1_and_says_what_is_allowed(pve: PveNode, run: Run) -> None:
    ok(run("run", "web-1", "--image", IMAGE))

    refused = run("delete", "web-1")

    assert (refused.status, refused.out) == (1, "")
    line, note = refused.err.splitlines()
    assert line == "nexcage: cannot delete container 'web-1': it is running"
    assert note.startswith("  allowed now: ")
    assert run("create", "web-1", "--image", IMAGE).status == 1
    assert run("resume", "web-1").status == 0


def test_run_whose_start_fails_keeps_the_container_and_says_so(pve: PveNode, run: Run) -> None:
    pve.instead("start", 'echo "startup for container failed" >&2; exit 1')

    failed = run("run", "web-1", "--image", IMAGE)

    assert failed.status == 1
    assert "startup for container failed" in failed.err
    assert "container 'web-1' was created and stays; 'nexcage delete web-1' removes it" in failed.err
    assert status(run, "web-1") == "created"


def test_run_with_rm_leaves_nothing_when_the_start_fails(pve: PveNode, run: Run) -> None:
    pve.instead("start", 'echo "startup for container failed" >&2; exit 1')

    failed = run("run", "web-1", "--image", IMAGE, "--rm")

    assert failed.status == 1
    assert "was created and removed again" in failed.err
    assert run("state", "web-1").status == 1
    assert pve.tool("pct", "list") == ""


def test_the_pid_file_has_inits_host_pid_and_no_newline(pve: PveNode, run: Run, tmp_path: Path) -> None:
    ok(run("run", "web-1", "--image", IMAGE, "--pid-file", str(tmp_path / "pid")))

    pid = json.loads(ok(run("state", "web-1")))["pid"]
    assert (tmp_path / "pid").read_text() == str(pid)
    assert [path.name for path in tmp_path.glob(".*.pid")] == []


def test_a_pid_file_that_cannot_be_written_is_refused_before_anything_runs(
    pve: PveNode, run: Run, tmp_path: Path
) -> None:
    refused = run("create", "web-1", "--image", IMAGE, "--pid-file", str(tmp_path / "no" / "pid"))

    assert refused.status == 2
    assert run("state", "web-1").status == 1


def test_foreign_guests_are_shown_on_request_and_never_changed(pve: PveNode, run: Run) -> None:
    pve.tool("pct", "create", "777", IMAGE, "--hostname", "theirs")
    ok(run("create", "web-1", "--image", IMAGE))

    assert ok(run("list", "--output", "name")) == "web-1\n"
    rows = [json.loads(line) for line in ok(run("list", "--all-guests", "--output", "jsonl")).splitlines()]
    assert [(row["id"], row["vmid"] == 777, row["managed"]) for row in rows] == [
        ("web-1", False, True),
        ("theirs", True, False),
    ]
    state = json.loads(ok(run("state", "777")))
    assert (state["status"], state["annotations"]["org.nexcage.managed"]) == ("stopped", "false")
    for argv in (["delete", "777", "--force"], ["start", "777"], ["start", "777", "web-1"]):
        refused = run(*argv)
        assert (refused.status, refused.out) == (1, "")
        assert "777 on 'local'" in refused.err
        assert "not managed by this fleet" in refused.err
    assert pve.tool("pct", "status", "777") == "status: stopped\n"
    assert "running" not in pve.tool("pct", "list")


def test_several_and_selected_containers_are_done_at_once(pve: PveNode, run: Run) -> None:
    for id in ("web-1", "web-2", "db-1"):
        ok(run("create", id, "--image", IMAGE, "--tag", id.split("-")[0]))

    table = ok(run("start", "-l", "tag=web"))
    assert [line.split()[:4] for line in table.splitlines()] == [
        ["NODE", "DONE", "UNCHANGED", "FAILED"],
        ["local", "2", "0", "0"],
    ]
    assert ok(run("list", "-l", "state=running", "--output", "name")) == "web-1\nweb-2\n"
    assert ok(run("pause", "web-1", "web-2")) == ""

    mixed = run("resume", "web-1", "nobody", "web-2", "--output", "jsonl")
    results = {row["id"]: row["result"] for row in map(json.loads, mixed.out.splitlines())}
    assert results == {"web-1": "done", "web-2": "done", "nobody": "failed"}
    assert mixed.status == 1
    assert mixed.err.splitlines() == [
        "nexcage: resume: container 'nobody' does not exist",
        "nexcage: resume: 2 of 3 done, 1 failed",
    ]
    ok(run("delete", "--all", "--force", "--output", "json"))
    assert ok(run("list", "--output", "json")) == "[]\n"


def test_a_selector_that_matches_nothing_is_done_at_once(pve: PveNode, run: Run) -> None:
    assert ok(run("start", "-l", "tag=none")) == ""
    assert run("start", "-l", "nonsense").status == 2
    assert ok(run("state", "--all")) == "[]\n"


def test_state_and_list_take_selectors(pve: PveNode, run: Run) -> None:
    for id, tag in (("web-1", "web"), ("web-2", "web"), ("db-1", "db")):
        ok(run("create", id, "--image", IMAGE, "--tag", tag))
    assert [state["id"] for state in json.loads(ok(run("state", "tag=web", "id!=web-2")))] == ["web-1"]
    assert ok(run("state", "--all", "--output", "name")).split() == ["db-1", "web-1", "web-2"]
    assert ok(run("list", "id~^web-", "--output", "name")).split() == ["web-1", "web-2"]
    assert ok(run("list", "--all", "--output", "name")).split() == ["db-1", "web-1", "web-2"]
    assert run("list", "web-1").status == 2


def test_delete_with_force_of_an_unknown_container_is_done(pve: PveNode, run: Run) -> None:
    assert run("delete", "nobody").status == 1
    assert ok(run("delete", "nobody", "--force")) == ""


def test_a_reference_without_an_alias_is_refused_with_both_ways_named(pve: PveNode, run: Run) -> None:
    refused = run("create", "web-1", "--image", "ubuntu:20.04")

    assert (refused.status, refused.out) == (2, "")
    assert "[images]" in refused.err
    assert "pull" in refused.err


def test_an_unknown_runtime_is_invalid_input_that_names_the_known_ones(pve: PveNode, run: Run) -> None:
    for argv in (["create", "web-1", "--image", IMAGE], ["list"], ["start", "web-1"]):
        refused = run(*argv, "--runtime", "invalid")

        assert refused.status == 2
        assert "lxc" in refused.err


def test_an_engine_gets_runcs_words_and_1_and_oci_rules(pve: PveNode, run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    engine = ["--log", str(log), "--log-format", "json"]
    ok(run("create", "web-1", "--image", IMAGE))
    ok(run(*engine, "start", "web-1"))

    again = run(*engine, "start", "web-1")

    assert (again.status, again.err) == (1, "cannot start an already running container\n")
    line = json.loads(log.read_text().splitlines()[-1])
    assert (line["level"], line["msg"]) == ("error", "cannot start an already running container")
    assert not run(*engine, "state", "web-1").out.endswith("\n")
    assert json.loads(ok(run(*engine, "list", "--format", "json")))[0]["id"] == "web-1"
    assert run(*engine, "delete", "web-1").err == "cannot delete container web-1 that is not stopped: running\n"
    ok(run(*engine, "kill", "--all", "web-1", "9"))
    assert run(*engine, "pause", "web-1").err == "container not running\n"
    assert run(*engine, "kill", "web-1", "9").err == "container not running\n"
    ok(run(*engine, "kill", "--all", "web-1", "9"))
    assert run(*engine, "start", "web-1").err == "cannot start a container that has stopped\n"
    assert run(*engine, "kill", "web-1", "FOO").err == 'unknown signal "FOO"\n'
    ok(run(*engine, "delete", "--force", "web-1"))
    ok(run(*engine, "delete", "--force", "web-1"))
    assert run(*engine, "state", "web-1").err == "container does not exist\n"


def test_an_engines_root_is_a_fleet_of_its_own(run: Run, tmp_path: Path) -> None:
    missing = run("--root", str(tmp_path / "r"), "create", "--bundle", str(tmp_path / "none"), "web-1")

    assert missing.status == 1
    assert "runc create failed: chdir" in missing.err
    assert "no such file or directory" in missing.err

    gone = run("--root", str(tmp_path / "r"), "state", "web-1")
    assert 'level=error msg="container does not exist"' in gone.err
    assert (tmp_path / "r" / ".nexcage" / "journal").is_dir()


def test_a_machine_without_pve_is_told_about_the_simulated_cluster(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "none.toml"  # nor with a runtime, whatever is installed here
    config.write_text("".join(f'[backends.{name}]\ncommand = ["{tmp_path}/{name}"]\n' for name in ("crun", "runc")))
    for argv in (["list"], ["create", "web-1", "--image", IMAGE]):
        ran = run("--config", str(config), *argv)

        assert (ran.status, ran.out) == (3, "")
        assert "nexcage sim up" in ran.err


def test_state_of_a_container_whose_node_is_away_is_the_last_record_and_exits_3(pve: PveNode, run: Run) -> None:
    ok(run("run", "web-1", "--image", IMAGE))
    pve.script("sh", "exit 127")

    away = run("state", "web-1")

    state = json.loads(away.out)
    assert (away.status, state["status"]) == (3, "running")
    assert state["annotations"]["org.nexcage.stale"] == "true"
    assert "this is the last record" in away.err
    listed = run("list", "--output", "jsonl")
    assert (listed.status, json.loads(listed.out)["stale"]) == (3, True)


def test_route_explains_and_contacts_nobody(run: Run) -> None:
    ran = run("route", "web-1", "--image", "debian-12.tar.zst", "--hosts", "pve-[01-03].lan")

    assert ok(ran).startswith(
        "web-1: backend lxc, on one of pve-01.lan, pve-02.lan, pve-03.lan, from local:vztmpl/debian-12.tar.zst"
    )
    assert "backend lxc is the default" in ran.out


def test_health_looks_at_values_and_exits_by_what_fails(pve: PveNode, run: Run) -> None:
    healthy = run("health", "--output", "json")
    rows = {row["check"]: row for row in json.loads(healthy.out)}
    assert (healthy.status, {row["verdict"] for row in rows.values()} - {"WARN"}) == (0, {"PASS"})
    assert {"quorum", "pve", "pool rpool", "storage local", "disk /", "clock", "journal", "templates local"} <= set(
        rows
    )

    assert "fencing" in rows["runner"]["value"]
    assert rows["lease"]["node"] == "this machine"
    assert "nobody holds it" in rows["lease"]["value"]
    ok(run("create", "web-1", "--image", IMAGE))
    after = {row["check"]: row for row in json.loads(run("health", "--output", "json").out)}
    assert "this state directory" in after["lease"]["value"]

    pve.script("zpool", r"printf 'rpool\t1000000000000\t5\t900000000000\t1\tDEGRADED\n'")
    ill = run("health")

    assert ill.status == 1
    assert "DEGRADED" in next(line for line in ill.out.splitlines() if "FAIL" in line)
    assert "zpool status -x rpool" in ill.out


def test_events_tell_what_happened_and_open_nothing(pve: PveNode, run: Run, tmp_path: Path) -> None:
    ok(run("run", "web-1", "--image", IMAGE))
    ok(run("create", "web-2", "--image", IMAGE))
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    lines = [json.loads(line) for line in ok(run("events", "--output", "jsonl", "--id", "web-1")).splitlines()]

    assert [(line["event"], line["op"]) for line in lines] == [
        ("began", "create"),
        ("attempted", "create"),
        ("succeeded", "create"),
        ("began", "start"),
        ("attempted", "start"),
        ("succeeded", "start"),
    ]
    text = ok(run("events", "--output", "text", "--since", str(lines[2]["seq"]), "--op", "start"))
    assert [line.split()[2:4] for line in text.splitlines()] == [
        ["web-1", word] for word in ("began", "attempted", "succeeded")
    ]
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_debug_shows_each_command_with_node_exit_and_time_on_stderr(pve: PveNode, run: Run) -> None:
    ran = run("create", "web-1", "--image", IMAGE, "--debug")

    assert (ran.status, ran.out) == (0, "")
    line = next(line for line in ran.err.splitlines() if ": pct create " in line)
    assert "nexcage.command: local: pct create" in line
    assert re.search(r"exit 0 in [0-9]+\.[0-9]", line)


def test_a_log_file_gets_what_happens_in_the_events_words_and_stderr_nothing(
    pve: PveNode, run: Run, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    ok(run("create", "web-1", "--image", IMAGE, "--log-file", str(log)))
    ok(run("start", "web-1", "--log-file", str(log), "--log-level", "debug"))

    lines = log.read_text().splitlines()
    assert "INFO nexcage: web-1 succeeded create: created, lxc" in lines[1]
    assert "INFO nexcage: web-1 succeeded start: running, pid" in lines[-1]
    assert any("DEBUG nexcage.command: local: " in line and "pct start" in line for line in lines)
    assert log.stat().st_mode & 0o777 == 0o600


def test_verbose_tells_on_stderr_what_happens(pve: PveNode, run: Run) -> None:
    ran = run("-v", "create", "web-1", "--image", IMAGE)

    assert (ran.status, ran.out) == (0, "")
    assert [" ".join(line.split()[1:5]) for line in ran.err.splitlines()] == [
        "INFO nexcage: web-1 began",
        "INFO nexcage: web-1 succeeded",
    ]


@pytest.mark.parametrize("flag", [["--debug"], ["--verbose"], []])
def test_the_logger_is_left_as_it_was(flag: list[str], run: Run) -> None:
    import logging

    logger = logging.getLogger("nexcage")
    before = (logger.level, list(logger.handlers))

    run("version", *flag)

    assert (logger.level, list(logger.handlers)) == before
    assert nexcage.__version__


def test_what_a_create_says_is_in_the_config_of_the_container(pve: PveNode, run: Run) -> None:
    """And what is refused is refused before anything runs."""
    said = "--mount mp0=local-zfs:2,mp=/data --dev dev0=/dev/fuse,mode=0660 --features nesting=1,keyctl=1 --startup order=2 "
    said += (
        "--cpulimit 1.5 --cpuunits 200 --nameserver 1.1.1.1 --searchdomain lan --timezone Europe/Berlin --protection"
    )
    refused = run("create", "web-1", "--image", IMAGE, "--features", "nestin=1")
    assert (refused.status, "features" in refused.err) == (2, True)

    ok(run("create", "web-1", "--image", IMAGE, "--storage", "local-zfs", *said.split()))

    (vmid,) = (row["vmid"] for row in json.loads(ok(run("list", "--output", "json"))))
    lines = (pve.root / f"etc/pve/nodes/pve-01/lxc/{vmid}.conf").read_text().splitlines()
    wanted = {
        "features: keyctl=1,nesting=1",
        "startup: order=2",
        "cpulimit: 1.5",
        "cpuunits: 200",
        "timezone: Europe/Berlin",
    }
    wanted |= {"nameserver: 1.1.1.1", "searchdomain: lan", "protection: 1", "dev0: /dev/fuse,mode=0660"}
    assert wanted <= set(lines), lines
    assert any(line.startswith("mp0: local-zfs:") and "mp=/data" in line for line in lines)
