import importlib
import inspect
import pkgutil
import socket
import warnings

import asyncssh
import pytest

from nexcage._transports.ssh import translate
from nexcage.errors import AuthRejected, HostKeyRejected, NexcageError, NodeError, NodeNotUsable, NodeUnreachable


def walked() -> list[type[Exception]]:
    found = set()
    for module in pkgutil.iter_modules(asyncssh.__path__, "asyncssh."):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                namespace = vars(importlib.import_module(module.name))
            except ImportError:  # needs an extra package
                continue
        found |= {
            kind
            for kind in namespace.values()
            if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__.startswith("asyncssh")
        }
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", walked(), ids=lambda kind: kind.__name__)
def test_every_error_of_asyncssh_becomes_one_of_ours(kind):
    error = kind.__new__(kind, "boom")
    error.args = ("b\x1bo\nom",)
    error.code, error.reason = 1, "boom"

    ours = translate(error, "pve-01")

    assert isinstance(ours, NodeError)
    assert ours.node == "pve-01"
    assert "\x1b" not in str(ours)
    assert "\n" not in str(ours)


def test_the_walk_finds_them():
    assert len(walked()) > 30


@pytest.mark.parametrize(
    "error, kind",
    [
        (asyncssh.PermissionDenied("no"), AuthRejected),
        (asyncssh.IllegalUserName("no"), AuthRejected),
        (asyncssh.KeyImportError("no"), AuthRejected),
        (asyncssh.KeyEncryptionError("no"), AuthRejected),
        (asyncssh.HostKeyNotVerifiable("no"), HostKeyRejected),
        (asyncssh.KeyExchangeFailed("no"), NodeNotUsable),
        (asyncssh.ProtocolNotSupported("no"), NodeNotUsable),
        (asyncssh.ConnectionLost("no"), NodeUnreachable),
        (asyncssh.ProtocolError("no"), NodeUnreachable),
        (asyncssh.DisconnectError(asyncssh.DISC_TOO_MANY_CONNECTIONS, "no"), NodeUnreachable),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "no"), NodeUnreachable),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no"), NodeNotUsable),
        (asyncssh.ConfigParseError("no"), NodeNotUsable),
        (ConnectionRefusedError(111, "refused"), NodeUnreachable),
        (ConnectionResetError(), NodeUnreachable),
        (OSError(113, "No route to host"), NodeUnreachable),
        (OSError("Multiple exceptions: a, b"), NodeUnreachable),
        (socket.gaierror(-2, "Name or service not known"), NodeUnreachable),
        (TimeoutError(), NodeUnreachable),
        (TimeoutError("late"), NodeUnreachable),
        (ValueError("Unknown local username"), NodeNotUsable),
        (RuntimeError("what"), NodeNotUsable),
    ],
    ids=lambda value: value.__name__ if inspect.isclass(value) else type(value).__name__,
)
def test_the_kind_of_error_says_what_to_do_next(error, kind):
    ours = translate(error, "pve-01")

    assert type(ours) is kind
    assert ours.retryable is (kind is NodeUnreachable)


def test_our_own_errors_pass_unchanged():
    error = NexcageError("mine")

    assert translate(error, "pve-01") is error
