"""``crun`` and ``runc``: their argv, what they print and refuse, and a look at all their containers of a node (oci 2)."""

from __future__ import annotations

from nexcage.tools.runtime.answers import Features, Listed, Usage, listed
from nexcage.tools.runtime.call import GUARD, Runtime
from nexcage.tools.runtime.inside import EXEC, LOGS, exec_, logs, refused
from nexcage.tools.runtime.life import (
    events,
    features,
    kill,
    list_,
    pause,
    ps,
    resume,
    spec,
    start,
    state,
    update,
    version,
)
from nexcage.tools.runtime.look import FOREIGN, LOOK, look
from nexcage.tools.runtime.making import CREATE, DELETE, create, delete
from nexcage.tools.runtime.words import classify, last_error

__all__ = [
    "CREATE",
    "DELETE",
    "EXEC",
    "FOREIGN",
    "GUARD",
    "LOGS",
    "LOOK",
    "Features",
    "Listed",
    "Runtime",
    "Usage",
    "classify",
    "create",
    "delete",
    "events",
    "exec_",
    "features",
    "kill",
    "last_error",
    "list_",
    "listed",
    "logs",
    "look",
    "pause",
    "ps",
    "refused",
    "resume",
    "spec",
    "start",
    "state",
    "update",
    "version",
]
