"""Standing: what stands at a destination: its receipt, its manifest, and what has become unlike them."""

import base64
import os
import stat
from typing import Any, Callable, Dict, Iterator, List, Optional

from . import manifest, place, tree
from .chunk import Malformed, text
from .manifest import Differences, Record, Unreadable

INPUTS = "inputs"  # in a receipt: what a version was made of, by one name
PIECE = 1 << 20  # bytes of a manifest in one answer


def look(dst: bytes) -> Optional[Dict[str, Any]]:
    """What stands at a destination: its receipt and state ("receipt", "foreign"), or None when nothing does."""
    if not os.path.lexists(dst):
        return None
    receipt = place.read_receipt(dst)
    return {"state": "foreign" if receipt is None else "receipt", "receipt": receipt}


def records_of(dst: bytes, contents: str) -> List[Record]:
    """The entries of the manifest at a destination, whose `contents` the receipt tells. Raises Unreadable."""
    try:
        fd = os.open(os.path.join(dst, tree.MANIFEST), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise Unreadable("the manifest cannot be read: {}".format(e.strerror))
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unreadable("the manifest is no file")
        return checked(manifest.lines(file), contents)


def checked(lines: Iterator[bytes], contents: str) -> List[Record]:
    """The entries in the lines of a manifest whose `contents` are told. Raises Unreadable."""
    total = 0

    def count() -> Iterator[bytes]:
        nonlocal total
        yield next(lines, b"")  # the header
        for line in lines:
            total += manifest.summed(line + b"\n")
            yield line

    records = list(manifest.parse(count())[1])
    if manifest.contents_of(total) != contents:
        raise Unreadable("the manifest is not the one that the receipt tells of")
    return records


def differences(
    dst: bytes, receipt: Dict[str, Any], going_on: Callable[[], None], *, contents: bool = False
) -> Differences:
    """What is unlike the manifest of the version at `dst`. Raises Unreadable, OSError.

    contents: every file is read and digested as well
    """
    try:
        facts = manifest.read_facts(records_of(dst, str(receipt.get("contents", ""))))
    except Malformed as e:
        raise Unreadable(str(e))
    return manifest.compare(dst, facts, going_on, contents=contents)


def take_stock(
    dst: bytes, receipt: Optional[Dict[str, Any]], made_of: Dict[str, Any], going_on: Callable[[], None]
) -> Dict[str, Any]:
    """What of the version in place can be used again: contents ("" for nothing), changed (paths that cannot), and
    same, whether it is exactly what a receipt that says `made_of` would bring; alike, whether it was made of the same
    source by the same rules; untouched, whether it is as it was published; and its receipt. Raises OSError.
    """
    nothing = {"contents": "", "changed": [], "same": False, "alike": False, "untouched": False, "receipt": receipt}
    if receipt is None:
        return nothing
    try:
        found = differences(dst, receipt, going_on)
    except Unreadable:
        return nothing
    alike = all(receipt.get(name) == value for name, value in made_of.items() if name != INPUTS)
    untouched = not any(found)
    return {
        "contents": receipt["contents"],
        "changed": [text(path) for path in found.changed + found.missing],
        "same": alike and untouched and receipt.get(INPUTS) == made_of.get(INPUTS),
        "alike": alike,
        "untouched": untouched,
        "receipt": receipt,
    }


def read_manifest(dst: bytes, offset: int) -> Dict[str, Any]:
    """A piece of the manifest as it lies there, in base64; an empty one behind its end. Raises OSError."""
    fd = os.open(os.path.join(dst, tree.MANIFEST), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return {"piece": base64.b64encode(os.pread(fd, PIECE, offset)).decode()}
    finally:
        os.close(fd)
