"""A tree with the shape, size, and number of files of an environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab.environments import make_tree

if TYPE_CHECKING:
    from pathlib import Path

FILES, BYTES = 15_000, 500_000_000
SCRIPTS = 60
ACTIVATE = 'VIRTUAL_ENV="{prefix}"\nexport VIRTUAL_ENV\nPATH="$VIRTUAL_ENV/bin:$PATH"\nexport PATH\n'
SCRIPT = "#!{prefix}/bin/python3\nimport sys\n\nfrom package_000 import main\n\nsys.exit(main())\n"


def environment(parent: Path, *, scale: float = 1.0) -> Path:
    """Write ``scale`` x 500 MB in 15,000 files, with `pyvenv.cfg` and scripts that contain the path, as in a venv."""
    prefix = parent / "env"
    make_tree(prefix, files=int(FILES * scale), total_bytes=int(BYTES * scale), seed=1)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to("/usr/bin/python3")
    (prefix / "bin" / "activate").write_text(ACTIVATE.format(prefix=prefix))
    for number in range(SCRIPTS):
        script = prefix / "bin" / f"tool-{number}"
        script.write_text(SCRIPT.format(prefix=prefix))
        script.chmod(0o755)
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = 3.11.2\ncommand = python3 -m venv {prefix}\n")
    return prefix


def warm(root: Path) -> None:
    """Read every file into the page cache."""
    buffer = bytearray(1 << 20)
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass
