"""The pretend ``lxc-attach``."""

from __future__ import annotations

from nexcage.testing._model import guest
from nexcage.testing._model.guest import Guest
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["lxc_attach"]

_WITH_VALUE = {"-n": "n", "--name": "n", "-u": "u", "--uid": "u", "-g": "g", "--gid": "g", "--keep-var": "k"} | {
    "-v": "v",
    "--set-var": "v",
}
_FLAGS = {"--clear-env": True, "--keep-env": False}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def lxc_attach(ctx: Ctx) -> Steps:
    """``lxc-attach -n NAME [--clear-env] [--keep-var V] [-v V=X] [-u UID] [-g GID] -- COMMAND``."""
    cost = ctx.node.cost(0.01)
    if cost:
        yield Sleep(cost)
    words, found, clear = list(ctx.argv[1:]), {"k": list[str](), "v": list[str]()}, False
    single = {"n": "", "u": "0", "g": ""}
    while words and words[0] != "--":
        word = words.pop(0)
        if word in _FLAGS:
            clear = _FLAGS[word]
        elif word in _WITH_VALUE and words:
            key = _WITH_VALUE[word]
            if key in found:
                found[key].append(words.pop(0))
            else:
                single[key] = words.pop(0)
        else:
            ctx.err(f"lxc-attach: unrecognized option '{word}'\n")
            return 1
    env = {} if clear else dict(ctx.env)
    env |= {name: ctx.env[name] for name in found["k"] if name in ctx.env}
    env = {"PATH": _PATH, **env, "container": "lxc", **dict(one.split("=", 1) for one in found["v"])}
    return (yield from _attached(ctx, single, env, tuple(words[1:]) or ("sh",)))


def _attached(ctx: Ctx, single: dict[str, str], env: dict[str, str], words: tuple[str, ...]) -> Steps:
    name, node = single["n"], ctx.node
    if not name.isdigit() or not node.is_running(int(name)):
        ctx.err(
            f"lxc-attach: {name}: ../src/lxc/attach.c: get_attach_context: 406 Connection refused - Failed to get init pid\n"
        )
        ctx.err(
            f"lxc-attach: {name}: ../src/lxc/attach.c: lxc_attach: 1470 Connection refused - Failed to get attach context\n"
        )
        return 1
    while node.is_frozen(int(name)):
        yield Sleep(0.5)
    if ctx.env.get("NEXCAGE_OP_ID") and words != ("cat", "/etc/passwd"):
        node.effect("exec", name, " ".join(words)[:80])
    uid = int(single["u"])
    gid = int(single["g"]) if single["g"] else uid
    return (yield from guest.run(Guest(ctx, node, int(name), env, uid=uid, gid=gid), words))
