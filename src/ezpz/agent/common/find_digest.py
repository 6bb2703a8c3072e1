"""One digest of what `find` says of a tree, by which a version is known to be as it was published.

A shell takes it, so that a node can be checked before a Python is started there. The order of the names is that of the
filesystem, which stays while nothing is added. So a digest that differs proves nothing, and an equal one everything.
"""

import os
import re

from .cancel import CancelToken
from .layout import FAILED_NODES, RECEIPT

TIMEOUT = 20  # seconds, after which comparing with the manifest is quicker
POLL_INTERVAL = 0.1  # seconds
OWN = " -o ".join("-path ./" + os.fsdecode(name) for name in (RECEIPT, FAILED_NODES))  # the manifest counts
COMMAND = (
    "{ LC_ALL=C timeout " + str(TIMEOUT) + " find . -mindepth 1"
    ' -name ".ezpz-yeet-*" \\( ' + OWN + " \\)"
    ' -o -type d -printf "d%m %p\\0"'
    ' -o -type l -printf "l%p\\0%l\\0"'
    ' -o -type f -perm -100 -not -executable -printf "x%p\\0"'  # mounted noexec since
    ' -o -type f -printf "f%m %s %T@ %p\\0"'
    ' -o -printf "%y%p\\0"'
    " || head -c 16 /dev/urandom; } 2>/dev/null | sha256sum"
)
"""The command of a shell in the top of the tree: GNU find prints every entry, or something random if it fails."""
DIGEST = re.compile(rb"([0-9a-f]{64})  -\n")


def digest(root: bytes, cancel: CancelToken) -> str:
    """Return the digest of a tree, "" if it cannot be taken; `cancel` is checked often."""
    import subprocess  # it takes longer to import than everything else of an agent that never needs it

    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", COMMAND],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            start_new_session=True,
        )
    except OSError:
        return ""
    said = b""
    try:
        while not said:
            cancel.raise_if_cancelled()
            try:
                said = process.communicate(timeout=POLL_INTERVAL)[0] or b"\n"
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            from .processes import end_group

            end_group(process)
    found = DIGEST.fullmatch(said)
    return found.group(1).decode() if found else ""
