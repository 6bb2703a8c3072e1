"""Objects inside messages."""

from typing import Mapping, Optional, Sequence

from ezpz.agent.common.messages.base import Codec, Count, Json, Message, Path, Port


class Failing(Message):
    """Why something was not done: a code of `ezpz.errors`, one line, and the next step."""

    code: "str"
    message: "str"
    hint: "str" = ""


class ExpectedTree(Message):
    """What a staged tree must be; None for what is not known."""

    files: "Optional[Count]" = None
    bytes: "Optional[Count]" = None
    version: "Optional[str]" = None


class SmokeTest(Message):
    """What the Python of a staged environment must say.

    version: None for any; base: the directory of the standard library, relative to the tree or absolute, None for
    any; imports: modules that must work; environ: variables that the Python needs to start
    """

    version: "Optional[str]" = None
    base: "Optional[Path]" = None
    imports: "Sequence[str]" = ()
    environ: "Optional[Mapping[str, str]]" = None


class PeerAddress(Message):
    """How to connect to an agent.

    codec: the best compression that it knows; detour: argv of a process that carries the connection when TCP does not;
    direct: whether TCP is tried
    """

    name: "str"
    address: "str"
    port: "Port"
    codec: "Codec" = 0
    detour: "Optional[Sequence[str]]" = None
    direct: "bool" = True


class RemoteAgent(Message):
    """An agent to start: argv of the process that starts it, and what it reads on stdin after the program."""

    name: "str"
    argv: "Sequence[str]"
    feed: "str"


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

    place: the destination as it was given; state: whole, modified, partial, foreign, or absent; why: "" if the state
    says it all; contents: whether the contents were compared; disk: bytes, 0 unless they were asked for
    """

    place: "Path"
    state: "str"
    why: "str"
    receipt: "Optional[Json]"
    differences: "Optional[ChangedPaths]"
    contents: "bool"
    lock: "Optional[LockHolder]"
    staging: "Sequence[StagingState]"
    disk: "Count"
    barred: "Optional[Failing]"


class LeakFound(Message):
    """Paths that are still used on a shared filesystem, below one directory; what: a key of `leaks.REMEDIES`."""

    what: "str"
    path: "Path"
    count: "Count"
    remedy: "str"


class StandingCopy(Message):
    """What is at a destination; state: receipt, or foreign."""

    state: "str"
    receipt: "Optional[Json]"
