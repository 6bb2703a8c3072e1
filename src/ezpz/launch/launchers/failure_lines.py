"""What a line of output tells of a rank or a node that failed; the lines themselves are in the launchers' files.

Each pattern's groups say what is known: `node`, `nodes` (a nodeset), `rank`, `ranks` (as "0-3,7"), `index` (of the node
among those of the run), `status`, `signal`. A site's own patterns call the node `host`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NODE, FAULT, SIGNAL, EXIT, TIME, WHERE = "node", "fault", "signal", "exit", "time", "where"
NODE_GROUP = r"(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]*)"


@dataclass(frozen=True, slots=True)
class FailurePattern:
    """A line that tells something.

    kind: NODE: a node has gone or cannot be reached. FAULT: its hardware or filesystem failed, as a rank on it says.
    SIGNAL, EXIT: a rank ended so. TIME: the job's time is over. WHERE: the next sign of how a rank ended is about this
    rank or node
    pattern: a regular expression, which is compiled only when there is output to look at
    hint: what a line that matches surely holds; looking for it first is what makes looking at every line affordable
    ended: the number of the signal, where only words tell it
    cause: in words, where the line does not say it
    """

    kind: str
    hint: str
    pattern: str
    ended: int | None = None
    cause: str = ""


def sign(kind: str, hint: str, pattern: str = "", ended: int | None = None) -> FailurePattern:
    """Return a sign; without a pattern, a line that holds the hint."""
    return FailurePattern(kind, hint, pattern or re.escape(hint), ended)


SSH_FAILURES = (
    sign(NODE, "ssh: connect to host", rf"ssh: connect to host {NODE_GROUP} port \d+:"),
    sign(NODE, "ssh: Could not resolve", rf"ssh: Could not resolve hostname {NODE_GROUP}:"),
    sign(NODE, "closed by remote host", rf"Connection to {NODE_GROUP} closed by remote host"),
    sign(NODE, "Connection closed by", rf"Connection closed by {NODE_GROUP} port \d+"),
    sign(NODE, "Connection reset by", rf"Connection reset by {NODE_GROUP} port \d+"),
    sign(NODE, "Timeout, server", rf"Timeout, server {NODE_GROUP} not responding"),
)
"""What ssh prints, for the launchers that reach nodes by it."""
LOST_NODE_PATTERN = (
    r"(?:Remote daemon: +\[\S+\] on node |Connection to (?=\S+ closed by remote host))(?P<lost>[A-Za-z0-9_.-]+)"
)
"""What such a launcher prints of a node that is lost while the command runs; its own status may be 0 then."""
