"""Stock: what every node has already of what is about to be sent, asked before anything is read."""

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
from ezpz.yeet.pipeline.fingerprint import INPUTS, PUBLIC
from ezpz.yeet.transfer.previous_version import PreviousVersion

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from ezpz.agent.common.manifest import ManifestEntry
    from ezpz.cluster.allocation import Node
    from ezpz.yeet.engines.base import Engine
    from ezpz.yeet.pipeline.local_node import LocalNode

NOTHING = InstalledAnswer()
MOST_VERSIONS = 3  # whose manifests are looked at; nodes with any other version get all of it


@dataclass(frozen=True, slots=True)
class InventoryReplies:
    """What this host and every other node says of the version in place; see `agent.destination.installed`.

    seen: the nodes for which a shell has spoken, and no agent is prepared
    """

    here: InstalledAnswer
    nodes: Mapping[Node, InstalledAnswer]
    is_target: bool
    seen: frozenset[Node] = frozenset()

    @property
    def interpreter(self) -> str:
        """The interpreter that every node was found to have when the untouched version on it was made, "" for none."""
        told = [*self.nodes.values(), *([self.here] if self.is_target else [])]
        found = {str((each.receipt or {}).get("interpreter", "")) if each.untouched else "" for each in told}
        return found.pop() if len(found) == 1 else ""

    def seen_otherwise(self, made_of: dict[str, Any]) -> tuple[Node, ...]:
        """Those of `seen` that have something else than a version that is `made_of` these."""
        return tuple(node for node in self.nodes if node in self.seen and not _is_same(self.nodes[node], made_of))

    async def asked_again(self, engine: Engine, nodes: tuple[Node, ...], lost: Container[Node]) -> InventoryReplies:
        """The same with what the agents of these nodes say; those that are lost have nothing."""
        seen = sorted({str((self.nodes[node].receipt or {}).get("listing", "")) for node in nodes})
        told = await engine.ask(tuple(node for node in nodes if node not in lost), InstalledRequest(seen=seen))
        return replace(self, nodes={**self.nodes, **{node: told.get(node, NOTHING) for node in nodes}})


@dataclass(frozen=True, slots=True)
class RemoteInventory:
    """What stands where.

    same: nodes that have all of it; receipt: of one of them; is_here: whether this host has all of it
    bases: what other nodes have; known: what need not be read again
    """

    same: tuple[Node, ...] = ()
    receipt: dict[str, Any] | None = None
    is_here: bool = False
    bases: Mapping[Node, RemoteFiles] = field(default_factory=dict)
    known: PreviousVersion | None = None


async def ask_all(engine: Engine, here: LocalNode, nodes: tuple[Node, ...]) -> InventoryReplies:
    """Ask this host and all nodes what they have, but those that were seen to be untouched.

    Nodes that give no answer have nothing.
    """
    seen = {
        node: InstalledAnswer(contents=receipt["contents"], untouched=True, receipt=receipt)
        for node, receipt in engine.seen().items()
        if node in nodes
    }
    rest = tuple(node for node in nodes if node not in seen)
    told: list[Any] = await gather_or_cancel((run_in_thread(here.take_stock), engine.ask(rest, InstalledRequest())))
    answers = {node: seen.get(node) or told[1].get(node, NOTHING) for node in nodes}
    return InventoryReplies(told[0], answers, here.is_target, frozenset(seen))


async def take_stock(
    engine: Engine, here: LocalNode, answers: InventoryReplies, made_of: dict[str, Any]
) -> RemoteInventory:
    """Compare what all have with a version that is `made_of` these."""
    told, ours = answers.nodes, answers.here
    same = tuple(node for node, answer in told.items() if _is_same(answer, made_of))
    is_here = answers.is_target and _is_same(ours, made_of)
    receipt = told[same[0]].receipt if same else ours.receipt if is_here else None
    if len(same) == len(told) and (is_here or not answers.is_target):
        return RemoteInventory(same, receipt, is_here)
    by_contents: defaultdict[str, list[Node]] = defaultdict(list)
    for node, answer in told.items():
        if answer.contents and node not in same:
            by_contents[answer.contents].append(node)
    bases: dict[Node, RemoteFiles] = {}
    known = _known_here(here, ours) if _is_alike(ours, made_of) else None
    for _, those in sorted(by_contents.items(), key=lambda found: -len(found[1]))[:MOST_VERSIONS]:
        records = await _manifest(engine, here, ours, those[0], told[those[0]].receipt or {})
        if records is None:
            continue
        untouched = [node for node in those if not told[node].changed]
        for group in (untouched, [node for node in those if node not in untouched]):
            changed = {decode_path(path) for node in group for path in told[node].changed}
            bases.update(dict.fromkeys(group, RemoteFiles(records, changed)))
        if known is None and _is_alike(told[those[0]], made_of) and not answers.is_target:
            known = PreviousVersion(records, None)
    return RemoteInventory(same, receipt, is_here, bases, known)


def _is_same(answer: InstalledAnswer, made_of: dict[str, Any]) -> bool:
    """Whether it is exactly what a run that is `made_of` these would bring."""
    receipt = answer.receipt or {}
    return bool(answer.untouched) and all(receipt.get(name) == value for name, value in made_of.items())


def _is_alike(answer: InstalledAnswer, made_of: dict[str, Any]) -> bool:
    """Whether it was made of the same source by the same rules, whatever was in the source then."""
    receipt = answer.receipt or {}
    rules = (item for item in made_of.items() if item[0] not in (INPUTS, PUBLIC))
    return bool(answer.contents) and all(receipt.get(name) == value for name, value in rules)


def _known_here(here: LocalNode, ours: InstalledAnswer) -> PreviousVersion | None:
    try:
        records = installed.read_entries(here.landing.dst, ours.receipt or {})
    except manifest.Unreadable:
        return None
    return PreviousVersion(records, here.landing.dst, (decode_path(path) for path in ours.changed))


async def _manifest(
    engine: Engine, here: LocalNode, ours: InstalledAnswer, node: Node, receipt: dict[str, Any]
) -> list[ManifestEntry] | None:
    """The manifest of a version, from this host or from a node that has it; None when it cannot be had."""
    try:
        if ours.contents == receipt["contents"]:
            return installed.read_entries(here.landing.dst, ours.receipt or {})
        packed = b""
        while True:
            answer = await engine.ask((node,), ManifestRequest(dst=here.plan.destination, offset=len(packed)))
            piece = base64.b64decode(answer[node].piece) if node in answer else b""
            if not piece:
                return installed.check_manifest(packed, receipt)
            packed += piece
    except (manifest.Unreadable, ProtocolError, OSError):
        return None
