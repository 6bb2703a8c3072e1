"""Pseudo-terminals for commands whose output is read: on one, programs print colors and progress bars."""

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
    """Return the two ends of a new raw terminal of the size of ours: the controlling end and that of the command."""
    controller, terminal = os.openpty()
    tty.setraw(terminal)
    copy_window_size(controller)
    return controller, terminal


def copy_window_size(controller: int) -> None:
    """Set the size of a terminal to that of the terminal that ezpz runs on, if there is one."""
    for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                columns, lines = os.get_terminal_size(stream.fileno())
                fcntl.ioctl(controller, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
                return


def force_color(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which ranks on other nodes, which have no terminal, print colors."""
    return {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", **environ} if "NO_COLOR" not in environ else dict(environ)
