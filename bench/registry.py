"""Every benchmark, in the order of the page."""

from __future__ import annotations

from bench import again, archive, fanout, local, memory, relocation, slow, startup, status, stream

BENCHMARKS = (
    fanout.BENCHMARK,
    stream.BENCHMARK,
    again.BENCHMARK,
    local.BENCHMARK,
    archive.BENCHMARK,
    relocation.BENCHMARK,
    slow.BENCHMARK,
    startup.BENCHMARK,
    status.BENCHMARK,
    memory.BENCHMARK,
)
