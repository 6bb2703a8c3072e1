"""Requests to an agent, each with its answer."""

import json
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Type

from ezpz.agent.common.messages.answers import (
    AdoptAnswer,
    CapabilitiesAnswer,
    ClearAnswer,
    Done,
    InstalledAnswer,
    InterpreterAnswer,
    InventoryAnswer,
    LeaksAnswer,
    LookAnswer,
    ManifestAnswer,
    NoteAnswer,
    PrepareAnswer,
    PublishAnswer,
    PullAnswer,
)
from ezpz.agent.common.messages.base import CHECKS, Count, Json, Message, Path, Seconds, fields_of, shown
from ezpz.agent.common.messages.parts import ExpectedTree, PeerAddress, RemoteAgent, SmokeTest, VersionKey
from ezpz.agent.common.wire_paths import ProtocolError


class Request(Message):
    """Something that an agent is asked to do: `op` is its name, `answer` the message that is the result."""

    op = ""
    number = 0  # of the request in its session
    attached = b""  # bytes that follow it


class PingRequest(Request):
    """The launch host is alive."""

    op, answer = "ping", Done


class CapabilitiesRequest(Request):
    """Say what the rsync of the node can do."""

    op, answer = "capabilities", CapabilitiesAnswer


class PrepareRequest(Request):
    """Check the destination, take its lock, and make the staging directory.

    avoid: a tree that the destination must not touch; source: what the receipt will name; allocated: `bytes` in whole
    blocks; tools: programs that must be there; longest, longest_name: bytes of paths and names; clash: a path that
    differs from another only in case; public: keep the permissions of the source's top
    """

    op, answer = "prepare", PrepareAnswer
    dst: "Path"
    run: "str"
    avoid: "Optional[Path]" = None
    source: "Path" = ""
    bytes: "Count"
    allocated: "Count"
    files: "Count"
    longest: "Count" = 0
    longest_name: "Count" = 0
    clash: "Path" = ""
    executable: "bool" = False
    replace: "bool" = False
    public: "bool" = False
    tools: "Sequence[str]" = ()


class InterpreterRequest(Request):
    """Say whether the node has an interpreter on its own disk; version: `sys.version`, which tells the build."""

    op, answer = "interpreter", InterpreterAnswer
    executable: "Path"
    prefix: "Path"
    version: "str"
    environ: "Optional[Mapping[str, str]]" = None


class PullRequest(Request):
    """Run an rsync into staging; seconds: the timeout, 0 for none."""

    op, answer = "pull", PullAnswer
    argv: "Sequence[str]"
    seconds: "Seconds"


class InstalledRequest(Request):
    """Compare the version in place with its receipt; seen: digests that a shell has just taken."""

    op, answer = "installed", InstalledAnswer
    seen: "Sequence[str]" = ()


class AdoptRequest(Request):
    """Take over files of the version in place, given the new manifest, which is attached."""

    op, answer = "adopt", AdoptAnswer


class ManifestRequest(Request):
    """Send a piece of the manifest of the version in place."""

    op, answer = "manifest", ManifestAnswer
    dst: "Path"
    offset: "Count"


class ListeningRequest(Request):
    """Open the listener, on the loopback if `private`; either `name` and `address`, or `names` for all nodes."""

    op, answer = "listen", PeerAddress
    secret: "str"
    stall: "Seconds"
    name: "str" = ""
    address: "str" = ""
    names: "Optional[Mapping[str, str]]" = None
    private: "bool" = False


class StartRequest(Request):
    """Start agents on other nodes."""

    op, answer = "start", Done
    agents: "Sequence[RemoteAgent]"


class JoinRequest(Request):
    """Take part in the stream with the prepared staging directory."""

    op, answer = "join", Done


class ExpectRequest(Request):
    """Expect a parent to connect and to send what is missing, or these chunks again."""

    op, answer = "expect", Done
    parent: "str"
    serial: "Count"
    chunks: "Sequence[Count]" = ()


class ServeRequest(Request):
    """Connect to a child, and send to it."""

    op, answer = "serve", Done
    serial: "Count"
    to: "PeerAddress"


class ReleaseRequest(Request):
    """Stop sending to a child."""

    op, answer = "release", Done
    serial: "Count"


class PublishRequest(Request):
    """Wait for the end of the stream if `streamed`, verify, run the smoke test, and publish."""

    op, answer = "publish", PublishAnswer
    expected: "ExpectedTree"
    receipt: "Json"
    executable: "bool" = False
    trial: "Optional[SmokeTest]" = None
    streamed: "bool" = False


class NoteRequest(Request):
    """Write the list of failed nodes into the destination."""

    op, answer = "note", NoteAnswer
    names: "Sequence[str]"


class LookRequest(Request):
    """Say what is at a destination."""

    op, answer = "look", LookAnswer
    dst: "Path"


class InventoryRequest(Request):
    """Say what ezpz created on the node.

    wanted: destinations, none for all; places: directories to search besides the usual ones; contents: read every
    file; quick: do not compare; weigh: add up the disk space
    """

    op, answer = "inventory", InventoryAnswer
    wanted: "Sequence[Path]"
    places: "Sequence[Path]"
    contents: "bool" = False
    quick: "bool" = False
    weigh: "bool" = False


class ClearRequest(Request):
    """Remove from a destination the version that is given, and the staging of these runs."""

    op, answer = "clear", ClearAnswer
    dst: "Path"
    run: "str"
    version: "Optional[VersionKey]"
    staging: "Sequence[str]"


class LeaksRequest(Request):
    """Find leaks of an environment; known: directories that count as shared; environ: variables of the job."""

    op, answer = "leaks", LeaksAnswer
    dst: "Path"
    known: "Sequence[Path]"
    environ: "Mapping[str, str]"


REQUESTS: "Dict[str, Type[Request]]" = {each.op: each for each in Request.__subclasses__()}


class Header(Message):
    """What is in every request: its number, which its answer repeats, its op, and how many bytes follow it."""

    id: "Count"
    op: "str"
    attached: "Count" = 0


def parse_line(line: bytes) -> "Tuple[Header, Dict[str, Any]]":
    """Return the header and the fields of a request from its line. Raise ProtocolError."""
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise ProtocolError("a request that is not JSON: {}".format(type(e).__name__))
    if not CHECKS["Json"](found):
        raise ProtocolError("a request that is not an object: {}".format(shown(found)))
    names = fields_of(Header)
    header = Header.from_json({name: value for name, value in found.items() if name in names})
    return header, {name: value for name, value in found.items() if name not in names}


def parse_request(op: str, fields: "Dict[str, Any]", number: int = 0, attached: bytes = b"") -> Request:
    """Return a request. Raise ProtocolError for one that is unknown, or whose fields are wrong."""
    kind = REQUESTS.get(op)
    if kind is None:
        raise ProtocolError("unknown request {}".format(shown(op)))
    request = kind.from_json(fields)
    request.__dict__.update(number=number, attached=attached)
    return request
