"""Cache: directories that are made once and used by every run of the tests on this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def settle(partial: Path, target: Path) -> None:
    """Give a finished directory its lasting name, unless somebody else was sooner with one like it."""
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(partial)
