"""Removal of what a receipt or a staging name proves to be created by ezpz, and of nothing else.

A version is renamed into staging first. If this process dies, the version is complete at its destination, or it is
staging that the next `clean` or copy removes.
"""

import os
import stat
import time
from contextlib import suppress

from ..common import filesystem, layout
from ..common.cancel import CancelToken
from ..common.errors import AgentError, from_os_error
from ..common.messages.queries import ClearAnswer, ClearRequest, VersionKey
from ..common.text import printable_path
from . import inventory, validation
from .lock import Lock
from .places import STAGING
from .remove_tree import open_directory, remove_tree

STALE = 3600  # seconds without a change after which the staging of a run that holds no lock may be removed


def clear(request: ClearRequest, cancel: CancelToken) -> ClearAnswer:
    """Remove from one destination the version that was found there, if one is given, and staging of dead runs.

    Raises AgentError if any of it is not what it was, or a run holds the lock.
    """
    dst = os.fsencode(request.dst)
    dst = os.path.join(os.path.realpath(os.path.dirname(dst)), os.path.basename(dst))
    validation.check_path(dst, None)
    try:
        validation.check_parent(os.path.dirname(dst))
    except FileNotFoundError:
        return ClearAnswer(freed=0, removed=[])
    lock = Lock(dst, request.run)
    try:
        lock.acquire()
        return _clear(dst, request, cancel)
    except OSError as e:
        raise from_os_error(e, "cannot remove '{}'".format(printable_path(dst)))
    finally:
        with suppress(OSError):
            lock.release()


def _clear(dst: bytes, request: ClearRequest, cancel: CancelToken) -> ClearAnswer:
    freed, removed = 0, []
    doomed = [_stale_staging(dst, run, cancel) for run in request.staging]
    for path in filter(None, [dst if request.version is not None else b"", *doomed]):
        filesystem.refuse_mounts(path)
    if request.version is not None:
        doomed.insert(0, _move_aside(dst, request.version, request.run))
    for path in filter(None, doomed):
        cancel.raise_if_cancelled()
        freed += inventory.disk_usage(path, cancel).disk
        remove_tree(path)
        removed.append(os.fsdecode(path))
    return ClearAnswer(freed=freed, removed=removed)


def _stale_staging(dst: bytes, run: str, cancel: CancelToken) -> bytes:
    """Return the staging directory of a dead run, b"" if it is gone or was written to since. Raise AgentError."""
    path = filesystem.beside(dst, b".ezpz-" + run.encode())
    if STAGING.fullmatch(os.path.basename(path)) is None:
        raise AgentError("destination-not-ours", "'{}' is no name of a staging directory".format(printable_path(path)))
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return b""
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise AgentError(
            "destination-not-ours", "'{}' is not a directory of yours".format(printable_path(path)), "look at it"
        )
    stale = inventory.is_spent(path) or time.time() - inventory.disk_usage(path, cancel).changed >= STALE
    return path if stale else b""


def _move_aside(dst: bytes, expected: VersionKey, run: str) -> bytes:
    """Rename a version into staging next to it; return that, b"" if it is gone. Raise AgentError or OSError."""
    before = os.lstat(dst) if os.path.lexists(dst) else None
    receipt = validation.check_ownership(dst, replace=False)
    if before is None or receipt is None:
        return b""
    if any(getattr(receipt, name) != value for name, value in expected.to_json().items()):
        message = "'{}' is another version than the one that was looked at: run {}".format(
            printable_path(dst), receipt.run[:80]
        )
        raise AgentError("destination-not-ours", message, "look again")
    staging = filesystem.beside(dst, b".ezpz-" + run.encode())
    directory = os.open(os.path.dirname(dst), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        name, aside = os.path.basename(dst), os.path.basename(staging)
        os.mkdir(aside, 0o700, dir_fd=directory)
        os.close(open_directory(name, directory))  # a directory that is moved must be writable itself
        inside = os.path.join(aside, layout.GONE)
        os.rename(name, inside, src_dir_fd=directory, dst_dir_fd=directory)
        if not os.path.samestat(before, os.stat(inside, dir_fd=directory, follow_symlinks=False)):
            os.rename(inside, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.rmdir(aside, dir_fd=directory)
            raise AgentError(
                "destination-not-ours", "'{}' was changed meanwhile".format(printable_path(dst)), "look at it"
            )
    finally:
        os.close(directory)
    return staging
