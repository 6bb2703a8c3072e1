"""Requests that every agent answers, with their answers."""

from typing import Mapping, Optional, Sequence

from .base import Count, Message, Path, Seconds
from .envelope import AgentRequest, Answer, Done, Failing
from .receipt import Receipt


class VersionKey(Message):
    """Three fields of a receipt by which a version is recognized."""

    run: "Optional[str]" = None
    version: "Optional[str]" = None
    created: "Optional[Count]" = None


class LockHolder(Message):
    """The run that holds a lock, as its file says; since: seconds since 1970."""

    run: "str"
    user: "str"
    host: "str"
    pid: "Optional[Count]" = None
    since: "Count" = 0


class StagingState(Message):
    """A staging directory.

    age: seconds since something in it changed; live: its run holds the lock; spent: it holds only what was to be
    removed; barred: why it must not be removed; rescue: it holds the version that was at the destination before
    """

    path: "Path"
    run: "str"
    files: "Count"
    bytes: "Count"
    disk: "Count"
    age: "Count"
    live: "bool"
    spent: "bool"
    barred: "Optional[Failing]"
    rescue: "bool"


class ChangedPaths(Message):
    """How many paths differ from a manifest in each way, and the first of them."""

    changed: "Count"
    missing: "Count"
    extra: "Count"
    changed_paths: "Sequence[Path]"
    missing_paths: "Sequence[Path]"
    extra_paths: "Sequence[Path]"


class CopyOnNode(Message):
    """A destination and what is next to it.

    place: the destination as given; state: `whole`, `modified`, `partial`, `foreign`, or `absent`; why: "" if the state
    says it all; contents: whether the contents were compared; disk: bytes, 0 unless they were asked for
    """

    place: "Path"
    state: "str"
    why: "str"
    receipt: "Optional[Receipt]"
    differences: "Optional[ChangedPaths]"
    contents: "bool"
    lock: "Optional[LockHolder]"
    staging: "Sequence[StagingState]"
    disk: "Count"
    barred: "Optional[Failing]"


class InventoryAnswer(Answer):
    """What was found, and how long that took."""

    found: "Sequence[CopyOnNode]"
    seconds: "Seconds"


class ClearAnswer(Answer):
    """The bytes that were freed, and the paths that were removed."""

    freed: "Count"
    removed: "Sequence[Path]"


class CheckResult(Message):
    """Whether a check passed, why not, and what it found.

    links: states of network links by name; devices: how many a tool lists; free: bytes; dst, version: of a copy
    """

    ok: "bool" = True
    why: "str" = ""
    links: "Optional[Mapping[str, str]]" = None
    devices: "Optional[Count]" = None
    free: "Optional[Count]" = None
    dst: "Optional[Path]" = None
    version: "Optional[str]" = None


class HealthCheckAnswer(Answer):
    """When the request arrived, in seconds since 1970; the processes that were killed; the result of each check."""

    time: "Seconds"
    swept: "Sequence[Count]" = ()
    checks: "Mapping[str, CheckResult]" = {}  # noqa: RUF012 - never changed


class HeartbeatRequest(AgentRequest):
    """The launch host is alive."""

    op, answer = "heartbeat", Done


class InventoryRequest(AgentRequest):
    """Say what ezpz created on the node.

    wanted: destinations, none for all; places: further directories to search; contents: read every
    file; quick: do not compare; weigh: add up the disk space
    """

    op, answer = "inventory", InventoryAnswer
    wanted: "Sequence[Path]"
    places: "Sequence[Path]"
    contents: "bool" = False
    quick: "bool" = False
    weigh: "bool" = False


class ClearRequest(AgentRequest):
    """Remove from a destination the version that is given, and the staging of these runs."""

    op, answer = "clear", ClearAnswer
    dst: "Path"
    run: "str"
    version: "Optional[VersionKey]"
    staging: "Sequence[str]"


class HealthCheckRequest(AgentRequest):
    """Check the node.

    programs: must be executable; paths: must exist; shared: must be on a filesystem that answers; tmp: must be
    writable and have `room` bytes; links, devices: look for network links and accelerators; seconds: for each check;
    sweep: a setting of the processes to kill
    """

    op, answer = "health_check", HealthCheckAnswer
    programs: "Sequence[Path]" = ()
    paths: "Sequence[Path]" = ()
    shared: "Sequence[Path]" = ()
    tmp: "Optional[Path]" = None
    room: "Count" = 0
    links: "bool" = False
    devices: "bool" = False
    seconds: "Seconds" = 5.0
    sweep: "Optional[str]" = None
