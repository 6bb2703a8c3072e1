"""Objects inside messages."""

from typing import Mapping, Optional, Sequence

from .base import Codec, Count, Message, Path, Port
from .receipt import Receipt


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


class LeakFound(Message):
    """Paths that are still used on a shared filesystem, below one directory; what: a key of `leaks.REMEDIES`."""

    what: "str"
    path: "Path"
    count: "Count"
    remedy: "str"


class StandingCopy(Message):
    """What is at a destination; state: `receipt`, or `foreign`."""

    state: "str"
    receipt: "Optional[Receipt]"
