"""Paths in shell scripts, quoted as the shells that read them want it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.formats.shell_text import is_shell, substitute

if TYPE_CHECKING:
    from pathlib import Path

OLD = b"/p/venv"
PLACES = ["/tmp/plain", "/tmp/my dir", "/tmp/o'ne", "/tmp/do$HOME(x)", '/tmp/q"uo`te', "/tmp/a;b &c"]
TEXTS = {
    "sh": b"""# it's in /p/venv
if [ ! -d /p/venv ]; then echo "no "/p/venv; fi
V=/p/venv/bin
W='/p/venv'/bin
X="/p/venv/bin"
Y=$(echo "/p/venv/bin")
Z="$(echo "/p/venv/bin")"
printf '%s\\n' "$V" "$W" "$X" "$Y" "$Z"
""",
    "csh": b"""set v = '/p/venv'"/"'bin'
set w = /p/venv/bin
set x = "/p/venv/bin"
echo $v:q
echo $w:q
echo $x:q
""",
    "fish": b"""set -l v '/p/venv/bin'
set -l w /p/venv/bin
set -l x "/p/venv/bin"
printf '%s\\n' $v $w $x
""",
}
SHELLS = {"sh": "sh", "bash": "sh", "zsh": "sh", "csh": "csh", "fish": "fish"}


@pytest.mark.processes
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shell", SHELLS)
def test_case_18_every_shell_reads_the_new_place(tmp_path: Path, shell: str, place: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    text = TEXTS[SHELLS[shell]]
    new, count = substitute(PrefixMap({OLD: place.encode()}), text)
    assert count == text.count(OLD)
    script = tmp_path / "script"
    script.write_bytes(new.replace(b"[ ! -d", b"[ -d"))
    done = subprocess.run(
        [shell, str(script)], capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    )
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert lines
    assert set(lines) == {place + "/bin"}


def test_what_needs_no_quotes_gets_none() -> None:
    prefixes = PrefixMap({OLD: b"/tmp/a-b_c.d+e"})
    assert substitute(prefixes, TEXTS["sh"]) == prefixes.substitute(TEXTS["sh"])


def test_what_was_escaped_stays_so() -> None:
    prefixes = PrefixMap({b"/p/a b": b"/t/c d", b"/p/e": b"/t/f"})
    text = b"cd /p/a\\ b/x '/p/a b' file:///p/a%20b /p/e"
    assert substitute(prefixes, text) == (b"cd /t/c\\ d/x '/t/c d' file:///t/c%20d /t/f", 4)


@pytest.mark.parametrize(
    ("path", "data", "answer"),
    [
        (b"bin/activate", b"", True),
        (b"bin/activate.fish", b"", True),
        (b"etc/conda/activate.d/x.sh", b"", True),
        (b"bin/wrapper", b"#!/bin/bash -e\n", True),
        (b"bin/wrapper", b"#!/usr/bin/env zsh\n", True),
        (b"bin/pip", b"#!/bin/sh\n'''exec' '/p/venv/bin/python' \"$0\" \"$@\"\n", False),
        (b"bin/pip", b"#!/p/venv/bin/python\n", False),
        (b"bin/activate.nu", b"", False),
        (b"bin/activate_this.py", b"", False),
        (b"lib/x.cfg", b"home = /p/sh\n", False),
    ],
)
def test_which_files_are_shell_scripts(path: bytes, data: bytes, answer: bool) -> None:  # noqa: FBT001 - a parameter
    assert is_shell(path, data) is answer
