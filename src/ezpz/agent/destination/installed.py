"""The version in place at a destination: its receipt, its manifest, and what has changed since."""

import binascii
import os
import stat
from typing import TYPE_CHECKING, Container, List, Optional

from ..common import find_digest, layout, manifest
from ..common.cancel import CancelToken
from ..common.manifest import Differences, ManifestEntry, Unreadable
from ..common.messages.receipt import Receipt
from ..common.receipt import open_in_own, read_receipt
from ..common.wire_paths import ProtocolError, encode_path

if TYPE_CHECKING:  # an agent that is only queried needs none of them
    from ..common.messages.answers import InstalledAnswer, ManifestAnswer
    from ..common.messages.parts import StandingCopy

PIECE_SIZE = 1 << 20  # bytes of a manifest in one answer


def describe(dst: bytes) -> "Optional[StandingCopy]":
    """Return the receipt and the state (`receipt`, `foreign`) of what is at a destination, or None for nothing."""
    from ..common.messages.parts import StandingCopy

    if not os.path.lexists(dst):
        return None
    receipt = read_receipt(dst)
    return StandingCopy(state="foreign" if receipt is None else "receipt", receipt=receipt)


def mode_of(mode: int) -> str:
    """Return permissions as a receipt and `find -printf %m` spell them."""
    return "%o" % stat.S_IMODE(mode)


def read_entries(dst: bytes, receipt: Receipt) -> List[ManifestEntry]:
    """Return the entries of the manifest at a destination, given its receipt. Raise Unreadable."""
    try:
        fd = open_in_own(dst, layout.MANIFEST)
    except OSError as e:
        raise Unreadable("the manifest cannot be read: {}".format(e.strerror))
    with os.fdopen(fd, "rb") as file:
        return check_manifest(file.read(), receipt)


def check_manifest(packed: bytes, receipt: Receipt) -> List[ManifestEntry]:
    """Return the entries of a packed manifest, if it is the one that a receipt names. Raise Unreadable."""
    if manifest.manifest_digest(packed) != receipt.manifest:
        raise Unreadable("the manifest is not the one that the receipt tells of")
    return manifest.read(packed)


def find_differences(dst: bytes, receipt: Receipt, cancel: CancelToken, *, contents: bool = False) -> Differences:
    """Compare the version at `dst` with its manifest. Raise Unreadable or OSError.

    Args:
        dst: the destination
        receipt: of the version
        cancel: is checked for every entry
        contents: whether every file is read and compared as well
    """
    try:
        return manifest.compare(dst, manifest.by_name(read_entries(dst, receipt)), cancel, contents=contents)
    except ProtocolError as e:
        raise Unreadable(str(e))


def check_installed(
    dst: bytes, receipt: Optional[Receipt], cancel: CancelToken, seen: Container[str] = ()
) -> "InstalledAnswer":
    """Return what of the version in place can be used again, given its receipt. Raise OSError.

    Args:
        dst: the destination
        receipt: of the version in place, None for none
        cancel: is checked for every entry
        seen: digests of `find_digest`, one of which was taken here a moment ago
    """
    from ..common.messages.answers import InstalledAnswer

    if receipt is None:
        return InstalledAnswer()
    same_mode = receipt.mode == mode_of(os.lstat(dst).st_mode)
    listed = receipt.listing
    if listed and (listed in seen or listed == find_digest.digest(dst, cancel)):
        return InstalledAnswer(contents=receipt.contents, untouched=same_mode, receipt=receipt)
    try:
        found = find_differences(dst, receipt, cancel)
    except Unreadable:
        return InstalledAnswer(receipt=receipt)
    changed = [encode_path(path) for path in found.changed + found.missing]
    return InstalledAnswer(
        contents=receipt.contents, changed=changed, untouched=same_mode and not any(found), receipt=receipt
    )


def read_manifest(dst: bytes, offset: int) -> "ManifestAnswer":
    """Return a piece of the manifest as it is stored, in base64, "" after its end. Raise OSError."""
    from ..common.messages.answers import ManifestAnswer

    fd = open_in_own(dst, layout.MANIFEST)
    try:
        return ManifestAnswer(piece=binascii.b2a_base64(os.pread(fd, PIECE_SIZE, offset), newline=False).decode())
    finally:
        os.close(fd)
