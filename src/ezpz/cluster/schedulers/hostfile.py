"""Detectors of hosts that the user lists: --hosts, --hostfile, and HOSTFILE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import expand, is_address
from ezpz.cluster.schedulers.base import READ_LIMIT, Answer, DetectionContext, NodeDetector, NodesFound, NotFound
from ezpz.errors import BadHostName, HostfileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ezpz.cluster.allocation import Allocation

_SLOTS = re.compile(r"([^:]+):\d+", re.ASCII)
_ATTRIBUTE = re.compile(r"[A-Za-z_-]+=\S*", re.ASCII)


def read_hostfile(path: str, read: Callable[[str], bytes]) -> tuple[str, ...]:
    """Return the hosts in a file, in order, each once. Raises HostfileError and BadHostName, with file and line."""
    try:
        content = read(path)
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        reason = e.strerror if isinstance(e, OSError) else e
        raise HostfileError(f"the hostfile {path!r} cannot be read: {reason}", hint="check the path") from e
    if len(content) >= READ_LIMIT:
        raise HostfileError(f"the hostfile {path!r} is larger than {READ_LIMIT >> 20} MiB; is it a hostfile?")
    names = parse(content.decode("utf-8-sig", errors="backslashreplace"), path if path.isprintable() else repr(path))
    if not names:
        raise HostfileError(f"the hostfile {path!r} names no host", hint="write one host a line")
    return names


def parse(text: str, path: str) -> tuple[str, ...]:
    """Return the hosts in the text of a hostfile, one per line, as Open MPI, MPICH, PBS and ClusterShell write them.

    `#` starts a comment. `host slots=4` and `host:4` are hosts too. A nodeset means its hosts. A line that repeats (PBS
    writes one for each rank slot) counts once.
    """
    names: dict[str, None] = {}
    seen: set[str] = set()
    for number, written in enumerate(text.split("\n"), 1):
        line = written.partition("#")[0].strip(" \t\r")
        if line and line not in seen:
            seen.add(line)
            names.update(dict.fromkeys(_parse_line(line, f"{path}:{number}")))
    return tuple(names)


def _parse_line(line: str, where: str) -> tuple[str, ...]:
    host, *attributes = re.split(r"[ \t]+", line)
    if not all(_ATTRIBUTE.fullmatch(attribute) for attribute in attributes):
        raise BadHostName(f"{where}: the host name {line!r} holds white space", hint="write one host a line")
    slots = None if is_address(host) else _SLOTS.fullmatch(host)
    try:
        return expand(slots.group(1) if slots else host, where)
    except UsageError as e:
        raise HostfileError(e.message, hint=e.hint) from e


def is_named(allocation: Allocation) -> bool:
    """Return whether the user named the nodes, and not a scheduler."""
    return allocation.scheduler in ("hosts", "hostfile")


def from_hosts(context: DetectionContext) -> Answer:
    """Find the nodes in --hosts, a nodeset on the command line."""
    if context.hosts is None:
        return NotFound("not given")
    names = expand(context.hosts, "--hosts")
    return NodesFound("hosts", None, names, "the command line names them")


def from_option(context: DetectionContext) -> Answer:
    """Find the nodes in --hostfile, a file on the command line."""
    if context.hostfile is None:
        return NotFound("not given")
    return NodesFound("hostfile", None, read_hostfile(context.hostfile, context.system.read), context.hostfile)


def from_variable(context: DetectionContext) -> Answer:
    """Find the nodes in HOSTFILE, a file in the environment. If it cannot be read, that is an error."""
    _, path = context.variable("HOSTFILE")
    if not path:
        return NotFound("not set")
    return NodesFound("hostfile", None, read_hostfile(path, context.system.read), path)


STEPS = (
    NodeDetector(10, "--hosts", from_hosts),
    NodeDetector(20, "--hostfile", from_option),
    NodeDetector(40, "HOSTFILE", from_variable),
)
