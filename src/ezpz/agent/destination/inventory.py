"""Estate: what of ours is on this host: versions by their receipts, staging and locks by their names; and their state.

Nothing is changed here. What somebody else may have put there is looked at, never followed.
"""

import json
import os
import pwd
import re
import stat
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ezpz.agent.common import filesystem, layout, manifest, mounts, tree
from ezpz.agent.common.receipt import read_own_file, read_receipt
from ezpz.agent.common.text import printable_path
from ezpz.agent.destination import installed

STAGING = re.compile(rb"\.(.+)\.ezpz-(\d{8}-\d{6}-[0-9a-f]{8})", re.DOTALL)
LOCK = re.compile(rb"\.(.+)\.ezpz-lock", re.DOTALL)
TREE = b"tree"  # in staging: the version that is being written
OLD = b"old"  # in staging: the version that stood there before, where the kernel cannot exchange two names
GONE = b"gone"  # in staging: a version that is being removed
VARIABLES = (
    "TMPDIR", "SLURM_TMPDIR", "PBS_JOBFS", "JOBFS", "PBS_TMPDIR", "LOCAL_SCRATCH", "LOCALSCRATCH", "LOCAL_TMPDIR",
)  # fmt: skip
FOLDERS = (
    b"/tmp", b"/var/tmp", b"/dev/shm", b"/local", b"/local/scratch", b"/scratch", b"/scratch/local", b"/localscratch",
)  # fmt: skip
ENTRIES = 20000  # of one folder; in one that has more, those beyond are not looked at
LISTED = 100  # paths that differ
LOCK_LIMIT = 4096  # bytes

Going = Callable[[], None]


def usual_places(told: Iterable[str]) -> List[bytes]:
    """Where versions are looked for when no destination is named: resolved, each once, those that are here.

    told: folders that the launching host knows of, such as its own TMPDIR. One on a shared filesystem is left out.
    """
    wanted = [os.fsencode(path) for path in told] + [os.environb.get(name.encode(), b"") for name in VARIABLES]
    wanted.extend(FOLDERS)
    with suppress(KeyError):
        me = os.fsencode(pwd.getpwuid(os.geteuid()).pw_name)
        wanted.extend(os.path.join(folder, me) for folder in FOLDERS)
    found: "Dict[bytes, None]" = {}
    for path in wanted:
        if os.path.isabs(path) and b"\0" not in path and os.path.isdir(path):
            real = os.path.realpath(path)
            with suppress(OSError):
                if real not in found and filesystem.is_node_local(filesystem.filesystem(real)):
                    found[real] = None
    return list(found)


def destinations_in(folder: bytes, going_on: Going) -> List[bytes]:
    """The destinations in a folder of which something of ours is there: a version, staging, or a lock."""
    named: "Dict[bytes, bytes]" = {}  # by what their staging is named after, which of a long name is not the name
    staged: "Set[bytes]" = set()
    for name, status in _own(folder):
        going_on()
        is_folder = stat.S_ISDIR(status.st_mode)
        staging, lock = STAGING.fullmatch(name), LOCK.fullmatch(name)
        if is_folder and staging is not None:
            staged.add(staging.group(1))
        elif not is_folder and lock is not None:
            named[_stem(os.path.join(folder, lock.group(1)))] = lock.group(1)
        elif is_folder and read_receipt(os.path.join(folder, name)) is not None:
            named[_stem(os.path.join(folder, name))] = name
    found = {*named.values(), *(named.get(stem, stem) for stem in staged)}
    return sorted(os.path.join(folder, name) for name in found)


def _stem(dst: bytes) -> bytes:
    """What the staging of a destination is named after: its name, or what stands for one that is too long."""
    match = STAGING.fullmatch(os.path.basename(filesystem.beside(dst, b".ezpz-00000000-000000-00000000")))
    return match.group(1) if match is not None else b""


def _own(folder: bytes) -> "Iterator[Tuple[bytes, os.stat_result]]":
    """What in a folder belongs to this user, with its lstat; nothing of a folder that cannot be read."""
    with suppress(OSError):
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= ENTRIES:
                    return
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid():
                        yield entry.name, status


