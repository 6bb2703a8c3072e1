"""Detector for the case without a scheduler: this host alone, with one warning line."""

from __future__ import annotations

from ezpz.cluster.schedulers.base import Answer, DetectionContext, NodeDetector, NodesFound


def this_host(context: DetectionContext) -> Answer:
    """Find this host. The warning includes what the other detectors noted."""
    name = context.system.hostname() or "localhost"
    noted = f" ({'; '.join(context.noted)})" if context.noted else ""
    warning = f"no job and no --hosts or --hostfile: using this host alone, {name}{noted}"
    return NodesFound("localhost", None, (name,), "nothing else named any node", (warning,))


STEPS = (NodeDetector(1000, "this host", this_host),)
