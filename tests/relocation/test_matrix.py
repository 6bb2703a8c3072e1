"""Environments of every creator work at their destination while all that they were made of is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.relocation import support
from tests.relocation.cases import PLAIN

if TYPE_CHECKING:
    from tests.relocation.cases import Estate
    from tests.relocation.support import Landed

SHELLS = tuple(support.SHELLS)


def test_the_interpreter_is_the_same_and_all_that_it_loads_is_in_the_copy(landed: Landed) -> None:
    support.check_interpreter(landed)


def test_every_console_script_runs(landed: Landed) -> None:
    support.check_scripts(landed)


@pytest.mark.parametrize("shell", SHELLS)
def test_it_can_be_activated(landed: Landed, shell: str) -> None:
    support.check_activation(landed, shell)


def test_pip_finds_nothing_broken(landed: Landed) -> None:
    support.check_pip(landed)


@pytest.mark.parametrize("landed", PLAIN, indirect=True, scope="session", ids=str)  # the first of all cases
def test_a_plain_copy_is_found_out(landed: Landed, estate: Estate) -> None:
    copied = estate.copy(landed.source)
    for check in (support.check_interpreter, support.check_scripts, support.check_trace):
        with pytest.raises(AssertionError):
            check(copied)
    for shell in SHELLS:
        with pytest.raises(AssertionError):
            support.check_activation(copied, shell)
    estate.remove(copied)