def survey(request: Dict[str, Any], going_on: Going) -> Dict[str, Any]:
    """The state of what is here: at each of the destinations that are wanted, or at all under the usual places.

    request: wanted (paths; none for all), places (see `usual_places`), contents (read every file), quick (do not look
    at what stands), weigh. Returns found, a list of what `judge` says, each with its place as given; and seconds.
    """
    began = time.monotonic()
    if request["wanted"]:
        given = [os.fsencode(path) for path in request["wanted"]]
    else:
        folders = usual_places(request["places"])
        given = [path for folder in folders for path in destinations_in(folder, going_on)]
    now = time.time()
    found = []
    for path in given:
        resolved = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        found.append(dict(classify(resolved, request, now, going_on), place=os.fsdecode(path)))
    return {"found": found, "seconds": time.monotonic() - began}


def classify(dst: bytes, request: Dict[str, Any], now: float, going_on: Going) -> Dict[str, Any]:
    """What stands at one destination, its folder resolved, and what is beside it.

    Returns state ("whole", "modified", "partial", "foreign" or "absent"), why (in words, "" for what needs none),
    receipt, differences (of a modified one; see `_listed`), contents (whether they were compared), barred (see
    `_barred`), lock (who holds it, None for nobody), staging (a list; see `_staging_of`) and, with `weigh`, disk, the
    bytes it takes.
    """
    going_on()
    lock = lock_holder(filesystem.beside(dst, b".ezpz-lock"))
    staging = _staging_of(dst, lock, now, going_on)
    found: "Dict[str, Any]" = {
        "state": "absent", "why": "", "receipt": None, "differences": None, "contents": False, "lock": lock,
        "staging": staging, "disk": 0, "barred": _barred(dst),
    }  # fmt: skip
    if not os.path.lexists(dst):
        return dict(found, state="absent" if all(each["spent"] for each in staging) else "partial")
    receipt = read_receipt(dst) if _is_our_folder(dst) else None
    if receipt is None:
        return dict(found, state="foreign", why=_why_foreign(dst))
    found["receipt"] = receipt
    if request.get("weigh"):
        found["disk"] = disk_usage(dst, going_on)["disk"] + os.lstat(dst).st_blocks * 512
    if request.get("quick"):
        return dict(found, state="whole")
    if found["barred"]:  # what is mounted in it may be large, and on a server that hangs
        return dict(found, state="modified", why=found["barred"]["message"])
    try:
        return dict(found, **_compared(dst, receipt, request, going_on))
    except OSError as e:
        return dict(found, state="modified", why="it cannot be read: {}".format(e.strerror or e))


def _barred(path: bytes) -> Optional[Dict[str, str]]:
    """What forbids to remove a tree: something is mounted in it; None for nothing."""
    refusal = filesystem.refusal_of_mounts(path)
    return None if refusal is None else refusal.as_dict()


def _is_our_folder(path: bytes) -> bool:
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


def _compared(dst: bytes, receipt: Dict[str, Any], request: Dict[str, Any], going_on: Going) -> Dict[str, Any]:
    """Whether a version is as it was published: by its manifest, else (one of an older ezpz) by its receipt."""
    contents = bool(request.get("contents"))
    if receipt.get("contents"):
        try:
            differences = installed.differences(dst, receipt, going_on, contents=contents)
        except manifest.Unreadable as e:
            why = str(e)
        else:
            if not any(differences):
                return {"state": "whole", "contents": contents}
            return {"state": "modified", "contents": contents, "differences": _listed(differences)}
    else:
        why = ""
    found = tree.summarize(dst, going_on)
    facts = (("files", found.files), ("bytes", found.bytes), ("version", found.version))
    unlike = [(name, have) for name, have in facts if have != receipt.get(name)]
    if unlike and not why:
        name, have = unlike[0]
        numbers = "" if name == "version" else ": {:,} instead of {:,}".format(have, receipt[name])
        why = {"version": "times, permissions or names", "bytes": "its size", "files": "the number of its files"}[name]
        why += (" differ" if name == "version" else " differs") + numbers
    return {"state": "modified" if unlike or why else "whole", "why": why}


def _listed(differences: manifest.Differences) -> Dict[str, Any]:
    """How many paths differ in each way, and the first of them."""
    room = LISTED
    found: "Dict[str, Any]" = {}
    for kind, paths in zip(differences._fields, differences):
        found[kind] = len(paths)
        found[kind + "_paths"] = [os.fsdecode(path) for path in sorted(paths)[:room]]
        room -= len(found[kind + "_paths"])
    return found


