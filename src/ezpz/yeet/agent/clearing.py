"""Clearing: removes from this host what a receipt or a staging name proves to be ours, and nothing else.

A version is renamed to a staging name first: whenever this process dies, what is left is whole at its place, or litter
that the next `clean` or yeet removes.
"""

import os
import stat
import time
from contextlib import suppress
from typing import Any, Dict

from . import estate, place, tree
from .lock import Lock
from .refusal import Refusal, from_os_error, shown

STALE = 3600  # seconds without a change after which the staging of a run that holds no lock may go


def clear(request: Dict[str, Any], going_on: estate.Going) -> Dict[str, Any]:
    """Remove from one destination what was found there: `version`, if one is given, and staging.

    request: dst, run (names what is moved aside), version ({run, version, created} of the receipt, or None) and staging
    (names of runs). Returns freed (bytes) and removed (paths). Raises Refusal when any of it is not what it was, or a
    run holds the lock.
    """
    dst = os.fsencode(request["dst"])
    dst = os.path.join(os.path.realpath(os.path.dirname(dst)), os.path.basename(dst))
    place.refuse_path(dst, None)
    try:
        place.refuse_shady_parent(os.path.dirname(dst))
    except FileNotFoundError:
        return {"freed": 0, "removed": []}
    lock = Lock(dst, request["run"])
    try:
        lock.acquire()
        return _clear(dst, request, going_on)
    except OSError as e:
        raise from_os_error(e, "cannot remove '{}'".format(shown(dst)))
    finally:
        with suppress(OSError):
            lock.release()


def _clear(dst: bytes, request: Dict[str, Any], going_on: estate.Going) -> Dict[str, Any]:
    freed, removed = 0, []
    litter = [_stale(dst, run, going_on) for run in request["staging"]]
    for path in filter(None, [dst if request["version"] is not None else b"", *litter]):
        place.refuse_mounts(path)
    if request["version"] is not None:
        litter.insert(0, _moved_aside(dst, request))
    for path in filter(None, litter):
        going_on()
        freed += estate.weigh(path, going_on)["disk"]
        tree.remove(path)
        removed.append(os.fsdecode(path))
    return {"freed": freed, "removed": removed}


def _stale(dst: bytes, run: str, going_on: estate.Going) -> bytes:
    """The staging of a dead run to a destination; b"" when it has gone, or has been written to since."""
    path = place.beside(dst, b".ezpz-" + run.encode())
    if estate.STAGING.fullmatch(os.path.basename(path)) is None:
        raise Refusal("destination-not-ours", "'{}' is no name of a staging directory".format(shown(path)))
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return b""
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise Refusal("destination-not-ours", "'{}' is not a directory of yours".format(shown(path)), "look at it")
    stale = estate.spent(path) or time.time() - estate.weigh(path, going_on)["changed"] >= STALE
    return path if stale else b""


def _moved_aside(dst: bytes, request: Dict[str, Any]) -> bytes:
    """Rename a version into staging beside it and return that, b"" when it has gone. Raises Refusal, OSError."""
    before = os.lstat(dst) if os.path.lexists(dst) else None
    receipt = place.refuse_strangers(dst, replace=False)
    if before is None or receipt is None:
        return b""
    expected = request["version"]
    if any(receipt.get(name) != value for name, value in expected.items()):
        message = "'{}' is another version than the one that was looked at: run {}".format(
            shown(dst), str(receipt.get("run", ""))[:80]
        )
        raise Refusal("destination-not-ours", message, "look again")
    staging = place.beside(dst, b".ezpz-" + request["run"].encode())
    folder = os.open(os.path.dirname(dst), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        name, aside = os.path.basename(dst), os.path.basename(staging)
        os.mkdir(aside, 0o700, dir_fd=folder)
        os.close(tree.open_directory(name, folder))  # a folder that is moved elsewhere must be writable itself
        inside = os.path.join(aside, estate.GONE)
        os.rename(name, inside, src_dir_fd=folder, dst_dir_fd=folder)
        if not os.path.samestat(before, os.stat(inside, dir_fd=folder, follow_symlinks=False)):
            os.rename(inside, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.rmdir(aside, dir_fd=folder)
            raise Refusal("destination-not-ours", "'{}' was changed meanwhile".format(shown(dst)), "look at it")
    finally:
        os.close(folder)
    return staging
