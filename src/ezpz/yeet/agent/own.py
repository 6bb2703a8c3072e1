"""Own: what proves that a file, or a tree, is ours."""

import json
import os
import stat
from typing import Any, Dict, Optional, Tuple

from .tree import RECEIPT

FORMAT = "ezpz/receipt/1"
LIMIT = 1 << 20  # bytes of a receipt


def read_receipt(dst: bytes, at: Optional[bytes] = None) -> Optional[Dict[str, Any]]:
    """The receipt of the tree at `at` (by default `dst`), or None when nothing proves that it is ours and for `dst`.

    It proves that when it is a regular file of this user, in our format, and names this very place.
    """
    found = read(os.path.join(dst if at is None else at, RECEIPT), LIMIT)
    receipt = None if found is None else receipt_in(found[0])
    return receipt if receipt is not None and _is_for(receipt, dst) else None


def receipt_in(said: bytes) -> Optional[Dict[str, Any]]:
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


def read(path: bytes, limit: int) -> Optional[Tuple[bytes, os.stat_result]]:
    """What a regular file of this user holds, up to `limit` bytes, and its fstat; None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        return os.read(fd, limit), status
    except OSError:
        return None
    finally:
        os.close(fd)
