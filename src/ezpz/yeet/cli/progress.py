"""Display of the progress of a run."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes
from ezpz.yeet.model.events import (
    PHASES,
    DetailLogged,
    Event,
    NodeConnected,
    NodeDeferred,
    NodeDone,
    NodeRetrying,
    PhaseStarted,
    WarningRaised,
)
from ezpz.yeet.reporting.progress_state import TO_NODES, ProgressState

if TYPE_CHECKING:
    from ezpz.cli.output import Output
    from ezpz.yeet.cli.live_progress import LiveProgress
    from ezpz.yeet.reporting.timeline import Timeline

LINE_STEP = 0.1  # fraction of the nodes after which the next line is printed
MIN_RATE_BYTES = 1_000_000  # bytes after which a rate means something


class ProgressDisplay:
    """Display of events: live on a terminal, a few lines elsewhere, nothing with --json or -q. Safe from any thread."""

    def __init__(self, output: Output, timeline: Timeline | None = None) -> None:
        """Start with no events.

        Args:
            output: where to print
            timeline: records all events as well, None for no record
        """
        self.output = output
        self.state = ProgressState()
        self.timeline = timeline
        self._live: LiveProgress | None = None
        self._printed_fraction = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressDisplay:
        if self.output.live:
            from ezpz.yeet.cli.live_progress import LiveProgress

            self._live = LiveProgress(self.state)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Display an event."""
        with self._lock:  # several threads read the source and report it
            now = time.monotonic()
            self.state.add_event(event, now)
            if self.timeline is not None:
                self.timeline.add_event(event, now)
        if isinstance(event, WarningRaised):
            self.output.warn(event.text)
        elif isinstance(event, DetailLogged):
            self.output.detail(event.text)
        elif isinstance(event, NodeRetrying):
            self.output.note(f"tried again: {event.failure.message}")
        elif isinstance(event, NodeDone) and event.result.failure is not None:
            self.output.note(f"failed: {event.result.failure.message}")
        elif self._live is None:
            self._print_line(event)

    def _print_line(self, event: Event) -> None:
        """Print a line if the event is worth one."""
        state = self.state
        if isinstance(event, PhaseStarted):
            self._printed_fraction = 0.0
            self.output.note(f"{PHASES[event.name]}{f', {format_bytes(event.total)}' if event.total else ''} ...")
        elif isinstance(event, NodeDeferred):
            self.output.note(f"parked: {event.node.given} cannot keep up, and is served at the end")
        elif isinstance(event, NodeConnected) and event.reassigned:
            self.output.note(f"adopted: {event.node.given} is served by {event.via} now")
        elif isinstance(event, NodeDone) and state.nodes and state.phase in TO_NODES:
            done = (state.done + state.failed) / state.nodes
            if done - self._printed_fraction >= LINE_STEP:
                self._printed_fraction = done
                rate = f", {format_bytes(state.rate(time.monotonic()))}/s" if state.moved > MIN_RATE_BYTES else ""
                self.output.note(f"  {state.done} of {state.nodes} nodes have it{rate}")
