"""Limits of this host on how many nodes are served at the same time."""

from __future__ import annotations

import asyncio
import os
import resource

DESCRIPTORS_PER_NODE = 6  # a session and a push, each with a socket and a pipe for stderr, and two to spare
HANDSHAKES_PER_CORE = 16  # a key exchange takes tens of milliseconds of a core; with more, some reach ConnectTimeout


def raise_open_files(nodes: int) -> None:
    """Raise the limit on open files to what `nodes` need, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 256 + nodes * DESCRIPTORS_PER_NODE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def connection_limit() -> asyncio.Semaphore:
    """Return a limit on how many sessions are being opened at the same time. Open sessions are not limited."""
    return asyncio.Semaphore(HANDSHAKES_PER_CORE * (os.cpu_count() or 1))
