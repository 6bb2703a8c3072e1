"""Identifiers of runs."""

from __future__ import annotations

import os
import time


def new_run_id() -> str:
    """Return an identifier for a run: the time, and random digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"
