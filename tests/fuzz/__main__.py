"""Mutate valid input of each decoder for so long; print how many cases were tried, and what broke one."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.fuzz.decoders import DECODERS, broken_by


def main() -> int:
    """Fuzz every decoder in turns; exit 1 at the first input that a decoder does not refuse properly."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    deadline = time.monotonic() + arguments.seconds
    tried = 0
    while time.monotonic() < deadline:
        for decoder in DECODERS:
            data, error = broken_by(decoder, rng)
            tried += 1
            if error is not None:
                print(f"{decoder.name} raised {error!r} for {data!r} (seed {arguments.seed})")
                return 1
    print(f"{tried:,} inputs to {len(DECODERS)} decoders, seed {arguments.seed}: all were taken or refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
