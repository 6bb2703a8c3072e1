"""No scheduler: this host alone, with one warning line."""

from __future__ import annotations

from ezpz.cluster.schedulers.base import Answer, DetectionContext, NodeDetector, NodesFound


def this_host(inquiry: DetectionContext) -> Answer:
    """This host alone; the warning says what else was noticed on the way."""
    name = inquiry.system.hostname() or "localhost"
    noted = f" ({'; '.join(inquiry.noted)})" if inquiry.noted else ""
    warning = f"no job and no --hosts or --hostfile: using this host alone, {name}{noted}"
    return NodesFound("localhost", None, (name,), "nothing else named any node", (warning,))


STEPS = (NodeDetector(1000, "this host", this_host),)
