"""The programs that run OCI bundles on any Linux node."""

from __future__ import annotations

__all__ = ["RUNTIMES"]

RUNTIMES = frozenset({"crun", "runc"})
"""Backends whose containers go by their ids: their numbers are for bookkeeping, and never shown."""
