"""The older names of commands: each says its new name, then is it."""

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
    """`ezpz-yeet-env`: now `ezpz yeet`."""
    _forward("ezpz-yeet-env", "ezpz yeet", ["yeet", "env", *without_stray(sys.argv[1:], YEET_STRAYS)])


def tar_env() -> NoReturn:
    """`ezpz-tar-env`: now `ezpz yeet tar`."""
    _forward("ezpz-tar-env", "ezpz yeet tar", ["yeet", "tar", *without_stray(sys.argv[1:], TAR_STRAYS)])


def launch() -> NoReturn:
    """`ezpz-launch`: now `ezpz launch`."""
    _forward("ezpz-launch", "ezpz launch", ["launch", *without_stray(sys.argv[1:], LAUNCH_STRAYS)])


def deprecation(old: str, new: str) -> str:
    """The one line that tells a user of `old` to type `new`."""
    return f"'{old}' is deprecated: use '{new}'"


def without_stray(args: Sequence[str], strays: Sequence[str]) -> list[str]:
    """The arguments without the command's own name, which older scripts put first; one of `strays` at most."""
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
