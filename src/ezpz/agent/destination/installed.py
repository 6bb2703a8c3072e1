"""Standing: what stands at a destination: its receipt, its manifest, and what has become unlike them."""

import binascii
import os
import stat
from typing import Any, Callable, Container, Dict, List, Optional

from ezpz.agent.common import find_digest, layout, manifest
from ezpz.agent.common.manifest import Differences, Record, Unreadable
from ezpz.agent.common.receipt import open_in_own, read_receipt
from ezpz.agent.common.wire_paths import ProtocolError, encode_path

PIECE = 1 << 20  # bytes of a manifest in one answer


def describe(dst: bytes) -> Optional[Dict[str, Any]]:
    """What stands at a destination: its receipt and state ("receipt", "foreign"), or None when nothing does."""
    if not os.path.lexists(dst):
        return None
    receipt = read_receipt(dst)
    return {"state": "foreign" if receipt is None else "receipt", "receipt": receipt}


def mode_of(mode: int) -> str:
    """Return permissions as a receipt and `find -printf %m` spell them."""
    return "%o" % stat.S_IMODE(mode)


def records_of(dst: bytes, receipt: Dict[str, Any]) -> List[Record]:
    """The entries of the manifest at a destination, given its receipt. Raises Unreadable."""
    try:
        fd = open_in_own(dst, layout.MANIFEST)
    except OSError as e:
        raise Unreadable("the manifest cannot be read: {}".format(e.strerror))
    with os.fdopen(fd, "rb") as file:
        return checked(file.read(), receipt)


def checked(packed: bytes, receipt: Dict[str, Any]) -> List[Record]:
    """The entries of a packed manifest that the receipt beside it tells of. Raises Unreadable."""
    if manifest.manifest_digest(packed) != receipt.get("manifest"):
        raise Unreadable("the manifest is not the one that the receipt tells of")
    return manifest.read(packed)


def differences(
    dst: bytes, receipt: Dict[str, Any], going_on: Callable[[], None], *, contents: bool = False
) -> Differences:
    """What is unlike the manifest of the version at `dst`. Raises Unreadable, OSError.

    contents: every file is read and digested as well
    """
    try:
        return manifest.compare(dst, manifest.by_name(records_of(dst, receipt)), going_on, contents=contents)
    except ProtocolError as e:
        raise Unreadable(str(e))


def check_installed(
    dst: bytes, receipt: Optional[Dict[str, Any]], going_on: Callable[[], None], seen: Container[str] = ()
) -> Dict[str, Any]:
    """What of the version in place can be used again, given its receipt: contents ("" for nothing), changed (paths that
    cannot), untouched (whether it and the mode of its top are as they were published) and the receipt. Raises OSError.

    seen: listings of which one was taken here a moment ago
    """
    found = {"contents": "", "changed": [], "untouched": False, "receipt": receipt}
    if receipt is None:
        return found
    same_mode = receipt.get("mode") == mode_of(os.lstat(dst).st_mode)
    listed = receipt.get("listing")
    if listed and (listed in seen or listed == find_digest.digest(dst, going_on)):
        return dict(found, contents=receipt.get("contents", ""), untouched=same_mode)
    try:
        unlike = differences(dst, receipt, going_on)
    except Unreadable:
        return found
    changed = [encode_path(path) for path in unlike.changed + unlike.missing]
    return dict(found, contents=receipt["contents"], changed=changed, untouched=same_mode and not any(unlike))


def read_manifest(dst: bytes, offset: int) -> Dict[str, Any]:
    """A piece of the manifest as it lies there, in base64; an empty one behind its end. Raises OSError."""
    fd = open_in_own(dst, layout.MANIFEST)
    try:
        return {"piece": binascii.b2a_base64(os.pread(fd, PIECE, offset), newline=False).decode()}
    finally:
        os.close(fd)
