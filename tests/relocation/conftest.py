"""What tests of moved environments share: the environments, and copies of them that ezpz made."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.relocation.cases import CASES, Case, Estate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.relocation.support import Landed


@pytest.fixture(scope="session")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """Where environments are made and moved; empty at the end, for pytest keeps what is in its directories."""
    folder = tmp_path_factory.mktemp("estate")
    yield Estate(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=CASES, ids=str)
def landed(request: pytest.FixtureRequest, estate: Estate) -> Iterator[Landed]:
    """Each case once: an environment that `ezpz yeet` has put on this host."""
    case: Case = request.param
    moved = estate.land(case)
    yield moved
    estate.remove(moved)
    estate.done(case)
