"""What nodes say, and what others named their things, is shown harmless: no terminal obeys any of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import IMAGE, PveNode, Ran, places, pve, run

__all__ = ["places", "pve", "run"]  # fixtures

Run = Callable[..., Ran]
EVIL = "\x1b[2J\x1b]0;pwned\x07\x1b[31m\x9b31m\u202e\u2066\r\x08\x7f"
SHELL = r"\033[2J\033]0;pwned\007\233\342\200\256\r\010"
VERBS = [
    ("create", "web-2", "--image", IMAGE),
    ("create", "web-3", "--image", f"local:vztmpl/{EVIL}.tar.zst"),
    ("create", EVIL, "--image", IMAGE),
    ("run", "web-4", "--image", IMAGE),
    ("start", "web-1"),
    ("stop", "web-1"),
    ("kill", "web-1"),
    ("kill", "web-1", EVIL),
    ("pause", "web-1"),
    ("resume", "web-1"),
    ("delete", "web-1", "--force"),
    ("list", "--output", "table"),
    ("list", "--all", "--output", "table"),
    ("list", "-l", f"id={EVIL}"),
    ("state", "web-1", "--output", "table"),
    ("state", "990", "--output", "table"),
    ("state", EVIL),
    ("events",),
    ("events", "--output", "jsonl"),
    ("health", "--output", "table"),
    ("reconcile", "--all"),
    ("doctor",),
    ("route", "web-9", "--image", f"{EVIL}"),
    ("config", "show"),
    ("help", EVIL),
    (EVIL,),
    ("list", f"--{EVIL}"),
]


def unseen(text: str) -> str:
    """The characters of ``text`` that a terminal might obey."""
    return "".join(sorted({c for c in text if not (c.isprintable() or c in "\n\t")}))


@pytest.fixture
def hostile(pve: PveNode, run: Run) -> PveNode:
    """A node with one container of ours, one of somebody else's with evil names, and tools that scream."""
    assert run("create", "web-1", "--image", IMAGE).status == 0
    conf = pve.root / "etc" / "pve" / "lxc"
    (conf / "990.conf").write_text(
        f"#{EVIL}\nhostname: {EVIL}\nlock: {EVIL}\ntags: {EVIL};a\nmemory: 512\narch: {EVIL}\n"
    )
    for mine in conf.glob("*.conf"):
        if mine.name != "990.conf":
            mine.write_text(mine.read_text().replace("hostname: web-1", f"hostname: web-1{EVIL}"))
    for tool in ("lxc-freeze", "lxc-unfreeze", "pveversion", "df"):
        pve.script(tool, f"printf '{SHELL}'; printf '{SHELL}' >&2; exit 1")
    pve.instead("create|start|stop|shutdown|destroy|status", f"printf '{SHELL}\\n'; printf '{SHELL}\\n' >&2; exit 255")
    return pve


@pytest.mark.timeout(300)
def test_no_verb_shows_anything_that_a_terminal_obeys(hostile: PveNode, run: Run, tmp_path: Path) -> None:
    bad: list[tuple[tuple[str, ...], str, str]] = []
    screamed = ""
    for verb in VERBS:
        for more in ((), ("--debug",), ("--log", str(tmp_path / "log"), "--log-format", "text")):
            ran = run(*more, *verb)
            screamed += ran.out + ran.err
            if unseen(ran.out + ran.err):
                bad.append((verb, repr(unseen(ran.out)), repr(unseen(ran.err))))
    assert bad == []
    assert "pwned" in screamed, "the tools were never heard"
    for path in tmp_path.glob("log*"):
        assert unseen(path.read_text("utf-8", "surrogateescape")) == ""
