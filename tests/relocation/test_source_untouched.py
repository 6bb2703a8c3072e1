"""The source is never written: it may share its files with a package cache, and others may be using it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.contract.support import photograph
from tests.relocation.cases import Case

if TYPE_CHECKING:
    from tests.relocation.cases import Estate

STRATEGIES = ("direct", "rsync", "cp", "compress")
CASE = Case("uv venv", shape="own base")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_case_38_nothing_of_the_source_changes(estate: Estate, strategy: str) -> None:
    """Inodes, counts of links, times, contents: of the environment, its base, its project and uv's cache."""
    made = estate.made(CASE)
    shared = made.hide[0]
    library = next(made.path.glob("lib/*/site-packages/numpy/__init__.py"))
    assert os.stat(library).st_nlink > 1, "nothing here is hard-linked to the cache"
    before = photograph(shared)
    landed = estate.land(CASE, "--strategy", strategy)
    assert landed.report["plan"]["strategy"]["name"] == strategy
    after = photograph(shared)
    estate.remove(landed)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    assert changed == []
