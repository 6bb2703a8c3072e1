"""Names of the files and directories that relocation knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

PYTHON_DIRECTORY = b".python"
HOOK_FILE = re.compile(rb"(__editable__.*|_editable_.*|_.*_editable|_.*_editable_loader)\.py\Z", re.DOTALL)
Inside: TypeAlias = Callable[[bytes], bool]
EDITABLE_DIRECTORY = b".editable"


class Move(NamedTuple):
    """One directory or module that comes along.

    source: an absolute path on this host
    target: relative to the environment; of a single package or module it keeps the last component
    whole, names: only these names below source are carried; otherwise all of it, without EXCLUDED_BELOW
    prefixes: paths as they are spelled now, and as they are at the destination, the longest first
    """

    source: bytes
    target: bytes
    whole: bool
    names: tuple[bytes, ...]
    prefixes: tuple[tuple[bytes, bytes], ...]


CONFIGURATION = b"pyvenv.cfg"
