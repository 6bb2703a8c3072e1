"""Older names of commands: each prints its new name, then runs it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

YEET_STRAYS = ("yeet-env", "yeet")
TAR_STRAYS = ("tar-env", "yeet tar", "tar")
LAUNCH_STRAYS = ("launch",)


def yeet_env() -> NoReturn:
    """Run `ezpz-yeet-env`, which is `ezpz yeet` now."""
    _forward("ezpz-yeet-env", "ezpz yeet", ["yeet", "env", *without_stray(sys.argv[1:], YEET_STRAYS)])


def tar_env() -> NoReturn:
    """Run `ezpz-tar-env`, which is `ezpz yeet tar` now."""
    _forward("ezpz-tar-env", "ezpz yeet tar", ["yeet", "tar", *without_stray(sys.argv[1:], TAR_STRAYS)])


def launch() -> NoReturn:
    """Run `ezpz-launch`, which is `ezpz launch` now."""
    _forward("ezpz-launch", "ezpz launch", ["launch", *without_stray(sys.argv[1:], LAUNCH_STRAYS)])


def deprecation(old: str, new: str) -> str:
    """Return the line that tells a user of `old` to use `new`."""
    return f"'{old}' is deprecated: use '{new}'"


def without_stray(args: Sequence[str], strays: Sequence[str]) -> list[str]:
    """Return the arguments without the command's own name, which older scripts put first: at most one of `strays`."""
    for stray in strays:
        words = stray.split()
        if list(args[: len(words)]) == words:
            return list(args[len(words) :])
    return list(args)


def _forward(old: str, new: str, args: list[str]) -> NoReturn:
    from ezpz.cli.app import main
    from ezpz.cli.output import Output

    Output().warn(deprecation(old, new))
    main.main(args)
