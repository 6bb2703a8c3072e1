"""The pace follows from what the network carries."""

from __future__ import annotations

import pytest

from ezpz.yeet.engines.copy_tree import MAX_PER_SOURCE
from ezpz.yeet.engines.pacing import choose_pace


@pytest.mark.parametrize("rate", [1.25e6, 12.1e6, 110e6])
def test_on_a_slow_wire_few_copies_share_a_source_and_are_compressed(rate: float) -> None:
    pace = choose_pace(rate, zstd=True)
    assert pace.per_source == 2
    assert "--compress-choice=zstd" in pace.options
    assert "compressed by zstd" in pace.reason


def test_an_old_rsync_anywhere_forbids_zstd() -> None:
    pace = choose_pace(12.1e6, zstd=False)
    assert (pace.per_source, pace.options) == (2, ())
    assert "not every rsync knows zstd" in pace.reason


@pytest.mark.parametrize("zstd", [True, False])
def test_a_fast_wire_is_used_as_it_is(zstd: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    pace = choose_pace(900e6, zstd=zstd)
    assert (pace.per_source, pace.options) == (MAX_PER_SOURCE, ())
    assert "900.0 MB/s" in pace.reason


def test_a_network_that_could_not_be_weighed_counts_as_slow() -> None:
    assert choose_pace(0.0, zstd=True).per_source == 2
