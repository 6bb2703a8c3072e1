"""The older module path of `ezpz yeet env`: its documented functions, over the new code."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import click

from ezpz.cli.deprecated import YEET_STRAYS, without_stray
from ezpz.cli.output import Output
from ezpz.errors import EzpzError
from ezpz.yeet.engines.copy_tree import pick_source

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "parse_args", "pick_source", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what `ezpz yeet env` does with the arguments `argv` (default: sys.argv) and return its exit status."""
    return run(argv)


def run(argv: Sequence[str] | None = None) -> int:
    """Do what `ezpz yeet env` does with the arguments `argv` (default: sys.argv) and return its exit status."""
    from ezpz.cli.app import main as ezpz

    try:
        ezpz.main(["yeet", "env", *_arguments(argv)])
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of `ezpz yeet env` as its own parser reads them.

    `src` is the positional argument or --src, or None. Raises SystemExit: 2 for a bad line, 0 after --help.
    """
    from ezpz.yeet.cli.env_command import env_command

    try:
        with env_command.make_context("ezpz yeet env", _arguments(argv)) as ctx:
            options, output = dict(ctx.params), Output.of(ctx)
            positional = options.pop("src_arg", None)
            if positional is not None and options.get("src") is not None:
                raise click.UsageError("'SRC' and '--src' exclude each other.", ctx)
    except click.exceptions.Exit as e:
        raise SystemExit(e.exit_code) from None
    except click.ClickException as e:
        e.show()
        raise SystemExit(e.exit_code) from None
    except EzpzError as e:
        Output().error(e)
        raise SystemExit(e.exit_code) from None
    if positional is not None:
        options["src"] = positional
    return argparse.Namespace(**options, json=output.json, verbose=output.verbose, quiet=output.quiet)


def _arguments(argv: Sequence[str] | None) -> list[str]:
    return without_stray(sys.argv[1:] if argv is None else argv, YEET_STRAYS)


if __name__ == "__main__":
    sys.exit(main())
