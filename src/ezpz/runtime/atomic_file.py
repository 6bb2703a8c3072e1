"""Files that are written next to their destination, and appear there completely or not at all."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from ezpz.agent.common.cancel import NEVER
from ezpz.agent.destination import inventory
from ezpz.agent.destination.removal import STALE
from ezpz.agent.destination.remove_tree import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


EVERYBODY = 0o077  # the permission classes other than the owner: the group and all others
PART = re.compile(r"\.ezpz-[a-z0-9_-]+\.part")


@contextmanager
def atomic_file(path: str, shared: int) -> Iterator[BinaryIO]:
    """Yield a file to write. At the end, sync it and rename it to `path`.

    A link at `path` is replaced, not followed. If the filesystem supports it, the file has no name until then, so that
    not even a killed process leaves a part of it.

    Args:
        path: the path of the file
        shared: the classes that may read it (see `access.classes`), within the umask

    Raises:
        OSError: the file cannot be written
    """
    directory = os.path.dirname(path)
    fd, part = _open(directory)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, _mode(shared))
            part = part or _named(fd, directory)
        os.replace(part, path)
        part = ""
    finally:
        if part:
            with suppress(OSError):
                os.unlink(part)
    _sync_directory(directory)


@contextmanager
def temporary_directory(directory: str) -> Iterator[str]:
    """Yield a directory in `directory` that only this user may use, and remove it at the end. Raises OSError."""
    part = tempfile.mkdtemp(prefix=".ezpz-", suffix=".part", dir=directory)
    try:
        yield part
    finally:
        with suppress(OSError):
            remove_tree(os.fsencode(part))


def publish(part: str, path: str, shared: int) -> None:
    """Sync a file and rename it to `path` (see `atomic_file`). Raises OSError."""
    fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        os.fchmod(fd, _mode(shared))
    finally:
        os.close(fd)
    os.replace(part, path)
    _sync_directory(os.path.dirname(path))


def remove_stale(directory: str, now: float) -> None:
    """Remove what killed processes of this user left in a directory: parts that did not change for an hour.

    Never raises. `now` is in seconds since 1970.
    """
    with suppress(OSError):
        for name in filter(PART.fullmatch, os.listdir(directory)):
            path = os.fsencode(os.path.join(directory, name))
            with suppress(OSError):
                old = now - inventory.disk_usage(path, NEVER).changed >= STALE
                if old and os.lstat(path).st_uid == os.geteuid():
                    remove_tree(path)


def _open(directory: str) -> tuple[int, str]:
    """Return the descriptor of a new file in a directory, and its path, or "" if it has no name."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), ""
    except OSError:
        return tempfile.mkstemp(prefix=".ezpz-", suffix=".part", dir=directory)


def _named(fd: int, directory: str) -> str:
    """Give a file that has no name a unique name in a directory, and return its path."""
    part = os.path.join(directory, f".ezpz-{secrets.token_hex(8)}.part")
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{fd}", part, src_dir_fd=at)  # with a descriptor it follows the link (linkat(2))
    finally:
        os.close(at)
    return part


def _sync_directory(directory: str) -> None:
    """Make a rename durable. Some filesystems cannot do this, and do not need it."""
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _mode(shared: int) -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask & (0o700 | shared)
