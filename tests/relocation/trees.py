"""Plain trees and what `ezpz yeet` makes of them on this host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import clean_environment
from tests.contract.support import NOBODY
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Document = dict[str, Any]
STRATEGIES = ("direct", "rsync", "cp", "compress")


def yeet(
    source: Path,
    destination: Path,
    *options: str,
    exit_code: int = 0,
    under: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Document:
    """Run `ezpz yeet` on this host alone, perhaps under another command; the document that it prints."""
    argv = [*under, sys.executable, "-m", "ezpz", "yeet", "env", str(source), "--dst", str(destination)]
    argv += ["--hosts", "localhost", "--json", *options]
    environ = {**clean_environment(), **(env or {})}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == exit_code, f"{argv} exited {done.returncode}\n{done.stdout}{done.stderr}"
    document: Document = json.loads(done.stdout)
    return document


def warnings(document: Document) -> dict[str, tuple[int, list[str]]]:
    """The cases that a run warned of: how many, and the first paths."""
    return {each["case"]: (each["count"], each["paths"]) for each in document["relocation"]["warnings"]}


def refusal(document: Document) -> tuple[str, str]:
    """The code and message of what ended a run, or of the only node's failure."""
    error = document.get("error") or document["nodes"][0]["failure"]
    return error["code"], error["message"]


def powerless() -> tuple[str, ...]:
    """What a command begins with so that it obeys permission bits, which root otherwise does not."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root obeys no permission bits, and setpriv is not here")
    return ("setpriv", "--bounding-set=-all")


def ordinary(*owned: Path) -> tuple[str, ...]:
    """What a command begins with to run as a user who is not root, may read everything, and to whom these belong."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("this is root, and setpriv is not here")
    for top in owned:
        for path in (top, *top.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all,+dac_read_search")
    return ("setpriv", *user, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")


def names(root: Path) -> set[str]:
    """Every path below a folder but those of ezpz itself."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.name.startswith(".ezpz-yeet-")}


def beside(destination: Path) -> list[str]:
    """What lies beside a destination; nothing of ezpz may."""
    return sorted(path.name for path in destination.parent.iterdir() if path != destination)
