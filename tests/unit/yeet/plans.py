"""Plans, nodes and reports to test with, and the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from ezpz.cluster.allocation import Allocation, Node
from ezpz.yeet.model.plan import Choice, Plan, Request, Totals, make_plan
from ezpz.yeet.model.source import Kind, Source

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"
VENV = Source("/shared/env", "/shared/env", "env", Kind.VENV, node_local=False)
ARCHIVE = Source("/shared/env.tar.gz", "/shared/env.tar.gz", "env", None, node_local=False)
DATA = Source("/local/data", "/local/data", "data", Kind.DATA, node_local=True)
TOTALS = Totals(10, 3, 1000, 40_960, 1)


def nodes(count: int, *, local: bool = True) -> tuple[Node, ...]:
    """n000, n001, …; the first of them is this host if `local`."""
    return tuple(
        Node(f"n{number:03d}", f"n{number:03d}-hsn0", f"n{number:03d}.domain", is_local=local and not number)
        for number in range(count)
    )


def plan(request: Request | None = None, *, source: Source = VENV, count: int = 4, local: bool = True) -> Plan:
    """The plan for a request on so many nodes."""
    allocation = Allocation("pbs", "123.server", nodes(count, local=local), ("PBS_NODEFILE says so",))
    totals = Totals(None, None, 5000, 5000, 0) if source.is_archive else TOTALS
    return make_plan(
        "20240101-000000-deadbeef", request or Request(), source, totals, allocation, Choice("direct", "why"), "words"
    )


def assert_valid(document: dict[str, Any], schema: str) -> None:
    """The document survives JSON unchanged and obeys the schema that the docs publish."""
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    published = json.loads((REFERENCE / "schemas" / f"{schema}.schema.json").read_text())
    Draft202012Validator(published).validate(document)
