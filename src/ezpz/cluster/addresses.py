"""The address to dial for each node: on the high-speed network where the node has one that answers."""

from __future__ import annotations

import contextlib
import errno
import queue
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ezpz.cluster.hostnames import domain, fold, is_address, short
from ezpz.errors import UsageError
from ezpz.runtime.threads import BackgroundThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

AUTO, OFF = "auto", "off"
LIMIT = 2.0  # seconds for all nodes together: resolvers are slow to say that a name does not exist
THREADS = 64
SSH_PORT = 22
ANSWER_TIMEOUT = 1.0  # seconds

_CARRIES_HSN = re.compile(r"^[^.]*-hsn\d+(\.|$)|^[^.]+\.hsn\.", re.IGNORECASE)
_MANAGEMENT = re.compile(r"^hostmgmt\d*\.", re.IGNORECASE)
_SUFFIX = re.compile(r"[-.][A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)

Resolve: TypeAlias = "Callable[[str], Sequence[str]]"
Answers: TypeAlias = "Callable[[str], bool]"


@dataclass(frozen=True, slots=True)
class Address:
    """The address that is dialed for a node, the reason, and whether it is not the requested network."""

    address: str
    reason: str
    fell_back: bool = False


def resolve(name: str) -> tuple[str, ...]:
    """Return the IP addresses of a host name, () when it has none. The resolver may block for long."""
    try:
        found = socket.getaddrinfo(name, SSH_PORT, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: the name is no IDNA name
        return ()
    return tuple(str(where[0]) for *_, where in found)


def is_reachable(address: str) -> bool:
    """Return whether a host is up at this IP address: port 22 accepts, or refuses (sshd may use another port)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(ANSWER_TIMEOUT)
            return probe.connect_ex((address, SSH_PORT)) in (0, errno.ECONNREFUSED)
    except OSError:
        return False


def check_hsn(hsn: str) -> None:
    """Raise UsageError unless `hsn` is "auto", "off" or a suffix that begins with `-` or `.`."""
    if hsn not in (AUTO, OFF) and not _SUFFIX.fullmatch(hsn):
        raise UsageError(f"--hsn {hsn!r} is not a network", hint="give auto, off, or a suffix such as -hsn1")


def choose_addresses(
    names: Iterable[str],
    *,
    hsn: str = AUTO,
    resolve: Resolve = resolve,
    answers: Answers = is_reachable,
    limit: float = LIMIT,
) -> dict[str, Address]:
    """Return the address to dial for each name: its high-speed name if that resolves and answers, or else the name.

    Every node is probed, because an allocation can mix nodes with and without the fast network. All are probed in
    parallel. Nodes that are not probed within `limit` keep their given name.

    Args:
        names: the names as given
        hsn: "auto", "off", or the suffix of the high-speed names
        resolve: returns the IP addresses of a name
        answers: returns whether a host is up at an IP address
        limit: seconds for all nodes together

    Raises:
        UsageError: `hsn` is not valid
    """
    check_hsn(hsn)
    chosen: dict[str, Address] = {}
    wanted: dict[str, tuple[str, ...]] = {}
    for name in names:
        keep = _keep(name, hsn)
        if keep:
            chosen[name] = Address(name, keep)
        else:
            wanted[name] = candidates(name, hsn)
    for name, address in _probe_all(wanted, resolve, answers, limit).items():
        chosen[name] = address if address.address != name else Address(name, address.reason, hsn != AUTO)
    for name in wanted.keys() - chosen.keys():
        chosen[name] = Address(name, f"{_pattern(name, wanted[name][0])} was not found within {limit:g} s", hsn != AUTO)
    return chosen


def candidates(name: str, hsn: str) -> tuple[str, ...]:
    """Return the names that a host may have on the fast network, the likeliest first.

    The last form is ALCF's: the management network is `x….hostmgmt2.cm.aurora…`, the fast one `x….hsn.cm.aurora…`.
    """
    suffix = "-hsn0" if hsn == AUTO else hsn
    host, rest = short(name), domain(name)
    found = [host + suffix]
    if rest:
        found.append(f"{host}{suffix}.{rest}")
        if hsn == AUTO and _MANAGEMENT.search(rest):
            found.append(f"{host}.{_MANAGEMENT.sub('hsn.', rest)}")
    return tuple(found)


def summary(chosen: dict[str, Address]) -> str:
    """Return one phrase for all nodes: the reasons, each with its nodes folded unless all share one reason."""
    reasons: dict[str, list[str]] = {}
    for name, address in chosen.items():
        reasons.setdefault(address.reason, []).append(short(name))
    if len(reasons) == 1:
        return f"all dialled by {_phrase(next(iter(reasons)))}"
    return "; ".join(f"{fold(group)} dialled by {_phrase(reason)}" for reason, group in reasons.items())


def _phrase(reason: str) -> str:
    return reason if reason.startswith("<node>") else f"the given name ({reason})"


def _keep(name: str, hsn: str) -> str:
    """Return why this name needs no probe, or ""."""
    if is_address(name):
        return "it is an IP address"
    if hsn == OFF:
        return "--hsn off"
    if hsn == AUTO and _CARRIES_HSN.search(name):
        return "it already is a high-speed name"
    if hsn != AUTO and name.partition(".")[0].lower().endswith(hsn.lower()):
        return f"it already carries {hsn}"
    return ""


def _choose(name: str, options: tuple[str, ...], resolve: Resolve, answers: Answers) -> Address:
    silent = ""
    for option in options:
        addresses = resolve(option)
        if any(answers(address) for address in addresses):
            return Address(option, _pattern(name, option))
        silent = silent or (option if addresses else "")
    reason = f"{_pattern(name, silent)} does not answer" if silent else f"there is no {_pattern(name, options[0])}"
    return Address(name, reason)


def _pattern(name: str, option: str) -> str:
    """Return a candidate without its host, so that similar nodes share one reason."""
    return "<node>" + option[len(short(name)) :]


def _probe_all(
    wanted: dict[str, tuple[str, ...]], resolve: Resolve, answers: Answers, limit: float
) -> dict[str, Address]:
    """Return the addresses that were found within `limit` seconds.

    This uses no thread pool, because a pool waits for its threads. A thread that hangs in a resolver must not delay the
    program.
    """
    failures: list[BaseException] = []
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Address]] = queue.SimpleQueue()

    def work() -> None:
        while time.monotonic() < deadline:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            done.put((name, _choose(name, wanted[name], resolve, answers)))

    deadline = time.monotonic() + limit

    for name in wanted:
        todo.put(name)
    for _ in range(min(THREADS, len(wanted))):
        BackgroundThread(work, failures.append)
    found: dict[str, Address] = {}
    with contextlib.suppress(queue.Empty):
        while len(found) < len(wanted):
            name, address = done.get(timeout=max(0.0, deadline - time.monotonic()))
            found[name] = address
    if failures:
        raise failures[0]
    return found
