"""No scheduler: this host alone, with one warning line."""

from __future__ import annotations

from ezpz.cluster.steps import Answer, Found, Inquiry, Step


def this_host(inquiry: Inquiry) -> Answer:
    """This host alone; the warning says what else was noticed on the way."""
    name = inquiry.system.hostname() or "localhost"
    noted = f" ({'; '.join(inquiry.noted)})" if inquiry.noted else ""
    warning = f"no job and no --hosts or --hostfile: using this host alone, {name}{noted}"
    return Found("localhost", None, (name,), "nothing else named any node", (warning,))


STEPS = (Step(1000, "this host", this_host),)
