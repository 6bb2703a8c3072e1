"""Which nodes of a stream lag, are silent, or hang. Pure: the time is an argument."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic

from ezpz.yeet.engines.stream.node_state import N, NodePhase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.yeet.engines.stream.node_state import NodeState

LAG_FACTOR = 3.0  # times slower than its parent: a node that cannot keep up
MIN_LAG = 2 << 20  # bytes that it must also be behind; less is noise
SILENCE_TIMEOUT = 3.0  # seconds without a report, of four per second, after which a node is treated as a slow one
PROGRESS_TIMEOUT = 30.0  # seconds without progress, from any source, after which a node is given up
PUBLISH_TIMEOUT = 300.0  # the same for a node that has everything; removing a large old version reports nothing


class ProgressWatch(Generic[N]):
    """Decides which nodes make too little progress.

    Args:
        states: The nodes, with the root; changed by the scheduler that owns them.
        wire: Bytes per second that the root's network carries, 0 for unknown.
    """

    def __init__(self, states: Mapping[N, NodeState[N]], wire: float) -> None:
        self.states = states
        self.wire = wire
        self.is_source_read = False

    def lags(self, node: N, now: float) -> bool:
        """Return whether a node receives much less than its parent can send."""
        state = self.states[node]
        if state.parent is None:
            return False
        parent = self.states[state.parent]
        if parent.size - state.size < MIN_LAG or state.damaged or state.is_slow:
            return False
        rate, available, share = state.rate(now), parent.rate(now), self.wire / len(parent.children)
        if parent.has_all:
            available = min(available or share, share)
        elif available is not None and share:
            available = min(available, share)
        return rate is not None and available is not None and rate * LAG_FACTOR < available

    def is_silent(self, node: N, now: float) -> bool:
        """Return whether a node has not reported for long although its parent has much data for it."""
        state = self.states[node]
        if state.parent is None or state.damaged or state.is_slow:
            return False
        parent = self.states[state.parent]
        since = max(state.report_due_since, parent.reporting_since)
        return parent.size - state.size >= MIN_LAG and now - since > SILENCE_TIMEOUT

    def hangs(self, node: N, now: float) -> bool:
        """Return whether a node has made no progress for so long that it is given up."""
        state = self.states[node]
        return now - state.idle_since > (PUBLISH_TIMEOUT if state.has_all else PROGRESS_TIMEOUT)

    def reset_clocks(self, node: N, now: float) -> None:
        """Restart the clocks of a node that cannot make progress now: it has no parent, or no data is ready for it."""
        state = self.states[node]
        if state.has_all:
            if state.phase is NodePhase.DONE or not self.is_source_read:
                state.idle_since = math.inf
            return
        if state.parent is None:
            state.idle_since = math.inf
            return
        ahead = self.states[state.parent].size - state.size
        if ahead < MIN_LAG and not math.isinf(state.report_due_since):
            state.report_due_since = now
        if ahead <= 0 and not (self.is_source_read or state.damaged) and not math.isinf(state.idle_since):
            state.idle_since = now
