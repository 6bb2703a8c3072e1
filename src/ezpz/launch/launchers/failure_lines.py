"""Patterns of the output lines that report a failed rank or a lost node.

Each launcher lists its own patterns in its own file. The groups of a pattern name what the line tells: `node`, `nodes`
(a nodeset), `rank`, `ranks` (as "0-3,7"), `index` (of the node among those of the run), `status`, `signal`. In the
patterns of a site the node is called `host`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NODE, FAULT, SIGNAL, EXIT, TIME, WHERE = "node", "fault", "signal", "exit", "time", "where"
NODE_GROUP = r"(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]*)"


@dataclass(frozen=True, slots=True)
class FailurePattern:
    """A pattern for one kind of line.

    Attributes:
        kind: NODE: a node is lost or unreachable. FAULT: hardware or a filesystem of the node failed, as a rank on it
            reports. SIGNAL, EXIT: how a rank ended. TIME: the time of the job is over. WHERE: which rank or node the
            next line of kind SIGNAL or EXIT is about.
        hint: Text that every matching line contains. It is searched first, because that is cheap.
        pattern: A regular expression; "" matches every line that contains `hint`.
        signal: The number of the signal, where the line has only its name.
        cause: The cause in words, where the line does not have it.
    """

    kind: str
    hint: str
    pattern: str = ""
    signal: int | None = None
    cause: str = ""

    @property
    def regex(self) -> str:
        """The regular expression, also if only the hint is given."""
        return self.pattern or re.escape(self.hint)


SSH_FAILURES = (
    FailurePattern(NODE, "ssh: connect to host", rf"ssh: connect to host {NODE_GROUP} port \d+:"),
    FailurePattern(NODE, "ssh: Could not resolve", rf"ssh: Could not resolve hostname {NODE_GROUP}:"),
    FailurePattern(NODE, "closed by remote host", rf"Connection to {NODE_GROUP} closed by remote host"),
    FailurePattern(NODE, "Connection closed by", rf"Connection closed by {NODE_GROUP} port \d+"),
    FailurePattern(NODE, "Connection reset by", rf"Connection reset by {NODE_GROUP} port \d+"),
    FailurePattern(NODE, "Timeout, server", rf"Timeout, server {NODE_GROUP} not responding"),
)
"""Lines of ssh, for the launchers that use it to reach nodes."""
LOST_NODE_PATTERN = (
    r"(?:Remote daemon: +\[\S+\] on node |Connection to (?=\S+ closed by remote host))(?P<lost>[A-Za-z0-9_.-]+)"
)
"""What such a launcher prints when a node is lost while the command runs. Its own status may be 0 then."""
