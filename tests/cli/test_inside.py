"""``nexcage exec cp push logs ps stats wait`` as somebody types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nexcage._cli.parser import parse
from tests.cli.conftest import IMAGE, PveNode, Ran

pytestmark = pytest.mark.timeout(300)
Run = Callable[..., Ran]


@pytest.fixture
def web(pve: PveNode, run: Run) -> None:
    made = run("run", "web-1", "--image", IMAGE, "--net", "name=eth0,bridge=vmbr0,ip=10.0.0.5/24")
    assert made.status == 0, made.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("exec web-1 ls -l", ["web-1", "ls", "-l"]),
        ("exec web-1 ls --help", ["web-1", "ls", "--help"]),
        ("exec web-1 -- ls -l", ["web-1", "ls", "-l"]),
        ("exec -e A=b web-1 env -e c", ["web-1", "env", "-e", "c"]),
        ("exec --name web-1 ls -l", ["ls", "-l"]),
        ("exec -l tag=web uptime -p", ["uptime", "-p"]),
        ("--debug exec web-1 x --debug", ["web-1", "x", "--debug"]),
        ("exec web-1 sh -c --", ["web-1", "sh", "-c", "--"]),
    ],
)
def test_what_stands_behind_the_id_is_the_programs(line: str, words: list[str]) -> None:
    assert list(parse(line.split()).words) == words


@pytest.mark.usefixtures("web")
def test_exec_gives_the_programs_streams_and_status(run: Run) -> None:
    assert run("exec", "web-1", "sh", "-c", "echo out; echo err >&2; exit 7") == Ran(7, "out\n", "err\n")
    assert run("exec", "web-1", "cat", stdin="hello\n") == Ran(0, "hello\n", "")
    assert run("exec", "-e", "A=b c", "web-1", "env").out.endswith("A=b c\ncontainer=lxc\n")
    assert run("exec", "-l", "id=web-*", "hostname").out == "web-1: web-1\n"
    assert run("exec", "-l", "id=web-*", "false").status == 1


@pytest.mark.usefixtures("web")
def test_what_was_copied_can_be_looked_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text("text\n")

    assert run("exec", "web-1", "test", "-e", "/srv/site.conf").status == 1
    assert run("cp", str(tmp_path / "site.conf"), "web-1:/srv/").status == 0

    assert run("exec", "web-1", "ls", "/srv") == Ran(0, "site.conf\n", "")
    assert run("wait", "web-1", "--", "test", "-s", "/srv/site.conf").status == 0
    assert run("exec", "web-1", "ls", "/srv/none").status == 2


@pytest.mark.usefixtures("web")
def test_exec_is_255_when_the_program_was_not_run(run: Run) -> None:
    for words in (("nobody", "true"), ("-u", "no-such-user", "web-1", "true"), ("-w", "relative", "web-1", "true")):
        ran = run("exec", *words)
        assert ran.status == 255
        assert ran.err.startswith("nexcage: ")


@pytest.mark.usefixtures("web")
def test_files_are_copied_both_ways(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text\n")
    (tmp_path / "a").chmod(0o600)

    assert run("cp", str(tmp_path / "a"), "web-1:/etc/") == Ran(0, "", "")
    assert run("cp", "web-1:/etc/a", str(tmp_path / "b")) == Ran(0, "", "")
    assert run("cp", "web-1:/etc/a", "-").out == "text\n"
    assert run("push", "-", "web-1:/etc/c", stdin="from here\n").status == 0
    assert run("exec", "web-1", "cat", "/etc/c").out == "from here\n"
    assert (tmp_path / "b").read_text() == "text\n"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    for words in (("a", "b"), ("web-1:/a", "web-2:/b"), ("x",)):
        assert run("cp", *words).status == 2


@pytest.mark.usefixtures("web")
def test_what_is_seen_from_outside(run: Run) -> None:
    (process,) = json.loads(run("ps", "web-1", "--output", "json").out)
    assert (process["inner"], process["argv"]) == (1, ["/sbin/init"])
    assert run("ps", "web-1").out.splitlines()[0].split() == [
        "PID",
        "INNER",
        "UID",
        "STATE",
        "MEMORY",
        "CPU",
        "COMMAND",
    ]
    (used,) = json.loads(run("stats", "--output", "json").out)
    assert (used["id"], used["memory_limit"]) == ("web-1", 512 << 20)
    assert "512M" in run("stats").out
    assert run("stats", "web-1").out.splitlines()[1].startswith("web-1 ")
    assert run("stats", "nobody") == Ran(1, "", "nexcage: stats: container 'nobody' does not exist\n")
    assert run("logs", "web-1", "-n", "1").out.count("\n") == 1
    assert run("wait", "web-1").out == "10.0.0.5\n"
    assert run("wait", "web-1", "--state", "running").out == "running\n"
    late = run("wait", "web-1", "--port", "80", "--timeout", "0.3")
    assert (late.status, "nothing listens on port 80" in late.err) == (1, True)
    assert json.loads(run("state", "web-1").out)["annotations"]["org.nexcage.addresses"] == "10.0.0.5"
    (row,) = json.loads(run("list", "--output", "json").out)
    assert row["addresses"] == ["10.0.0.5"]


@pytest.mark.usefixtures("pve")
@pytest.mark.parametrize(("verb", "words"), [("ps", "ps"), ("stats", "measure"), ("wait", "wait for")])
def test_what_does_not_run_is_refused_in_the_words_of_the_command(run: Run, verb: str, words: str) -> None:
    assert run("create", "web-1", "--image", IMAGE).status == 0

    refused = run(verb, "web-1")

    assert refused.status == 1
    assert refused.err.startswith(f"nexcage: cannot {words} container 'web-1': it is created\n")
