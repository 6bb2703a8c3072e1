"""What ezpz created on this host, and its state: versions by their receipts, staging and locks by their names.

Nothing is changed here. What another user may have put there is looked at, never followed.
"""

import os
import stat
import time
from contextlib import suppress
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..common import filesystem, layout, manifest, mounts, tree_version
from ..common.cancel import CancelToken
from ..common.messages.envelope import Failing
from ..common.messages.queries import (
    ChangedPaths,
    CopyOnNode,
    InventoryAnswer,
    InventoryRequest,
    LockHolder,
    StagingState,
)
from ..common.messages.receipt import Receipt
from ..common.receipt import read_receipt
from ..common.text import printable_path
from . import installed
from .lock_holder import lock_holder
from .places import STAGING, destinations_in, own_entries, stem_of, usual_places

MAX_LISTED = 100  # paths that differ

DiskUsage = NamedTuple("DiskUsage", [("files", int), ("bytes", int), ("disk", int), ("changed", int)])
"""bytes: sum of sizes; disk: bytes that would be free without it; changed: seconds since 1970 of the last change."""


def survey(request: InventoryRequest, cancel: CancelToken) -> InventoryAnswer:
    """Return the state of every destination that is wanted, or of all in the usual places."""
    began = time.monotonic()
    if request.wanted:
        given = [os.fsencode(path) for path in request.wanted]
    else:
        directories = usual_places(request.places)
        given = [path for directory in directories for path in destinations_in(directory, cancel)]
    now = time.time()
    found = [classify(path, request, now, cancel) for path in given]
    return InventoryAnswer(found=found, seconds=time.monotonic() - began)


def classify(place: bytes, request: InventoryRequest, now: float, cancel: CancelToken) -> CopyOnNode:
    """Return the state of one destination, and of what is next to it."""
    cancel.raise_if_cancelled()
    dst = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
    lock = lock_holder(filesystem.beside(dst, b".ezpz-lock"))
    staging = _staging_of(dst, lock, now, cancel)
    facts: "Dict[str, Any]" = {
        "place": os.fsdecode(place), "state": "absent", "why": "", "receipt": None, "differences": None,
        "contents": False, "lock": lock, "staging": staging, "disk": 0, "barred": _barred(dst),
    }  # fmt: skip
    if os.path.lexists(dst):
        facts.update(_state_of(dst, request, facts["barred"], cancel))
    elif not all(each.spent for each in staging):
        facts["state"] = "partial"
    return CopyOnNode(**facts)


def _state_of(
    dst: bytes, request: InventoryRequest, barred: Optional[Failing], cancel: CancelToken
) -> "Dict[str, Any]":
    """Return the state of what is at a destination, with the fields of a CopyOnNode that it decides."""
    receipt = read_receipt(dst) if _is_own_directory(dst) else None
    if receipt is None:
        return {"state": "foreign", "why": _why_foreign(dst)}
    facts: "Dict[str, Any]" = {"receipt": receipt}
    if request.weigh:
        facts["disk"] = disk_usage(dst, cancel).disk + os.lstat(dst).st_blocks * 512
    if request.quick:
        return dict(facts, state="whole")
    if barred is not None:  # what is mounted in it may be large, and on a server that hangs
        return dict(facts, state="modified", why=barred.message)
    try:
        return dict(facts, **_compare(dst, receipt, request, cancel))
    except OSError as e:
        return dict(facts, state="modified", why="it cannot be read: {}".format(e.strerror or e))


def _barred(path: bytes) -> Optional[Failing]:
    """Return why a tree must not be removed: something is mounted in it; None otherwise."""
    refusal = filesystem.refusal_of_mounts(path)
    return None if refusal is None else Failing(**refusal.as_dict())


def _is_own_directory(path: bytes) -> bool:
    status = os.lstat(path)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _why_foreign(dst: bytes) -> str:
    status = os.lstat(dst)
    if stat.S_ISLNK(status.st_mode):
        return "it is a link to '{}'".format(printable_path(os.readlink(dst)))
    if status.st_uid != os.geteuid():
        return "it belongs to {}".format(filesystem.user_name(status.st_uid))
    if not stat.S_ISDIR(status.st_mode):
        return "it is no directory"
    if os.path.lexists(os.path.join(dst, layout.RECEIPT)):
        return "its receipt is not of this place, or not yours"
    return "it has no receipt of a yeet"


