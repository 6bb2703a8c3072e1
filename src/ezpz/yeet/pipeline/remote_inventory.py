"""What every node already has of what is about to be sent, queried before anything is read."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ezpz.agent.common import manifest
from ezpz.agent.common.messages.answers import InstalledAnswer
from ezpz.agent.common.messages.requests import InstalledRequest, ManifestRequest
from ezpz.agent.common.wire_paths import ProtocolError, decode_path
from ezpz.agent.destination import installed
from ezpz.runtime.async_process import gather_or_cancel, run_in_thread
from ezpz.yeet.engines.base import RemoteFiles
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION, PreviousVersion

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from ezpz.agent.common.manifest import ManifestEntry
    from ezpz.agent.common.messages.receipt import Receipt
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Engine
    from ezpz.yeet.pipeline.fingerprint import Fingerprint
    from ezpz.yeet.pipeline.local_node import LocalNode

NOTHING = InstalledAnswer()
MAX_VERSIONS = 3  # whose manifests are read; nodes with any other version get everything


@dataclass(frozen=True, slots=True)
class InventoryReplies:
    """The installed versions on this host and on every other node, see `ezpz.agent.destination.installed`.

    Attributes:
        here: The reply of this host.
        nodes: The replies of the other nodes.
        is_target: Whether this host is a node of the job.
        seen: The nodes whose reply comes from the shell that started the agent. They have no prepared agent.
    """

    here: InstalledAnswer
    nodes: Mapping[Node, InstalledAnswer]
    is_target: bool
    seen: frozenset[Node] = frozenset()

    @property
    def interpreter(self) -> str:
        """The interpreter that every node had when its untouched version was made, or ""."""
        replies = [*self.nodes.values(), *([self.here] if self.is_target else [])]
        found = {each.receipt.interpreter if each.untouched and each.receipt else "" for each in replies}
        return found.pop() if len(found) == 1 else ""

    def seen_with_other_version(self, fingerprint: Fingerprint) -> tuple[Node, ...]:
        """Return the nodes of `seen` that have another version."""
        return tuple(node for node in self.nodes if node in self.seen and not _is_same(self.nodes[node], fingerprint))

    async def ask_again(self, engine: Engine, nodes: tuple[Node, ...], lost: Container[Node]) -> InventoryReplies:
        """Return these replies, updated by the agents of some nodes. Lost nodes have nothing."""
        seen = sorted({receipt.listing for node in nodes if (receipt := self.nodes[node].receipt) is not None})
        replies = await engine.ask(tuple(node for node in nodes if node not in lost), InstalledRequest(seen=seen))
        return replace(self, nodes={**self.nodes, **{node: replies.get(node, NOTHING) for node in nodes}})


@dataclass(frozen=True, slots=True)
class RemoteInventory:
    """Which nodes have what.

    Attributes:
        same: The nodes that already have the version.
        receipt: The receipt of one of them.
        is_here: Whether this host already has the version.
        bases: The files of other versions by node.
        previous: The version whose files need not be read again.
    """

    same: tuple[Node, ...] = ()
    receipt: Receipt | None = None
    is_here: bool = False
    bases: Mapping[Node, RemoteFiles] = field(default_factory=dict)
    previous: PreviousVersion = NO_PREVIOUS_VERSION


async def query_installed(engine: Engine, here: LocalNode, nodes: tuple[Node, ...]) -> InventoryReplies:
    """Ask this host and all nodes for their installed version, except nodes that were seen to be untouched.

    A node that does not answer has nothing.
    """
    seen = {
        node: InstalledAnswer(contents=receipt.contents, untouched=True, receipt=receipt)
        for node, receipt in engine.seen().items()
        if node in nodes
    }
    rest = tuple(node for node in nodes if node not in seen)
    replies: list[Any] = await gather_or_cancel(
        (run_in_thread(here.check_installed), engine.ask(rest, InstalledRequest()))
    )
    by_node = {node: seen.get(node) or replies[1].get(node, NOTHING) for node in nodes}
    return InventoryReplies(replies[0], by_node, here.is_target, frozenset(seen))


async def compare_installed(
    engine: Engine, here: LocalNode, replies: InventoryReplies, fingerprint: Fingerprint
) -> RemoteInventory:
    """Compare what all nodes have with the version of a fingerprint."""
    by_node, ours = replies.nodes, replies.here
    same = tuple(node for node, reply in by_node.items() if _is_same(reply, fingerprint))
    is_here = replies.is_target and _is_same(ours, fingerprint)
    receipt = by_node[same[0]].receipt if same else ours.receipt if is_here else None
    if len(same) == len(by_node) and (is_here or not replies.is_target):
        return RemoteInventory(same, receipt, is_here)
    bases: dict[Node, RemoteFiles] = {}
    previous = _previous_here(here, ours) if _is_alike(ours, fingerprint) else None
    for nodes in _most_frequent(by_node, same):
        records = await _manifest(engine, here, ours, nodes[0], by_node[nodes[0]].receipt)
        if records is None:
            continue
        untouched = [node for node in nodes if not by_node[node].changed]
        for group in (untouched, [node for node in nodes if node not in untouched]):
            changed = {decode_path(path) for node in group for path in by_node[node].changed}
            bases.update(dict.fromkeys(group, RemoteFiles(records, changed)))
        if previous is None and _is_alike(by_node[nodes[0]], fingerprint) and not replies.is_target:
            previous = PreviousVersion(records, None)
    return RemoteInventory(same, receipt, is_here, bases, previous or NO_PREVIOUS_VERSION)


def _most_frequent(by_node: Mapping[Node, InstalledAnswer], same: tuple[Node, ...]) -> list[list[Node]]:
    """Return the nodes of each of the most frequent other versions."""
    by_contents: defaultdict[str, list[Node]] = defaultdict(list)
    for node, reply in by_node.items():
        if reply.contents and node not in same:
            by_contents[reply.contents].append(node)
    return sorted(by_contents.values(), key=lambda nodes: -len(nodes))[:MAX_VERSIONS]


def _is_same(reply: InstalledAnswer, fingerprint: Fingerprint) -> bool:
    """Return whether a node has exactly the version of a fingerprint."""
    return reply.untouched and reply.receipt is not None and fingerprint.is_of(reply.receipt)


def _is_alike(reply: InstalledAnswer, fingerprint: Fingerprint) -> bool:
    """Return whether files of a node's version can be used again."""
    return bool(reply.contents) and reply.receipt is not None and fingerprint.has_rules_of(reply.receipt)


def _previous_here(here: LocalNode, ours: InstalledAnswer) -> PreviousVersion | None:
    if ours.receipt is None:
        return None
    try:
        records = installed.read_entries(here.deployment.dst, ours.receipt)
    except manifest.Unreadable:
        return None
    return PreviousVersion(records, here.deployment.dst, (decode_path(path) for path in ours.changed))


async def _manifest(
    engine: Engine, here: LocalNode, ours: InstalledAnswer, node: Node, receipt: Receipt | None
) -> list[ManifestEntry] | None:
    """Return the manifest of a version, from this host or from a node that has it, or None if it is unavailable."""
    if receipt is None:
        return None
    try:
        if ours.receipt is not None and ours.contents == receipt.contents:
            return installed.read_entries(here.deployment.dst, ours.receipt)
        packed = b""
        while True:
            answer = await engine.ask((node,), ManifestRequest(dst=here.plan.destination, offset=len(packed)))
            piece = base64.b64decode(answer[node].piece) if node in answer else b""
            if not piece:
                return installed.check_manifest(packed, receipt)
            packed += piece
    except (manifest.Unreadable, ProtocolError, OSError):
        return None
