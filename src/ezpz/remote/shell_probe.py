"""Glance: what stands at a destination, as a node's shell sees it before any agent is started there.

It sees enough to know that nothing has to be done: our receipt, in a place that nobody else can change, of a tree that
is as it was published. Whatever else there is, an agent finds out.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from ezpz.agent.common import filesystem, find_digest
from ezpz.agent.common.layout import FAILED_NODES, RECEIPT
from ezpz.agent.common.receipt import parse_receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

SEEN = b"EZPZ-SEEN"
ANSWER = 3  # lines: SEEN, the permissions of the top and the digest of the listing; the real path; the receipt
QUESTION = """\
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
    """A line of shell that answers with `ANSWER` lines, then waits for a line; when its stdin ends instead, so does it.

    Empty for no destination, and for one that no line can hold.
    """
    if not destination or "\n" in destination:
        return b""
    staging = os.fsdecode(filesystem.beside(os.fsencode(destination), b".ezpz-"))
    text = QUESTION.format(
        dst=shlex.quote(destination),
        receipt=os.fsdecode(RECEIPT),
        failed=os.fsdecode(FAILED_NODES),
        staging=shlex.quote(staging) + "[0-9]",
        listing=find_digest.COMMAND,
        seen=SEEN.decode(),
    )
    return os.fsencode(text.replace("\n", " "))


def parse_probe(answer: Sequence[bytes]) -> dict[str, Any] | None:
    """The receipt of an untouched version of ours, from the lines of an answer; None when none is proven."""
    first, path, text = (line.rstrip(b"\n") for line in answer)
    receipt = parse_receipt(text)
    if receipt is None or not receipt.get("listing") or not receipt.get("contents"):
        return None
    whole = first == b" ".join((SEEN, str(receipt.get("mode")).encode(), str(receipt["listing"]).encode()))
    return receipt if whole and os.fsencode(str(receipt.get("destination"))) == path else None
