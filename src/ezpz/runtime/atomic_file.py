"""Part file: a file that is written beside its place and appears there whole, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from ezpz.agent.common import tree
from ezpz.agent.common.cancel import NEVER
from ezpz.agent.destination import inventory
from ezpz.agent.destination.removal import STALE

if TYPE_CHECKING:
    from collections.abc import Iterator


EVERYBODY = 0o077  # the classes besides the owner: the group and all others


PART = re.compile(r"\.ezpz-[a-z0-9_-]+\.part")


@contextmanager
def atomic_file(path: str, shared: int) -> Iterator[BinaryIO]:
    """Yield a file to write; at the end sync it and rename it to `path`. Raise OSError.

    A link at `path` is replaced, not followed. Where the filesystem can do that, the file has no name until then, so
    that not even a killed process leaves a part of it.

    shared: the classes that may read it, see `access.classes`, within the umask
    """
    folder = os.path.dirname(path)
    fd, part = _open(folder)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, _mode(shared))
            part = part or _named(fd, folder)
        os.replace(part, path)
        part = ""
    finally:
        if part:
            with suppress(OSError):
                os.unlink(part)
    _sync_folder(folder)


@contextmanager
def temporary_directory(folder: str) -> Iterator[str]:
    """Within it, a directory in `folder` that only this user may use; afterwards it is removed. Raises OSError."""
    part = tempfile.mkdtemp(prefix=".ezpz-", suffix=".part", dir=folder)
    try:
        yield part
    finally:
        with suppress(OSError):
            tree.remove(os.fsencode(part))


def publish(part: str, path: str, shared: int) -> None:
    """Sync a file and put it at `path`; see `part_file`. Raises OSError."""
    fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        os.fchmod(fd, _mode(shared))
    finally:
        os.close(fd)
    os.replace(part, path)
    _sync_folder(os.path.dirname(path))


def remove_stale(folder: str, now: float) -> None:
    """Remove what killed processes of this user have left in a folder: parts that did not change for an hour.

    now: seconds since 1970. Never raises.
    """
    with suppress(OSError):
        for name in filter(PART.fullmatch, os.listdir(folder)):
            path = os.fsencode(os.path.join(folder, name))
            with suppress(OSError):
                old = now - inventory.disk_usage(path, NEVER).changed >= STALE
                if old and os.lstat(path).st_uid == os.geteuid():
                    tree.remove(path)


def _open(folder: str) -> tuple[int, str]:
    """A new file in a folder, and its name, "" for none."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), ""
    except OSError:
        return tempfile.mkstemp(prefix=".ezpz-", suffix=".part", dir=folder)


def _named(fd: int, folder: str) -> str:
    """Give a file without a name one of its own in a folder, and return it."""
    part = os.path.join(folder, f".ezpz-{secrets.token_hex(8)}.part")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{fd}", part, src_dir_fd=at)  # with a descriptor it follows the link (linkat(2))
    finally:
        os.close(at)
    return part


def _sync_folder(folder: str) -> None:
    """Let a rename last. Some filesystems cannot, and have no need to."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _mode(shared: int) -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask & (0o700 | shared)
