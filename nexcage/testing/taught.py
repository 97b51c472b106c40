"""Any callable as a pretend tool."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from nexcage.testing._model.tool import Ctx, Sleep, Steps, Tool

__all__ = ["as_tool"]


def as_tool(given: object) -> Tool:
    """``given`` as a tool: a generator function of a `Ctx` as it is, any other callable by what it returns."""
    if not callable(given):
        raise TypeError(f"{given!r} cannot be called: a program is a callable of (argv, stdin)")
    function = given if inspect.isroutine(given) else getattr(type(given), "__call__", given)  # noqa: B004
    if inspect.isgeneratorfunction(function):
        return cast("Tool", given)
    call = cast("Callable[..., object]", given)
    wants = _positional(call)

    def run(ctx: Ctx) -> Steps:
        yield Sleep(ctx.node.cost(0.01))
        answer = call(*(ctx.argv, ctx.stdin)[:wants])
        if inspect.iscoroutine(answer):
            answer = _awaited(answer)
        status, out, err = _read(answer)
        ctx.out(out)
        ctx.err(err)
        return status

    return run


def _positional(call: Callable[..., object]) -> int:
    """How many of (argv, stdin) it takes."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(call).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return min(2, sum(parameter.kind in kinds for parameter in parameters))


def _awaited(answer: Any) -> object:  # Any: a coroutine
    try:
        answer.send(None)
    except StopIteration as end:
        return end.value
    answer.close()
    raise TypeError("a taught program cannot wait: make it a generator that yields Sleep(seconds)")


def _read(answer: object) -> tuple[int, str | bytes, str | bytes]:
    """Exit status, stdout and stderr of whatever it answered."""
    if answer is None or isinstance(answer, (str, bytes)):
        return 0, answer or b"", b""
    if isinstance(answer, int):
        return int(answer), b"", b""
    if isinstance(answer, tuple):
        words = [*cast("tuple[Any, ...]", answer)]  # type: ignore[redundant-cast]  # pyright knows less
        words += [0, b"", b""][len(words) :]
        return int(words[0]), words[1], words[2]
    for name in ("exit", "returncode", "status", "exit_status"):
        status = getattr(answer, name, None)
        if isinstance(status, int):
            return status, getattr(answer, "stdout", b"") or b"", getattr(answer, "stderr", b"") or b""
    raise TypeError(
        f"a taught program answered {answer!r}: a Result, text, an exit status or (exit, stdout, stderr) is expected"
    )
