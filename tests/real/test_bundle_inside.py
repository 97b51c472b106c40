"""A bundle in a real container of LXC, as its program sees it from inside."""

from __future__ import annotations

import json
from pathlib import Path

import anyio

from nexcage import Spec
from tests.real.test_gate import Place, place

__all__ = ["place"]

SEE = """
{ echo "cwd $(pwd)"; echo "env $A"; echo "host $(hostname)"; echo "files $(ulimit -n)"; echo "id $(id -u):$(id -g)"
  echo "msgmax $(cat /proc/sys/kernel/msgmax)"; grep " /scratch " /proc/mounts
} > /tmp/seen 2>&1; mv /tmp/seen /tmp/all; trap 'exit 0' PWR TERM; sleep 1000 & wait
"""


async def test_a_program_finds_what_its_bundle_says(place: Place, tmp_path: Path) -> None:
    spec = place.spec("/bin/sh", "-c", SEE, hostname="shop")
    config = tmp_path / "bundle/config.json"
    document = json.loads(config.read_text())
    document["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]
    options = ["nosuid", "size=1m"]
    document["mounts"] = [{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options}]
    document["linux"] |= {"sysctl": {"kernel.msgmax": "4321"}}
    config.write_text(json.dumps(document))

    said = await told(place, spec, "tmp/all")

    lines = said.splitlines()
    assert lines[:6] == ["cwd /tmp", "env b c", "host shop", "files 123", "id 0:0", "msgmax 4321"]
    assert lines[6].startswith("tmpfs /scratch tmpfs rw,nosuid")
    assert "size=1024k" in lines[6]


async def test_a_read_only_root_is_one(place: Place) -> None:
    script = "{ touch /x || echo refused; } >/run/seen 2>&1; mv /run/seen /run/all; trap 'exit 0' PWR TERM; sleep 1000 & wait"
    spec = place.spec("/bin/sh", "-c", script, root={"path": "rootfs", "readonly": True})

    said = await told(place, spec, "run/all")

    assert "Read-only file system" in said
    assert said.endswith("refused\n")


async def told(place: Place, spec: Spec, path: str) -> str:
    """What the program has written when it has all of it."""
    async with place.open() as fleet:
        await fleet["web-1"].create(spec)
        pid = (await fleet["web-1"].start()).pid
        seen = Path(f"/proc/{pid}/root/{path}")
        with anyio.fail_after(20):
            while not seen.exists():
                await anyio.sleep(0.01)
        return seen.read_text()
