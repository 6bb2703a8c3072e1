"""Scripts for each shell that activate a conda environment without conda.

Conda's own activation would use the source. The scripts are in `activation_scripts/`, with words as @NAME@ to fill in.
"""

from __future__ import annotations

import os
import re


def standalone_activation(destination: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the path and content of the scripts for each shell that activate the conda environment at `destination`.

    Like conda, they put its programs first in PATH, name it in the prompt and in CONDA_*, leave the active environment,
    and run `etc/conda/activate.d`. `deactivate` restores the environment that was active.
    """
    name = os.path.basename(destination.rstrip(b"/"))
    shown = re.sub(rb"[^\w.+@ \x80-\xff-]", b"_", name)  # a prompt is expanded each time
    return (
        (b"bin/activate", _fill_template("activate.sh", shown, _quote_sh(name), _quote_sh(destination))),
        (b"bin/activate.fish", _fill_template("activate.fish", shown, _quote_fish(name), _quote_fish(destination))),
        (b"bin/activate.csh", _fill_template("activate.csh", shown, _quote_csh(name), _quote_csh(destination))),
    )


def _fill_template(script: str, shown: bytes, base: bytes, prefix: bytes) -> bytes:
    from importlib.resources import files

    template = (files("ezpz.yeet.relocate.additions") / "activation_scripts" / script).read_bytes()
    words = {b"@NAME@": shown, b"@BASE@": base, b"@PREFIX@": prefix}
    return re.sub(rb"@[A-Z]+@", lambda match: words[match.group()], template)


def _quote_sh(path: bytes) -> bytes:
    return b"'" + path.replace(b"'", rb"'\''") + b"'"


def _quote_fish(path: bytes) -> bytes:
    return b"'" + path.replace(b"\\", rb"\\").replace(b"'", rb"\'") + b"'"


def _quote_csh(path: bytes) -> bytes:
    """Return a path quoted for csh, including its history expansion, which applies within quotes."""
    return b"'" + path.replace(b"'", rb"'\''").replace(b"!", rb"\!") + b"'"
