"""A signal that asks `status` and `clean` to end, while many nodes are being started on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import clean_environ
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

NODES = ",".join(f"node{number}" for number in range(40))
SSH = """#!/bin/sh
mkdir "{first}" 2>/dev/null && kill -{number} {parent}
exec cat >/dev/null
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command", [("clean", "--yes"), ("status",), ("status", "--watch"), ("status", "--leaks", "/nowhere/tree")]
)
def test_it_ends_with_the_signal_and_asks_no_node_to_the_end(
    tmp_path: Path, command: tuple[str, ...], number: int
) -> None:
    """The signal arrives while ezpz starts ssh to the next node, so within the work for one node."""
    stub = tmp_path / "ssh"
    stub.write_text(SSH.format(first=tmp_path / "first", number=number, parent="$PPID"))
    stub.chmod(0o755)
    environ = clean_environ()
    environ["PATH"] = f"{tmp_path}:{environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "ezpz", "yeet", *command, "--hosts", NODES, "--json"],
        env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (128 + number, False), done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "interrupted", done.stdout
