"""A group of commands with a default, as in `ezpz yeet SRC`."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import click

OUTPUT_FLAGS = ("--json", "-v", "-vv", "--verbose", "-q", "--quiet")  # they may also stand before a subcommand


class DefaultGroup(click.Group):
    """A group that runs `default` if the arguments name no subcommand."""

    default = "env"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:  # the word that is being typed may yet name a subcommand
            return super().parse_args(ctx, args)
        said = list(takewhile(OUTPUT_FLAGS.__contains__, args))
        rest = args[len(said) :]
        named = rest[:1] if rest and rest[0] in (*self.commands, *ctx.help_option_names) else [self.default]
        if named == rest[:1]:
            rest = rest[1:]
        return super().parse_args(ctx, [*named, *said, *rest])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands[self.default].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the subcommands, and the completions of the default."""
        env = self.commands[self.default]
        own = super().shell_complete(ctx, incomplete)
        with env.make_context(self.default, [], parent=ctx, resilient_parsing=True) as inner:
            theirs = (
                env.shell_complete(inner, incomplete)
                if incomplete.startswith("-")
                else _complete_source(env, inner, incomplete)
            )
        return [*own, *theirs]


def _complete_source(env: click.Command, ctx: click.Context, incomplete: str) -> list[Any]:
    argument = next(param for param in env.params if isinstance(param, click.Argument))
    return argument.shell_complete(ctx, incomplete)
