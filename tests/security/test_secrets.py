"""A secret that a command carries in its environment or on its standard input is in no byte that anybody writes or lists."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import nexcage
from nexcage import Command, Config, Create, Delete, Intent, LineSink, LogSink, Spec, Start, Stop
from nexcage._backends.lxc import Lxc
from nexcage.testing.real_sshd import missing
from tests.real.conftest import Site

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
IN_ENV, IN_STDIN = "c4n4ry-of-env-5e1f", "c4n4ry-of-stdin-9d2a"


class _Telling:
    """A node whose every command carries secrets."""

    def __init__(self, node: Any, env: dict[str, str]) -> None:
        self._node = node
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def _with(self, command: Command[Any]) -> Command[Any]:
        return msgspec.structs.replace(command, env=self._env, stdin=IN_STDIN.encode())

    async def run(self, command: Command[Any]) -> Any:
        return await self._node.run(self._with(command))

    async def run_unless_hurried(self, command: Command[Any]) -> bool:
        return await self._node.run_unless_hurried(self._with(command))


class Secretive(Lxc):
    """The usual backend, with secrets in every step."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env

    async def create(self, node: Any, ref: Any, spec: Any) -> Any:
        return await super().create(_Telling(node, self._env), ref, spec)

    async def start(self, node: Any, ref: Any) -> int:
        return await super().start(_Telling(node, self._env), ref)

    async def stop(self, node: Any, ref: Any, **how: Any) -> None:
        await super().stop(_Telling(node, self._env), ref, **how)

    async def delete(self, node: Any, ref: Any, **how: Any) -> None:
        await super().delete(_Telling(node, self._env), ref, **how)


class Spy(threading.Thread):
    """Reads the process list and whatever lies below some directories, again and again."""

    def __init__(self, secrets: list[str], *roots: Path) -> None:
        super().__init__()
        self.secrets = [secret.encode() for secret in secrets]
        self.roots = roots
        self.found: dict[str, str] = {}
        self.looks = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.003):
            self.look()

    def look(self) -> None:
        self.looks += 1
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                self._read(entry / "cmdline")
        self.read_below()

    def read_below(self) -> None:
        for root in self.roots:
            with contextlib.suppress(OSError):
                for path in root.rglob("*"):
                    if path.is_file() and not path.is_symlink():
                        self._read(path)

    def _read(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            for secret in self.secrets:
                if secret in data:
                    kind = "process list" if path.name == "cmdline" else str(path)
                    self.found.setdefault(f"{secret.decode()[:20]}... in {kind}", data[:400].decode("utf-8", "replace"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    if missing():
        pytest.skip(missing())
    made = Site(tmp_path, 1, {})
    for server in made.servers.values():
        server.start()
    yield made
    for server in made.servers.values():
        server.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runner", ["auto", "off"])
async def test_no_secret_is_in_any_byte(here: Site, runner: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = max(next(iter(here.servers.values())).identity_file.read_text().splitlines(), key=len)
    here.sim.pace = 0.02
    # Without a runner the environment travels on the command line, where everybody on the node sees it: design 6 has the runner for that.
    env = {"SECRET": IN_ENV} if runner == "auto" else {}
    lines = io.StringIO()
    config = Config(ssh_config="none", runner=runner, state_dir=str(here.dir / "state"), run_dir=str(here.dir / "run"))  # type: ignore[arg-type]
    claims = here.dir / "sim" / "nodes" / "pve-01" / "root" / "run"
    spy = Spy([IN_ENV, IN_STDIN, key], here.dir / "state", here.dir / "run", claims)
    hosts = [server.host for server in here.servers.values()]
    async with nexcage.open_fleet(
        hosts, config=config, backend=[Secretive(env)], sinks=[LineSink(lines), LogSink()]
    ) as fleet:
        spy.start()
        try:
            intents: list[Intent] = [Create("web-1", SPEC), Start("web-1"), Stop("web-1", force=True), Delete("web-1")]
            while spy.looks <= 10:  # a whole life, and on a busy machine as many as it takes for enough looks
                (await fleet.run(intents)).raise_for_failures()
        finally:
            spy.over.set()
            spy.join()
        seen = [str(event) + repr(event) for event in nexcage.read_journal(fleet.state_dir)]
    spy.look()

    assert spy.found == {}
    told = "\n".join([*seen, caplog.text, lines.getvalue(), *map(repr, caplog.records)])
    assert [secret for secret in (IN_ENV, IN_STDIN, key) if secret in told] == []
    assert "web-1" in told
