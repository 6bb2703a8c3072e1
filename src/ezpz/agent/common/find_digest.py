"""Listing: whether a tree is as it was published, by one digest of find's view of it, without reading its manifest.

It is taken by a shell, so that a node can be asked before any python is started there. Names come in whatever order
the filesystem tells them, which stays while nothing is added: a digest that differs proves nothing, an equal one all.
"""

import os
import re

from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.layout import FAILED_NODES, RECEIPT

WITHIN = 20  # seconds, after which a manifest is the quicker way to find out what is there
TURN = 0.1  # seconds
OWN = " -o ".join("-path ./" + os.fsdecode(name) for name in (RECEIPT, FAILED_NODES))  # the manifest counts
COMMAND = (
    "{ LC_ALL=C timeout " + str(WITHIN) + " find . -mindepth 1"
    ' -name ".ezpz-yeet-*" \\( ' + OWN + " \\)"
    ' -o -type d -printf "d%m %p\\0"'
    ' -o -type l -printf "l%p\\0%l\\0"'
    ' -o -type f -perm -100 -not -executable -printf "x%p\\0"'  # mounted noexec since
    ' -o -type f -printf "f%m %s %T@ %p\\0"'
    ' -o -printf "%y%p\\0"'
    " || head -c 16 /dev/urandom; } 2>/dev/null | sha256sum"
)
"""What a shell runs in the top of the tree: GNU find's facts of every entry, or, where it fails, of nothing."""
DIGEST = re.compile(rb"([0-9a-f]{64})  -\n")


def digest(root: bytes, cancel: CancelToken) -> str:
    """The listing of a tree by one name, "" where it cannot be had. `cancel` is called often and may raise."""
    import subprocess  # takes longer than all else of an agent that is never asked for this

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
                said = process.communicate(timeout=TURN)[0] or b"\n"
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            from ezpz.agent.common.processes import end_group

            end_group(process)
    found = DIGEST.fullmatch(said)
    return found.group(1).decode() if found else ""
