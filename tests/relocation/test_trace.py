"""A Python that starts from the destination never asks the source's filesystem for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.relocation.support import check_trace

if TYPE_CHECKING:
    from tests.relocation.support import Landed


def test_no_system_call_reaches_the_source(landed: Landed) -> None:
    check_trace(landed)
