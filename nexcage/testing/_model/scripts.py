"""Twins of the library's own shell scripts, for nodes in memory, where no shell runs.

A transport in memory is handed ``sh -c SCRIPT NAME ARGS...`` like any other; the twin is found by the script's exact text.
It gets a :class:`Ctx` whose ``argv`` is ``(NAME, *ARGS)`` and starts other tools with :func:`tracked` and ``ctx.called``.
"""

from __future__ import annotations

from nexcage.testing._model.tool import Tool

__all__ = ["SCRIPTS"]

SCRIPTS: dict[str, Tool] = {}
"""Script text to its twin."""
