"""The `ezpz` group, whose commands are plugins that are loaded when called, and the handling of all failures."""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ezpz import __version__
from ezpz.cli.output import output_of
from ezpz.errors import EzpzError, Interrupted, PluginError, UsageError
from ezpz.runtime.plugins import reject_duplicates
from ezpz.runtime.signals import Received, interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

GROUP = "ezpz.commands"
_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


class InternalError(EzpzError):
    """A bug: an exception that ezpz does not expect."""

    code, exit_code = "bug", 70


class BrokenCommand(click.Command):
    """A placeholder for a plugin that cannot be loaded. Calling it raises `error`."""

    def __init__(self, name: str, error: PluginError) -> None:
        super().__init__(name, add_help_option=False, hidden=True)
        self.error = error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise `error` for all arguments, but not for a shell that requests completions."""
        if not ctx.resilient_parsing:
            raise self.error
        return args


class Plugins(click.Group):
    """A group of commands that are entry points, each loaded only when it is needed.

    A broken plugin breaks only its own command. `entry_group` is the entry-point group.
    """

    def __init__(self, *, entry_group: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.entry_group = entry_group
        self._found: dict[str, tuple[EntryPoint, ...]] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return every declared name, sorted. Nothing is loaded."""
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return the command of that name, a BrokenCommand if its plugin cannot be loaded, or None if there is none."""
        points = self._entry_points().get(cmd_name)
        if points and cmd_name not in self.commands:
            try:
                reject_duplicates("command", points)
                self.commands[cmd_name] = _load(points[0])
            except PluginError as e:
                self.commands[cmd_name] = BrokenCommand(cmd_name, e)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Do what click does, but add similar names to the error for an unknown command."""
        name = args[0]
        if name not in self._entry_points() and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(name, self.list_commands(ctx))
            meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise click.UsageError(f"No such command {name!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, then the broken plugins, each on one line that is never wrapped, to search and to copy."""
        super().format_commands(ctx, formatter)
        commands = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        broken = [command for command in commands if isinstance(command, BrokenCommand)]
        if broken:
            with formatter.section("Broken plugins"):
                for command in broken:
                    formatter.write(f"  {command.name}: {' '.join(command.error.message.split())}\n")

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002, ARG002 - click's signature
        **extra: Any,
    ) -> NoReturn:
        """Run the command line `args` (default: sys.argv) and exit. All exceptions end here."""
        line = list(sys.argv[1:] if args is None else args)
        name = prog_name or str(self.name)
        context: click.Context | None = None
        interrupted = Received()

        def run() -> None:
            nonlocal context, interrupted
            _complete(self, name, complete_var or f"_{name.upper()}_COMPLETE", extra)
            with interruptible() as interrupted:
                context = self.make_context(name, line, **extra)
                with context:
                    self.invoke(context)
            if sys.stdout is not None:
                sys.stdout.flush()

        raised = _attempt(run)
        sys.exit(_report(raised, context, line, interrupted.first) if isinstance(raised, BaseException) else 0)

    def _entry_points(self) -> dict[str, tuple[EntryPoint, ...]]:
        if self._found is None:
            from importlib.metadata import entry_points

            self._found = {}
            for point in entry_points(group=self.entry_group):
                self._found[point.name] = (*self._found.get(point.name, ()), point)
        return self._found


def _load(point: EntryPoint) -> click.Command:
    loaded = _attempt(point.load)
    if isinstance(loaded, click.Command):
        return loaded
    if isinstance(loaded, KeyboardInterrupt):
        raise loaded
    cause = loaded if isinstance(loaded, BaseException) else None
    reason = f"{type(cause).__name__}: {cause}" if cause else f"it is a {type(loaded).__name__}, not a click command"
    owner = f", from {point.dist.name} {point.dist.version}" if point.dist else ""
    raise PluginError(
        f"the command '{point.name}' cannot be loaded: {reason} ({point.value}{owner})",
        hint="reinstall or uninstall the package that brings it; the other commands work without it",
    ) from cause


def _attempt(action: Callable[[], object]) -> object:
    """Return the result of the action, or the exception that ended it."""
    try:
        return action()
    except (Exception, SystemExit, KeyboardInterrupt) as e:  # noqa: BLE001 - the only catch-all on the launch host
        return e


def _complete(group: click.Group, name: str, variable: str, extra: dict[str, Any]) -> None:
    """Answer a shell that requests completions, and exit. Return if none does."""
    instruction = os.environ.get(variable.replace("-", "_"))
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(group, extra, name, variable, instruction))


def _report(raised: BaseException, ctx: click.Context | None, line: Sequence[str], number: int) -> int | str | None:
    """Print what ended the run, and return the exit status. `number` is the first signal, or 0."""
    if isinstance(raised, SystemExit):
        return raised.code
    if isinstance(raised, click.exceptions.Exit):
        return raised.exit_code
    if isinstance(raised, click.exceptions.NoArgsIsHelpError):
        raised.show()
        return raised.exit_code
    if isinstance(raised, BrokenPipeError) and _is_reader_gone():
        return _BROKEN_PIPE
    error, output = _to_ezpz_error(raised, number), output_of(ctx, line)
    if os.environ.get("EZPZ_DEBUG", "") not in ("", "0") or (output.verbose and isinstance(error, InternalError)):
        import traceback

        traceback.print_exception(raised)
    output.error(error)
    return error.exit_code


def _to_ezpz_error(raised: BaseException, number: int) -> EzpzError:
    """Return the error for users that an exception means."""
    if isinstance(raised, EzpzError):
        return raised
    if isinstance(raised, click.UsageError):
        path = raised.ctx.command_path if raised.ctx else "ezpz"
        return UsageError(raised.format_message(), hint=f"see '{path} --help'")
    if isinstance(raised, click.ClickException):
        return EzpzError(raised.format_message())
    if isinstance(raised, (click.exceptions.Abort, KeyboardInterrupt)):
        return Interrupted("interrupted", signal=number or signal.SIGINT)
    return InternalError(
        f"this is a bug in ezpz: {type(raised).__name__}: {raised}",
        hint="run it again with EZPZ_DEBUG=1, and report what it prints",
    )


def _is_reader_gone() -> bool:
    """Return whether the reader of stdout or stderr has gone. If so, drop what is still in their buffers."""
    poll = select.poll()
    streams = {stream.fileno(): stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None}
    for descriptor in streams:
        poll.register(descriptor, 0)
    gone = [descriptor for descriptor, _ in poll.poll(0)]
    for descriptor in gone:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), descriptor)
    return bool(gone)


main = click.version_option(__version__, prog_name="ezpz")(
    Plugins(
        name="ezpz",
        entry_group=GROUP,
        help="Put an environment on the local disk of every node of a job, and start the ranks there.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
)
