"""``sh`` and ``env`` for nodes in memory."""

from __future__ import annotations

from nexcage.testing._model import find_tool
from nexcage.testing._model.tool import Ctx, Steps

__all__ = ["env", "sh"]


def sh(ctx: Ctx) -> Steps:
    """``sh -c SCRIPT [NAME ARGS...]`` for scripts that have a twin; ``sh SCRIPT`` has none."""
    from nexcage.testing._model.scripts import SCRIPTS

    words = ctx.argv[1:]
    twin = SCRIPTS.get(words[1]) if len(words) >= 2 and words[0] == "-c" else None
    if twin is None:
        ctx.err("sh: script not simulated\n")
        return 127
    ctx.argv = words[2:] or ("sh",)
    return (yield from twin(ctx))


def env(ctx: Ctx) -> Steps:
    """``env [-i] [K=V...] PROG ARGS``: becomes the program."""
    words = list(ctx.argv[1:])
    values = dict(ctx.env)
    while words and (words[0] in ("-i", "-") or "=" in words[0] or words[0] == "--"):
        word = words.pop(0)
        if word in ("-i", "-"):
            values.clear()
        elif word != "--":
            key, _, value = word.partition("=")
            values[key] = value
    if not words:
        ctx.out("".join(f"{key}={value}\n" for key, value in values.items()))
        return 0
    ctx.argv, ctx.env = tuple(words), values
    tool = find_tool(ctx.node, words[0])
    if tool is None:
        ctx.err(f"env: '{words[0]}': No such file or directory\n")
        return 127
    return (yield from tool(ctx))
