"""Stock: what every node has already of what is about to be sent, asked before anything is read."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ezpz.child import in_thread
from ezpz.yeet.agent import manifest, standing
from ezpz.yeet.agent.names import Malformed, raw
from ezpz.yeet.fanout.base import Base
from ezpz.yeet.known import Known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.cluster.model import Node
    from ezpz.yeet.agent.manifest import Record
    from ezpz.yeet.fanout.base import Engine
    from ezpz.yeet.here import Here

MOST_VERSIONS = 3  # whose manifests are looked at; nodes with any other version get all of it


@dataclass(frozen=True, slots=True)
class Stock:
    """What stands where.

    same: the answers of nodes that have all of it; here: this host's; bases: what others have
    known: what need not be read again
    """

    same: Mapping[Node, dict[str, Any]] = field(default_factory=dict)
    here: dict[str, Any] = field(default_factory=dict)
    bases: Mapping[Node, Base] = field(default_factory=dict)
    known: Known | None = None


async def take_stock(engine: Engine, here: Here, nodes: tuple[Node, ...], made_of: dict[str, Any]) -> Stock:
    """Ask all nodes, and this host, what they have of a version that is `made_of` these."""
    answers = dict(await engine.ask(nodes, "stock", made_of=made_of))
    ours = await in_thread(lambda: here.take_stock(made_of))
    same = {node: answer for node, answer in answers.items() if answer["same"]}
    if len(same) == len(nodes) and (ours["same"] or not here.is_target):
        return Stock(same, ours)
    by_contents: defaultdict[str, list[Node]] = defaultdict(list)
    for node, answer in answers.items():
        if answer["contents"] and node not in same:
            by_contents[answer["contents"]].append(node)
    bases: dict[Node, Base] = {}
    known = _known_here(here, ours)
    for _, those in sorted(by_contents.items(), key=lambda found: -len(found[1]))[:MOST_VERSIONS]:
        records = await _manifest(engine, here, ours, those[0], answers[those[0]]["receipt"])
        if records is None:
            continue
        untouched = [node for node in those if not answers[node]["changed"]]
        for group in (untouched, [node for node in those if node not in untouched]):
            changed = {raw(path) for node in group for path in answers[node]["changed"]}
            bases.update(dict.fromkeys(group, Base(records, changed)))
        if known is None and answers[those[0]]["alike"] and not here.is_target:
            known = Known(records, None)
    return Stock(same, ours, bases, known)


def _known_here(here: Here, ours: dict[str, Any]) -> Known | None:
    """What the version in place on this host tells, if it was made by the same rules."""
    if not ours["contents"] or not ours["alike"]:
        return None
    records = standing.records_of(here.landing.dst, ours["receipt"])
    return Known(records, here.landing.dst, (raw(path) for path in ours["changed"]))


async def _manifest(
    engine: Engine, here: Here, ours: dict[str, Any], node: Node, receipt: dict[str, Any]
) -> list[Record] | None:
    """The manifest of a version, from this host or from a node that has it; None when it cannot be had."""
    try:
        if ours["contents"] == receipt["contents"]:
            return standing.records_of(here.landing.dst, ours["receipt"])
        packed = b""
        while True:
            answer = await engine.ask((node,), "manifest", dst=here.plan.destination, offset=len(packed))
            piece = base64.b64decode(answer.get(node, {}).get("piece", ""))
            if not piece:
                return standing.checked(packed, receipt)
            packed += piece
    except (manifest.Unreadable, Malformed, OSError):
        return None