def _staging_of(dst: bytes, lock: Optional[Dict[str, Any]], now: float, going_on: Going) -> List[Dict[str, Any]]:
    """The staging of runs to a destination, ours by name, kind and owner.

    Of each: path, run, files, bytes, disk, age (seconds since something in it last changed), live (whether the run
    that holds the lock is the one that writes it), spent (nothing is written there: what it holds was to be removed),
    barred (see `_barred`) and rescue (it holds the version that stood there before).
    """
    folder = os.path.dirname(dst)
    mine = _stem(dst)
    found = []
    for name, status in _own(folder):
        going_on()
        match = STAGING.fullmatch(name)
        if match is None or match.group(1) != mine or not stat.S_ISDIR(status.st_mode):
            continue
        path = os.path.join(folder, name)
        weight = disk_usage(path, going_on)
        run = match.group(2).decode()
        found.append(
            {
                "path": os.fsdecode(path),
                "run": run,
                "files": weight["files"],
                "bytes": weight["bytes"],
                "disk": weight["disk"],
                "age": max(0, int(now - weight["changed"])),
                "live": lock is not None and lock.get("run") == run,
                "spent": spent(path),
                "barred": _barred(path),
                "rescue": not os.path.lexists(dst) and read_receipt(dst, at=os.path.join(path, OLD)) is not None,
            }
        )
    return found


def spent(staging: bytes) -> bool:
    """Whether nothing is being written in a staging directory; False for one that cannot be read."""
    try:
        return set(os.listdir(staging)) <= {GONE}
    except OSError:
        return False


def disk_usage(root: bytes, going_on: Going) -> Dict[str, int]:
    """What a tree holds: files, bytes (their sizes), disk (what would be free without it) and changed (seconds since
    1970: when anything in it last was). What cannot be read, and what is mounted in it, is not counted.

    A file with further names elsewhere frees nothing.
    """
    files = size = disk = 0
    changed = os.lstat(root).st_ctime
    names: "Dict[Tuple[int, int], List[int]]" = {}
    mounted = {mount.point for mount in mounts.within(root)}
    pending = [root]
    while pending:
        folder = pending.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                going_on()
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
                    if status.st_nlink == 1:
                        disk += status.st_blocks * 512
                    else:
                        names.setdefault((status.st_dev, status.st_ino), []).append(status.st_nlink)
                        if len(names[status.st_dev, status.st_ino]) == status.st_nlink:
                            disk += status.st_blocks * 512
    return {"files": files, "bytes": size, "disk": disk, "changed": int(changed)}


def lock_holder(path: bytes) -> Optional[Dict[str, Any]]:
    """Who holds a lock, as its file tells: run, user, host, pid, since; None when nobody does.

    The lock is not touched: to take it, even for a moment, would turn away a run that begins right then.
    """
    found = read_own_file(path, LOCK_LIMIT)
    if found is None:
        return None
    content, status = found
    try:
        told = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        told = {}
    told = told if isinstance(told, dict) else {}
    pid = told.get("pid") if type(told.get("pid")) is int else 0
    if not _is_locked(status, int(pid or 0)):
        return None
    sound = {name: str(told.get(name, ""))[:80] for name in ("run", "user", "host")}
    since = told.get("since")
    return dict(sound, pid=pid, since=since if type(since) is int else 0)


def _is_locked(status: os.stat_result, pid: int) -> bool:
    """Whether somebody has locked this file with flock(2), as /proc/locks tells.

    On filesystems whose device numbers are not those of their files (btrfs, overlayfs) the process decides.
    """
    try:
        with open("/proc/locks", "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return pid > 1 and os.path.isdir("/proc/{}".format(pid))
    for line in lines:
        if b"FLOCK" not in line or line[1] == b"->":
            continue
        who, where = line[-4], line[-3].split(b":")
        if int(where[2]) != status.st_ino:
            continue
        device = (int(where[0], 16), int(where[1], 16))
        if device == (os.major(status.st_dev), os.minor(status.st_dev)) or int(who) == pid:
            return True
    return False
