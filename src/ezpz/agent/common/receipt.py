"""Own: what proves that a file, or a tree, is ours."""

import binascii
import errno
import json
import os
import stat
from typing import Any, Dict, Optional, Tuple

from ezpz.agent.common.layout import RECEIPT

FORMAT = "ezpz/receipt/1"
LIMIT = 1 << 20  # bytes of a receipt


def read_receipt(dst: bytes, at: Optional[bytes] = None) -> Optional[Dict[str, Any]]:
    """Return the receipt of the tree at `at` (by default `dst`), or None when nothing proves that it is ours and for
    `dst`.

    It proves that when it is a regular file of this user in a directory of this user, in our format, and names this
    very place.
    """
    try:
        fd = open_in_own(dst if at is None else at, RECEIPT)
    except OSError:
        return None
    found = _read(fd, LIMIT)
    receipt = None if found is None else parse_receipt(found[0])
    return receipt if receipt is not None and _is_for(receipt, dst) else None


def parse_receipt(said: bytes) -> Optional[Dict[str, Any]]:
    """What a receipt says, None for what is none."""
    try:
        receipt = json.loads(said.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        return None
    sound = {name: receipt.get(name) for name in ("files", "bytes", "created")}
    receipt.update((name, value if type(value) is int and value >= 0 else 0) for name, value in sound.items())
    return receipt


def _is_for(receipt: Dict[str, Any], dst: bytes) -> bool:
    """Whether a receipt names this very place."""
    try:
        return os.path.realpath(os.fsencode(str(receipt.get("destination", "")))) == os.path.realpath(dst)
    except (OSError, ValueError):
        return False


def open_own(path: bytes, dir_fd: Optional[int] = None, flags: int = os.O_RDONLY) -> int:
    """Open a regular file of this user that is not a link; a file that `flags` create is private.

    Raises OSError for anything else, with EPERM for a file of another user.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, "no file of this user", path)


def open_in_own(folder: bytes, name: bytes) -> int:
    """The same, for a file in a directory of this user, which is no link either.

    Whose the directory is decides what lies in it: another user can put a file of this one into his by a hard link,
    and by a rename keep no second name of it. Raises OSError.
    """
    above = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(above).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "no directory of this user", folder)
        return open_own(name, above)
    finally:
        os.close(above)


def read_own_file(path: bytes, limit: int) -> Optional[Tuple[bytes, os.stat_result]]:
    """Return what a regular file of this user holds, up to `limit` bytes, and its fstat; None for anything else."""
    try:
        fd = open_own(path)
    except OSError:
        return None
    return _read(fd, limit)


def _read(fd: int, limit: int) -> Optional[Tuple[bytes, os.stat_result]]:
    """Read up to `limit` bytes, and close."""
    try:
        return os.read(fd, limit), os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def create(folder: bytes, prefix: bytes) -> Tuple[int, bytes]:
    """Make a file for writing, readable by this user alone, under a name that nobody can foresee; its descriptor and
    path. Raises OSError.
    """
    while True:
        path = os.path.join(folder, prefix + binascii.hexlify(os.urandom(8)))
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), path
        except FileExistsError:
            continue
