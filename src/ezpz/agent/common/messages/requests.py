"""Requests of a run, each with its answer."""

from typing import Mapping, Optional, Sequence

from .answers import (
    AdoptAnswer,
    CapabilitiesAnswer,
    InstalledAnswer,
    InterpreterAnswer,
    LeaksAnswer,
    LookAnswer,
    ManifestAnswer,
    NoteAnswer,
    PrepareAnswer,
    PublishAnswer,
    PullAnswer,
)
from .base import Count, Path, Seconds
from .envelope import AgentRequest, Done
from .parts import ExpectedTree, PeerAddress, RemoteAgent, SmokeTest
from .receipt import Receipt


class CapabilitiesRequest(AgentRequest):
    """Say what the rsync of the node can do."""

    op, answer = "capabilities", CapabilitiesAnswer


class PrepareRequest(AgentRequest):
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


class InterpreterRequest(AgentRequest):
    """Say whether the node has an interpreter on its own disk; version: `sys.version`, which tells the build."""

    op, answer = "interpreter", InterpreterAnswer
    executable: "Path"
    prefix: "Path"
    version: "str"
    environ: "Optional[Mapping[str, str]]" = None


class PullRequest(AgentRequest):
    """Run an rsync into staging; seconds: the timeout, 0 for none."""

    op, answer = "pull", PullAnswer
    argv: "Sequence[str]"
    seconds: "Seconds"


class InstalledRequest(AgentRequest):
    """Compare the version in place with its receipt; seen: digests that a shell has just taken."""

    op, answer = "installed", InstalledAnswer
    seen: "Sequence[str]" = ()


class AdoptRequest(AgentRequest):
    """Take over files of the version in place, given the new manifest, which is attached."""

    op, answer = "adopt", AdoptAnswer


class ManifestRequest(AgentRequest):
    """Send a piece of the manifest of the version in place."""

    op, answer = "manifest", ManifestAnswer
    dst: "Path"
    offset: "Count"


class ListeningRequest(AgentRequest):
    """Open the listener, on the loopback if `private`; either `name` and `address`, or `names` for all nodes."""

    op, answer = "listen", PeerAddress
    secret: "str"
    stall: "Seconds"
    name: "str" = ""
    address: "str" = ""
    names: "Optional[Mapping[str, str]]" = None
    private: "bool" = False


class StartRequest(AgentRequest):
    """Start agents on other nodes."""

    op, answer = "start", Done
    agents: "Sequence[RemoteAgent]"


class JoinRequest(AgentRequest):
    """Take part in the stream with the prepared staging directory."""

    op, answer = "join", Done


class ExpectRequest(AgentRequest):
    """Expect a parent to connect and to send what is missing, or these chunks again."""

    op, answer = "expect", Done
    parent: "str"
    serial: "Count"
    chunks: "Sequence[Count]" = ()


class ServeRequest(AgentRequest):
    """Connect to a child, and send to it."""

    op, answer = "serve", Done
    serial: "Count"
    to: "PeerAddress"


class ReleaseRequest(AgentRequest):
    """Stop sending to a child."""

    op, answer = "release", Done
    serial: "Count"


class PublishRequest(AgentRequest):
    """Wait for the end of the stream if `streamed`, verify, run the smoke test, and publish."""

    op, answer = "publish", PublishAnswer
    expected: "ExpectedTree"
    receipt: "Receipt"
    executable: "bool" = False
    trial: "Optional[SmokeTest]" = None
    streamed: "bool" = False


class NoteRequest(AgentRequest):
    """Write the list of failed nodes into the destination."""

    op, answer = "note", NoteAnswer
    names: "Sequence[str]"


class LookRequest(AgentRequest):
    """Say what is at a destination."""

    op, answer = "look", LookAnswer
    dst: "Path"


class LeaksRequest(AgentRequest):
    """Find leaks of an environment; known: directories that count as shared; environ: variables of the job."""

    op, answer = "leaks", LeaksAnswer
    dst: "Path"
    known: "Sequence[Path]"
    environ: "Mapping[str, str]"
