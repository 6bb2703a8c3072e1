"""The receipt of a version, and other files of this user: what proves that ezpz created a tree."""

import binascii
import errno
import json
import os
import stat
from typing import Optional, Tuple

from .layout import RECEIPT
from .messages.receipt import FORMAT, Receipt

LIMIT = 1 << 20  # bytes of a receipt


def read_receipt(dst: bytes, at: Optional[bytes] = None) -> Optional[Receipt]:
    """Return the receipt of the tree at `at` (by default `dst`), None if nothing proves that it was created for `dst`.

    The proof is a regular file of this user in a directory of this user, in the format of a receipt, that names `dst`.
    """
    try:
        fd = open_in_own(dst if at is None else at, RECEIPT)
    except OSError:
        return None
    found = _read(fd, LIMIT)
    receipt = None if found is None else parse_receipt(found[0])
    return receipt if receipt is not None and _is_for(receipt, dst) else None


def parse_receipt(content: bytes) -> Optional[Receipt]:
    """Return the receipt in a file, None if it is none; an older or newer ezpz may have written it."""
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return Receipt.from_file(found) if isinstance(found, dict) and found.get("format") == FORMAT else None


def _is_for(receipt: Receipt, dst: bytes) -> bool:
    """Return whether a receipt names this destination."""
    try:
        return os.path.realpath(os.fsencode(receipt.destination)) == os.path.realpath(dst)
    except (OSError, ValueError):
        return False


def open_own(path: bytes, dir_fd: Optional[int] = None, flags: int = os.O_RDONLY) -> int:
    """Open a regular file of this user that is not a link; a file that `flags` create is private.

    Raise OSError for anything else, with EPERM for a file of another user.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, "no file of this user", path)


def open_in_own(directory: bytes, name: bytes) -> int:
    """Open a regular file of this user in a directory of this user; neither may be a link. Raise OSError.

    The owner of the directory decides what is in it. Another user can put a file of this user into his directory by a
    hard link, and remove its other name by a rename.
    """
    above = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(above).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "no directory of this user", directory)
        return open_own(name, above)
    finally:
        os.close(above)


def read_own_file(path: bytes, limit: int) -> Optional[Tuple[bytes, os.stat_result]]:
    """Return up to `limit` bytes of a regular file of this user, and its fstat; None for anything else."""
    try:
        fd = open_own(path)
    except OSError:
        return None
    return _read(fd, limit)


def _read(fd: int, limit: int) -> Optional[Tuple[bytes, os.stat_result]]:
    """Return up to `limit` bytes, and the fstat, of an open file, and close it."""
    try:
        return os.read(fd, limit), os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def create(directory: bytes, prefix: bytes) -> Tuple[int, bytes]:
    """Create a file that only this user can read, with a name that cannot be predicted. Raise OSError.

    Returns:
        Its descriptor, for writing, and its path.
    """
    while True:
        path = os.path.join(directory, prefix + binascii.hexlify(os.urandom(8)))
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), path
        except FileExistsError:
            continue
