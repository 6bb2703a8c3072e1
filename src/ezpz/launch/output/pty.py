"""Terminals for commands whose output we read: with one they colour their output and draw progress bars."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
import termios
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def open_terminal() -> tuple[int, int]:
    """Our end and the command's end of a new terminal, which changes nothing that goes through, as large as ours."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    copy_window_size(ours)
    return ours, theirs


def copy_window_size(ours: int) -> None:
    """Give a terminal that we made the size of the one that we run on, if we do."""
    for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                columns, lines = os.get_terminal_size(stream.fileno())
                fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
                return


def force_color(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that makes ranks on other nodes colour their output, which no terminal of ours reaches."""
    return {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", **environ} if "NO_COLOR" not in environ else dict(environ)
