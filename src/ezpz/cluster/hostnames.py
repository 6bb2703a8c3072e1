"""Forms of host names (short, FQDN, high-speed), and nodesets. Everything is pure, except `local_names`."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING

from ezpz.errors import BadHostName, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ClusterShell.NodeSet import NodeSet

MAX_NODES = 1 << 20  # more than any machine has; a typo such as n[1-9999999999] must not eat the login node's memory

_HSN_SUFFIX = re.compile(r"-hsn\d+$")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE | re.ASCII)
_FOREIGN = re.compile(r"[^a-z0-9._:%-]", re.IGNORECASE | re.ASCII)
_RANGE = re.compile(r"[\[,](\d+)-(\d+)", re.ASCII)
_PART = re.compile(r"(?:\[[^\]]*\]|[^,])+")  # between the commas that no bracket holds
_ALGEBRA = re.compile(r"[!&^]")


def short(name: str) -> str:
    """Return the canonical name of a host: lower case, no domain, no `-hsn0`. An IP address is not changed.

    On HPE Slingshot machines `x4310c3s2b0n0-hsn0`, `x4310c3s2b0n0.hsn.cm.aurora.alcf.anl.gov` and
    `x4310c3s2b0n0.hostmgmt2.cm.aurora.alcf.anl.gov` are one host with several networks.
    """
    name = name.lower()
    if is_address(name):
        return name
    return _HSN_SUFFIX.sub("", name.partition(".")[0])


def domain(name: str) -> str:
    """Return the part of a host name after the first dot, or "" (also for an IP address)."""
    return "" if is_address(name) else name.partition(".")[2].rstrip(".")


def is_address(name: str) -> bool:
    """Return whether `name` is an IPv4 or IPv6 address rather than a host name."""
    if ":" not in name and not name.replace(".", "").isdigit():
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_name(name: str, where: str) -> None:
    """Raise BadHostName unless `name` is a host name or IP address that is safe to pass to ssh, rsync and a shell.

    Args:
        name: the name
        where: where the name was read ("hostfile:3"); the message starts with it
    """
    complaint = _complaint(name)
    if complaint:
        hint = "set the user in ~/.ssh/config (`User`)" if "@" in name else "write one plain host name or IP address"
        raise BadHostName(f"{where}: the host name {name!r} {complaint}", hint=hint)


def _complaint(name: str) -> str:
    if not name:
        return "is empty"
    if name.startswith("-"):
        return "begins with '-'"
    character = next((c for c in name if not c.isprintable()), None) or next(iter(_FOREIGN.findall(name)), None)
    if character:
        kind = "white space" if character.isspace() else "" if character.isprintable() else "a control character"
        return f"holds {kind}" if kind else f"holds {character!r}"
    if not _NAME.fullmatch(name) and not is_address(name):
        return "is neither a host name nor an IP address"
    return ""


def is_me(name: str, my_names: frozenset[str]) -> bool:
    """Return whether `name` (short, FQDN, high-speed, or address) is one of `my_names` (see `local_names`)."""
    return short(name) in my_names


def local_names(hosts_file: str = "/etc/hosts") -> frozenset[str]:
    """Return the canonical names and addresses of this host: its host name, and those on the same lines of /etc/hosts.

    DNS is not queried: `getfqdn` may hang as long as the resolver does.
    """
    me = short(socket.gethostname())
    names = {me, "localhost", "127.0.0.1", "::1"}
    try:
        with open(hosts_file, encoding="utf-8", errors="replace") as lines:
            entries = [line.partition("#")[0].split() for line in lines]
    except OSError:
        entries = []
    for entry in entries:
        known = {short(name) for name in entry}
        if me in known:
            names |= known
    return frozenset(names)


def expand(nodeset: str, where: str = "--hosts") -> tuple[str, ...]:
    """Return the host names of a nodeset (`n[001-128,130],login1`), in the order written, each once.

    The syntax is that of ClusterShell, without groups: `@grp` would run commands from the site's configuration. Set
    algebra (`a[1-9]!a3`) sorts the result.

    Args:
        nodeset: the nodeset
        where: where it was read, for the messages

    Raises:
        UsageError: the syntax is wrong
        BadHostName: a name is not safe to use
    """
    nodeset = nodeset.strip(" \t")
    if "@" in nodeset:
        raise BadHostName(
            f"{where}: {nodeset!r} holds '@'", hint="node groups and user names are not taken; list the hosts"
        )
    if not nodeset.isprintable():
        check_name(nodeset, where)
    parts = [nodeset] if _ALGEBRA.search(nodeset) else _PART.findall(nodeset)
    names = tuple(dict.fromkeys(name for part in parts for name in _expand_part(part.strip(" \t"), where)))
    for name in names:
        check_name(name, where)
    if not names:
        raise UsageError(f"{where}: {nodeset!r} names no host")
    return names


def _expand_part(part: str, where: str) -> tuple[str, ...]:
    if not re.search(r"[\[\]!&^]", part):  # a plain name: ClusterShell need not be imported
        return (part,)
    for low, high in _RANGE.findall(part):
        if max(len(low), len(high)) > 18 or int(high) - int(low) > MAX_NODES:
            raise UsageError(f"{where}: the range {low}-{high} holds more than {MAX_NODES} hosts")
    from ClusterShell.NodeSet import NodeSetException

    try:
        nodes = _nodeset(part)
    except NodeSetException as e:
        raise UsageError(f"{where}: {part!r} is not a nodeset: {e}", hint="write for example n[001-128,130]") from e
    if len(nodes) > MAX_NODES:
        raise UsageError(f"{where}: {part!r} holds more than {MAX_NODES} hosts")
    return tuple(nodes)


def fold(names: Iterable[str], *, one_bracket: bool = False) -> str:
    """Return the shortest nodeset that `expand`s to these names (sorted), or "" for no names.

    Args:
        names: the names
        one_bracket: fold only the last number of each name, which every version of Slurm's `--nodelist` accepts
    """
    nodes = _nodeset()
    if one_bracket:
        nodes.fold_axis = (-1,)
    for name in names:
        nodes.add(name)
    return str(nodes)


def _nodeset(text: str | None = None) -> NodeSet:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return NodeSet(text, resolver=RESOLVER_NOGROUP)
