"""A shared file system that answers slowly: every metadata call under one directory costs so many microseconds."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.lab.model import LabUnavailable

SOURCE = Path(__file__).with_name("slowfs.c")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ezpz-lab"


def slowfs(prefix: Path, microseconds: int, *, cache: Path = CACHE) -> dict[str, str]:
    """Return the environment variables that make ``prefix`` slow for a dynamically linked program and its children.

    Each open, stat, readlink, opendir, access and getxattr by path sleeps; reads, writes and calls on open
    files do not. Threads sleep side by side. The library is compiled into ``cache`` when it is not there.
    """
    return {
        "LD_PRELOAD": str(_library(cache)),
        "SLOWFS_PREFIX": os.path.realpath(prefix),
        "SLOWFS_MICROSECONDS": str(microseconds),
    }


def _library(cache: Path) -> Path:
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = cache / f"slowfs-{digest}.so"
    if not library.exists():
        _compile(library)
    return library


def _compile(library: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise LabUnavailable("slowfs needs a C compiler")
    library.parent.mkdir(parents=True, exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}")
    flags = ("-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(partial))
    subprocess.run([compiler, *flags, str(SOURCE), "-ldl"], check=True)
    partial.rename(library)
