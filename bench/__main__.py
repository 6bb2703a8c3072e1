"""`python -m bench`: measure, print, and write docs/benchmarks.md. Exit 1 when a bound does not hold.

A rehearsal (--quick) writes nothing and judges nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import page
from bench.model import Benchmark, Result, Settings
from bench.registry import BENCHMARKS
from tests.lab.model import LabUnavailable

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def main() -> int:
    """Run the benchmarks of the command line and return the exit code."""
    arguments = _parser().parse_args()
    chosen = tuple(b for b in BENCHMARKS if not arguments.only or b.name in arguments.only)
    if arguments.list:
        for benchmark in chosen:
            print(f"{benchmark.name:<10} {benchmark.title}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    repeated = "python -m bench" + (f" --repeat {arguments.repeat}" if arguments.repeat else "")
    sections: dict[str, str] = {}
    broken: list[str] = []
    for benchmark in chosen:
        result = _measure(benchmark, arguments)
        if result is None:
            continue
        sections[benchmark.name] = page.section(benchmark, result, f"{repeated} --only {benchmark.name}")
        print(sections[benchmark.name], flush=True)
        print()
        broken += [f"{benchmark.name}: {bound.what}" for bound in result.bounds if not bound.holds]
    if not arguments.quick:
        page.renew(PAGE, BENCHMARKS, sections)
        _say(f"written: {PAGE}")
    for line in broken:
        _say(f"a bound does not hold: {line}")
    return 1 if broken and not arguments.quick else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--repeat", type=int, help="how often each is measured (default: each benchmark's own choice)")
    parser.add_argument("--quick", action="store_true", help="a small rehearsal: nothing is written or judged")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    return parser


def _measure(benchmark: Benchmark, arguments: argparse.Namespace) -> Result | None:
    """Run one benchmark in a private directory, on the disk that the hosts of a lab share."""
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ezpz-bench-", dir="/var/tmp", ignore_cleanup_errors=True) as work:
        settings = Settings(
            Path(work), lambda text: _say(f"{benchmark.name}: {text}"), repeat=arguments.repeat, quick=arguments.quick
        )
        try:
            result = benchmark.run(settings)
        except LabUnavailable as e:
            _say(f"{benchmark.name}: not measured: {e}")
            return None
    _say(f"{benchmark.name}: {time.monotonic() - started_at:.0f} s in all")
    return result


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
