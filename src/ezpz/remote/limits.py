"""The limits of this machine, which are the only ceiling on how many nodes are served at once."""

from __future__ import annotations

import asyncio
import os
import resource

DESCRIPTORS_A_NODE = 6  # a session and a push, each with a socket and a pipe for stderr, and some room
HANDSHAKES_A_CORE = 16  # a key exchange costs tens of milliseconds of a core; more at once only run into ConnectTimeout


def raise_open_files(nodes: int) -> None:
    """Ask for as many open files as `nodes` need, up to what the system allows this user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 256 + nodes * DESCRIPTORS_A_NODE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def connection_limit() -> asyncio.Semaphore:
    """How many sessions may be opening at the same time; there is no limit on those that are open."""
    return asyncio.Semaphore(HANDSHAKES_A_CORE * (os.cpu_count() or 1))
