"""Where destinations are, and the names of what ezpz creates next to them."""

import os
import pwd
import re
import stat
from contextlib import suppress
from typing import Dict, Iterable, Iterator, List, Set, Tuple

from ..common import filesystem
from ..common.cancel import CancelToken
from ..common.receipt import read_receipt

STAGING = re.compile(rb"\.(.+)\.ezpz-(\d{8}-\d{6}-[0-9a-f]{8})", re.DOTALL)
LOCK = re.compile(rb"\.(.+)\.ezpz-lock", re.DOTALL)
VARIABLES = (
    "TMPDIR", "SLURM_TMPDIR", "PBS_JOBFS", "JOBFS", "PBS_TMPDIR", "LOCAL_SCRATCH", "LOCALSCRATCH", "LOCAL_TMPDIR",
)  # fmt: skip
DIRECTORIES = (
    b"/tmp", b"/var/tmp", b"/dev/shm", b"/local", b"/local/scratch", b"/scratch", b"/scratch/local", b"/localscratch",
)  # fmt: skip
MAX_ENTRIES = 20000  # of one directory; the others are not looked at


def usual_places(told: Iterable[str]) -> List[bytes]:
    """Return the directories to search when no destination is named: those that exist, resolved, each once.

    Args:
        told: directories that the launch host knows of, such as its own TMPDIR; those on a shared filesystem are
            left out
    """
    wanted = [os.fsencode(path) for path in told] + [os.environb.get(name.encode(), b"") for name in VARIABLES]
    wanted.extend(DIRECTORIES)
    with suppress(KeyError):
        me = os.fsencode(pwd.getpwuid(os.geteuid()).pw_name)
        wanted.extend(os.path.join(directory, me) for directory in DIRECTORIES)
    found: "Dict[bytes, None]" = {}
    for path in wanted:
        if os.path.isabs(path) and b"\0" not in path and os.path.isdir(path):
            real = os.path.realpath(path)
            with suppress(OSError):
                if real not in found and filesystem.is_node_local(filesystem.filesystem(real)):
                    found[real] = None
    return list(found)


def destinations_in(directory: bytes, cancel: CancelToken) -> List[bytes]:
    """Return the destinations in a directory that have a version, staging, or a lock of this user."""
    named: "Dict[bytes, bytes]" = {}  # names by their stems
    staged: "Set[bytes]" = set()
    for name, status in own_entries(directory):
        cancel.raise_if_cancelled()
        is_directory = stat.S_ISDIR(status.st_mode)
        staging, lock = STAGING.fullmatch(name), LOCK.fullmatch(name)
        if is_directory and staging is not None:
            staged.add(staging.group(1))
        elif not is_directory and lock is not None:
            named[stem_of(os.path.join(directory, lock.group(1)))] = lock.group(1)
        elif is_directory and read_receipt(os.path.join(directory, name)) is not None:
            named[stem_of(os.path.join(directory, name))] = name
    found = {*named.values(), *(named.get(stem, stem) for stem in staged)}
    return sorted(os.path.join(directory, name) for name in found)


def stem_of(dst: bytes) -> bytes:
    """Return what the staging of a destination is named after: its name, or a shorter one if that is too long."""
    match = STAGING.fullmatch(os.path.basename(filesystem.beside(dst, b".ezpz-00000000-000000-00000000")))
    return match.group(1) if match is not None else b""


def own_entries(directory: bytes) -> "Iterator[Tuple[bytes, os.stat_result]]":
    """Yield the names in a directory that belong to this user, with their lstat; none if it cannot be read."""
    with suppress(OSError):
        with os.scandir(directory) as entries:
            for number, entry in enumerate(entries):
                if number >= MAX_ENTRIES:
                    return
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid():
                        yield entry.name, status
