"""Names of the files and directories of an environment, and where the code of an editable install is moved."""

from __future__ import annotations

import re
from typing import NamedTuple

PYTHON_DIRECTORY = b".python"
"""The embedded base Python."""
EDITABLE_DIRECTORY = b".editable"
"""The snapshots of editable installs."""
PYVENV_CFG = b"pyvenv.cfg"
CONDA_META = b"conda-meta"
BYTECODE_SUFFIX = b".pyc"
ENV_SCRIPT = b"env.sh"
HOOK_FILE = re.compile(rb"(__editable__.*|_editable_.*|_.*_editable|_.*_editable_loader)\.py\Z", re.DOTALL)
"""Names that build backends give to their import hooks."""


class Move(NamedTuple):
    """One directory or module that is included in the copy.

    Attributes:
        source: Absolute path on this host.
        target: Path relative to the environment. A single package or module keeps its last component.
        on_sys_path: Whether source is a directory of sys.path, of which only `names` are included. Otherwise all of it
            is included, without EXCLUDED_BELOW.
        names: The included names in source if `on_sys_path`.
        prefixes: Pairs of a path as files spell it now and the path at the destination, the longest first.
    """

    source: bytes
    target: bytes
    on_sys_path: bool
    names: tuple[bytes, ...]
    prefixes: tuple[tuple[bytes, bytes], ...]
