"""Clearing: removes from this host what a receipt or a staging name proves to be ours, and nothing else.

A version is renamed to a staging name first: whenever this process dies, what is left is whole at its place, or litter
that the next `clean` or yeet removes.
"""

import os
import stat
import time
from contextlib import suppress
from typing import Any, Dict

from ezpz.agent.common import filesystem, tree
from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.text import printable_path
from ezpz.agent.destination import inventory, validation
from ezpz.agent.destination.lock import Lock

STALE = 3600  # seconds without a change after which the staging of a run that holds no lock may go


def clear(request: Dict[str, Any], going_on: inventory.Going) -> Dict[str, Any]:
    """Remove from one destination what was found there: `version`, if one is given, and staging.

    request: dst, run (names what is moved aside), version ({run, version, created} of the receipt, or None) and staging
    (names of runs). Returns freed (bytes) and removed (paths). Raises Refusal when any of it is not what it was, or a
    run holds the lock.
    """
    dst = os.fsencode(request["dst"])
    dst = os.path.join(os.path.realpath(os.path.dirname(dst)), os.path.basename(dst))
    validation.check_path(dst, None)
    try:
        validation.check_parent(os.path.dirname(dst))
    except FileNotFoundError:
        return {"freed": 0, "removed": []}
    lock = Lock(dst, request["run"])
    try:
        lock.acquire()
        return _clear(dst, request, going_on)
    except OSError as e:
        raise from_os_error(e, "cannot remove '{}'".format(printable_path(dst)))
    finally:
        with suppress(OSError):
            lock.release()


def _clear(dst: bytes, request: Dict[str, Any], going_on: inventory.Going) -> Dict[str, Any]:
    freed, removed = 0, []
    litter = [_stale(dst, run, going_on) for run in request["staging"]]
    for path in filter(None, [dst if request["version"] is not None else b"", *litter]):
        filesystem.refuse_mounts(path)
    if request["version"] is not None:
        litter.insert(0, _moved_aside(dst, request))
    for path in filter(None, litter):
        going_on()
        freed += inventory.disk_usage(path, going_on)["disk"]
        tree.remove(path)
        removed.append(os.fsdecode(path))
    return {"freed": freed, "removed": removed}


def _stale(dst: bytes, run: str, going_on: inventory.Going) -> bytes:
    """The staging of a dead run to a destination; b"" when it has gone, or has been written to since."""
    path = filesystem.beside(dst, b".ezpz-" + run.encode())
    if inventory.STAGING.fullmatch(os.path.basename(path)) is None:
        raise AgentError("destination-not-ours", "'{}' is no name of a staging directory".format(printable_path(path)))
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return b""
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise AgentError(
            "destination-not-ours", "'{}' is not a directory of yours".format(printable_path(path)), "look at it"
        )
    stale = inventory.spent(path) or time.time() - inventory.disk_usage(path, going_on)["changed"] >= STALE
    return path if stale else b""


def _moved_aside(dst: bytes, request: Dict[str, Any]) -> bytes:
    """Rename a version into staging beside it and return that, b"" when it has gone. Raises Refusal, OSError."""
    before = os.lstat(dst) if os.path.lexists(dst) else None
    receipt = validation.check_ownership(dst, replace=False)
    if before is None or receipt is None:
        return b""
    expected = request["version"]
    if any(receipt.get(name) != value for name, value in expected.items()):
        message = "'{}' is another version than the one that was looked at: run {}".format(
            printable_path(dst), str(receipt.get("run", ""))[:80]
        )
        raise AgentError("destination-not-ours", message, "look again")
    staging = filesystem.beside(dst, b".ezpz-" + request["run"].encode())
    folder = os.open(os.path.dirname(dst), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        name, aside = os.path.basename(dst), os.path.basename(staging)
        os.mkdir(aside, 0o700, dir_fd=folder)
        os.close(tree.open_directory(name, folder))  # a folder that is moved elsewhere must be writable itself
        inside = os.path.join(aside, inventory.GONE)
        os.rename(name, inside, src_dir_fd=folder, dst_dir_fd=folder)
        if not os.path.samestat(before, os.stat(inside, dir_fd=folder, follow_symlinks=False)):
            os.rename(inside, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.rmdir(aside, dir_fd=folder)
            raise AgentError(
                "destination-not-ours", "'{}' was changed meanwhile".format(printable_path(dst)), "look at it"
            )
    finally:
        os.close(folder)
    return staging
