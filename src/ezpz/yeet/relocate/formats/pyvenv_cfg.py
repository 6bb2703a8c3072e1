"""Read and replace the settings of pyvenv.cfg (PEP 405)."""

from __future__ import annotations

import re

SETTING = re.compile(rb"^[ \t]*([\w-]+)[ \t]*=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


def parse_settings(configuration: bytes) -> dict[bytes, bytes]:
    """Return the settings of a pyvenv.cfg, with names in lower case."""
    return {match.group(1).lower(): match.group(2) for match in SETTING.finditer(configuration)}


def replace_settings(configuration: bytes, new: dict[bytes, bytes]) -> bytes:
    """Return a pyvenv.cfg with the values of existing settings replaced. Everything else stays byte for byte."""

    def replaced(match: re.Match[bytes]) -> bytes:
        value = new.get(match.group(1).lower())
        if value is None:
            return match.group()
        start = match.start()
        return match.group()[: match.start(2) - start] + value + match.group()[match.end(2) - start :]

    return SETTING.sub(replaced, configuration)