def _compare(dst: bytes, receipt: Receipt, request: InventoryRequest, cancel: CancelToken) -> "Dict[str, Any]":
    """Compare a version with its manifest, or if it has none (an older ezpz made it), with its receipt."""
    why = ""
    if receipt.contents:
        try:
            differences = installed.find_differences(dst, receipt, cancel, contents=request.contents)
        except manifest.Unreadable as e:
            why = str(e)
        else:
            if not any(differences):
                return {"state": "whole", "contents": request.contents}
            return {"state": "modified", "contents": request.contents, "differences": _listed(differences)}
    found = tree_version.summarize(dst, cancel)
    unlike = [name for name in ("files", "bytes", "version") if getattr(found, name) != getattr(receipt, name)]
    if unlike and not why:
        name = unlike[0]
        counts = (getattr(found, name), getattr(receipt, name))
        numbers = "" if name == "version" else ": {:,} instead of {:,}".format(*counts)
        why = {"version": "times, permissions or names", "bytes": "its size", "files": "the number of its files"}[name]
        why += (" differ" if name == "version" else " differs") + numbers
    return {"state": "modified" if unlike or why else "whole", "why": why}


def _listed(differences: manifest.Differences) -> ChangedPaths:
    """Return how many paths differ in each way, and the first of them."""
    room = MAX_LISTED
    found: "Dict[str, Any]" = {}
    for kind, paths in zip(differences._fields, differences):
        found[kind] = len(paths)
        found[kind + "_paths"] = [os.fsdecode(path) for path in sorted(paths)[:room]]
        room -= len(found[kind + "_paths"])
    return ChangedPaths(**found)


def _staging_of(dst: bytes, lock: Optional[LockHolder], now: float, cancel: CancelToken) -> List[StagingState]:
    """Return the staging directories of a destination, which are this user's by name, kind, and owner."""
    directory = os.path.dirname(dst)
    stem = stem_of(dst)
    found = []
    for name, status in own_entries(directory):
        cancel.raise_if_cancelled()
        match = STAGING.fullmatch(name)
        if match is None or match.group(1) != stem or not stat.S_ISDIR(status.st_mode):
            continue
        path = os.path.join(directory, name)
        usage = disk_usage(path, cancel)
        run = match.group(2).decode()
        old = os.path.join(path, layout.OLD)
        found.append(
            StagingState(
                path=os.fsdecode(path),
                run=run,
                files=usage.files,
                bytes=usage.bytes,
                disk=usage.disk,
                age=max(0, int(now - usage.changed)),
                live=lock is not None and lock.run == run,
                spent=is_spent(path),
                barred=_barred(path),
                rescue=not os.path.lexists(dst) and read_receipt(dst, at=old) is not None,
            )
        )
    return found


def is_spent(staging: bytes) -> bool:
    """Return whether a staging directory holds only what was to be removed; False if it cannot be read."""
    try:
        return set(os.listdir(staging)) <= {layout.GONE}
    except OSError:
        return False


def disk_usage(root: bytes, cancel: CancelToken) -> DiskUsage:
    """Return what a tree holds. What cannot be read, and what is mounted in it, is not counted.

    A file with hard links outside the tree frees nothing.
    """
    files = size = disk = 0
    changed = os.lstat(root).st_ctime
    links: "Dict[Tuple[int, int], int]" = {}
    mounted = {mount.point for mount in mounts.within(root)}
    pending = [root]
    while pending:
        directory = pending.pop()
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                cancel.raise_if_cancelled()
                if entry.path in mounted:
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    changed = max(changed, status.st_ctime)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
                        disk += status.st_blocks * 512
                        continue
                    files += 1
                    size += status.st_size if stat.S_ISREG(status.st_mode) else 0
                    count, inode = 1, (status.st_dev, status.st_ino)
                    if status.st_nlink > 1:
                        links[inode] = count = links.get(inode, 0) + 1
                    disk += status.st_blocks * 512 if count == status.st_nlink else 0
    return DiskUsage(files, size, disk, int(changed))
