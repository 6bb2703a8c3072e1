"""A probe of a destination by the shell of a node, before any agent is started.

It can prove that nothing has to be done: there is a receipt of this user, in a directory that no other user can change,
of a tree that has not changed since it was published. Otherwise, an agent is needed.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from ezpz.agent.common import filesystem, find_digest
from ezpz.agent.common.layout import FAILED_NODES, RECEIPT
from ezpz.agent.common.receipt import parse_receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.agent.common.messages.receipt import Receipt

SEEN = b"EZPZ-SEEN"
ANSWER_LINES = 3  # SEEN with the mode of the top directory and the digest of the listing; the real path; the receipt
PROBE = """\
d={dst}; r=$d/{receipt}; seen() {{
[ -f "$r" ] && [ -O "$r" ] && [ -O "$d" ] && [ ! -h "$r" ] && [ ! -h "$d" ] && [ ! -e "$d/{failed}" ] || return;
for s in {staging}*; do [ ! -e "$s" ] || return; done;
p=$(cd -P -- "$d" && pwd -P) && u=$(id -u) || return; a=$p; set --;
while [ "$a" != "" ]; do a=${{a%/*}}; set -- "$@" "${{a:-/}}"; done;
[ "$(find "$@" -maxdepth 0 \\( -not -uid 0 -not -uid "$u" -o -perm -2 -not -perm -1000 \\))" = "" ] || return;
m=$(find "$p" -maxdepth 0 -printf %m) || return;
l=$(cd -- "$p" && {listing}) || return;
printf "\\n{seen} %s %s\\n%s\\n" "$m" "${{l%% *}}" "$p"; tr -d "\\n" <"$r"; echo; }};
seen || printf "\\n{seen}\\n\\n\\n"; IFS= read -r go || exit 0"""


def probe_command(destination: str) -> bytes:
    """Return a line of shell that prints `ANSWER_LINES` lines, then waits for a line. It ends if its stdin ends.

    The line is empty if there is no destination, or if the path contains a line break.
    """
    if not destination or "\n" in destination:
        return b""
    staging = os.fsdecode(filesystem.beside(os.fsencode(destination), b".ezpz-"))
    text = PROBE.format(
        dst=shlex.quote(destination),
        receipt=os.fsdecode(RECEIPT),
        failed=os.fsdecode(FAILED_NODES),
        staging=shlex.quote(staging) + "[0-9]",
        listing=find_digest.COMMAND,
        seen=SEEN.decode(),
    )
    return os.fsencode(text.replace("\n", " "))


def parse_probe(answer: Sequence[bytes]) -> Receipt | None:
    """Return the receipt of an unchanged version of this user, from the lines of an answer, or None without proof."""
    first, path, text = (line.rstrip(b"\n") for line in answer)
    receipt = parse_receipt(text)
    if receipt is None or not receipt.listing or not receipt.contents:
        return None
    whole = os.fsdecode(first) == f"{os.fsdecode(SEEN)} {receipt.mode} {receipt.listing}"
    return receipt if whole and os.fsdecode(path) == receipt.destination else None
