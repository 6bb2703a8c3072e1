"""Every benchmark, in the order of the page."""

from __future__ import annotations

from bench import fanout, local, memory, relocation, slow, startup, status, stream

BENCHMARKS = (
    fanout.BENCHMARK,
    stream.BENCHMARK,
    local.BENCHMARK,
    relocation.BENCHMARK,
    slow.BENCHMARK,
    startup.BENCHMARK,
    status.BENCHMARK,
    memory.BENCHMARK,
)
