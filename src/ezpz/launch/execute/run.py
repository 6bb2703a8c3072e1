"""Runs a LaunchPlan: the hostfile, the command in the foreground, and its exit status."""

from __future__ import annotations

import contextlib
import errno
import functools
import secrets
import shlex
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import fold, short
from ezpz.errors import CommandNotFound, EzpzError, LauncherFailed, LauncherMissing, NodeLost, ToolMissing
from ezpz.launch.execute.foreground import run_in_foreground
from ezpz.launch.launchers.base import HOSTFILE
from ezpz.launch.launchers.startup_protocol import NO_COMMAND, NO_ENVIRONMENT, SCRIPT_NAME, UNTRUSTED
from ezpz.launch.output.startup_markers import StartupReport
from ezpz.launch.output.stderr_reader import StderrReader
from ezpz.launch.plan.rank_wrapper import find_wrapper_name
from ezpz.runtime.signals import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ezpz.cluster.allocation import Node
    from ezpz.launch.launchers.base import Invocation
    from ezpz.launch.output.startup_markers import StartupMarker
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.runtime import process

GRACE = 10.0  # seconds for ranks to end after Ctrl-C or SIGTERM, for instance to write a checkpoint
SPARES_HINT = "with --spares and --max-restarts it starts again without such a node"
NOT_RUN = (NO_COMMAND, NO_ENVIRONMENT, UNTRUSTED)
REQUESTED_STATUSES = (129, 130, 131, 143)  # of a command that was ended by a signal that asks to end


def execute(plan: LaunchPlan, *, environ: Mapping[str, str], stdout: int | None = None, grace: float = GRACE) -> int:
    """Run the command of a plan on this terminal and return its exit status (128 + N for signal N).

    Args:
        plan: The plan.
        environ: The environment of the launcher.
        stdout: A descriptor in place of stdout.
        grace: Seconds for ranks to end after a signal.

    Raises:
        CommandNotFound: The command, or its environment, does not exist or cannot be trusted.
        LauncherMissing: The launcher cannot be started.
        LauncherFailed: The launcher ended before any rank ran.
        NodeLost: A node is unreachable or lost.
    """
    result = run_plan(plan, environ=environ, stdout=stdout, grace=grace)
    if result.error is not None:
        raise result.error
    return result.status


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a run ended.

    Attributes:
        status: The exit status.
        error: The failure, if the command is not the cause.
        without_command: The hosts that do not have the command or a trusted environment.
    """

    status: int
    error: EzpzError | None = None
    without_command: tuple[str, ...] = ()


def run_plan(
    plan: LaunchPlan,
    *,
    environ: Mapping[str, str],
    stdout: int | None = None,
    grace: float = GRACE,
    runner: Callable[..., int] | None = None,
) -> CommandResult:
    """Run the command of a plan to its end.

    Args:
        plan: The plan.
        environ: The environment of the launcher.
        stdout: A descriptor in place of stdout.
        grace: Seconds for ranks to end after a signal.
        runner: A function in place of `run_on_terminal`, with the same arguments. What it raises is raised here.

    Raises:
        CommandNotFound: The command cannot be started on this host.
        LauncherMissing: The launcher cannot be started on this host.
    """
    envs = [{**environ, **extra} for extra in plan.invocation.rank_environments]
    forwarded: list[int] = []

    def forward_signal(running: process.Running, number: int) -> None:
        if number in ENDING:
            forwarded.append(number)
        plan.started_by.forward_signal(running, number, plan.spec)

    run = runner or run_on_terminal
    run = functools.partial(run, envs=envs, grace=grace, stdout=stdout, forward_signal=forward_signal)
    name = f"{SCRIPT_NAME}-{secrets.token_hex(4)}"
    report = StartupReport(name, plan.invocation.exit_pattern, plan.invocation.unreachable_pattern, plan.spec.ranks)
    try:
        with _argv_with_hostfile(plan.invocation) as argv:
            index = find_wrapper_name(argv)
            if index is None or plan.started_by.writes_output_files(plan.spec.options):
                return CommandResult(run(argv, report=None))
            argv[index] = report.name
            status = run(argv, report=report)
            return interpret_exit(plan, plan.started_by.exit_status(status, forwarded), report)
    except ToolMissing as e:
        raise _not_found(plan, e.message, e.hint) from e
    except BrokenPipeError:  # the reader of the output has gone
        raise
    except OSError as e:
        raise _not_found(
            plan,
            f"'{plan.invocation.argv[0]}' cannot be started on this host: {e.strerror}",
            "does the script begin with #!?" if e.errno == errno.ENOEXEC else "",
        ) from e


def run_on_terminal(
    argv: Sequence[str],
    *,
    envs: Sequence[Mapping[str, str]],
    grace: float,
    stdout: int | None,
    report: StartupReport | None,
    forward_signal: Callable[[process.Running, int], None],
) -> int:
    """Run a command line on this terminal. Only stderr is read and forwarded, if there is a `report` to fill."""
    run = functools.partial(
        run_in_foreground, argv, envs=envs, grace=grace, stdout=stdout, forward_signal=forward_signal
    )
    if report is None:
        return run()
    reader = StderrReader(report, 2)
    with reader.open_pipe() as stderr:
        return run(stderr=stderr, is_hopeless=reader.is_hopeless if report.unreachable_pattern else None)


@contextlib.contextmanager
def _argv_with_hostfile(invocation: Invocation) -> Iterator[list[str]]:
    """Yield the command line with the path of a hostfile that exists until the end of the context."""
    argv = list(invocation.argv)
    if not invocation.hostfile:
        yield argv
        return
    with tempfile.NamedTemporaryFile("w", prefix="ezpz-hosts-", encoding="utf-8") as file:  # mode 0600
        file.write(invocation.hostfile)
        file.flush()
        argv[argv.index(HOSTFILE)] = file.name
        yield argv


def interpret_exit(plan: LaunchPlan, status: int, report: StartupReport) -> CommandResult:
    """Return what the status of a launcher means, given what its ranks have reported. Pure."""
    error = find_failure(plan, status, report.markers, report.tail.decode(errors="replace"))
    unreachable = report.unreachable_match
    if unreachable is not None and report.is_starting and (report.given_up or status not in (0, *REQUESTED_STATUSES)):
        error = NodeLost(
            f"{plan.invocation.argv[0]} cannot reach all nodes: {unreachable[0].decode(errors='replace').strip()}",
            hint="leave the node out with --exclude; --check finds such nodes first",
        )
    without_command = {marker.host for marker in report.markers if marker.what in NOT_RUN}
    groups = report.exit_match.groupdict() if report.exit_match is not None and error is None else {}
    lost = short((groups.get("lost") or b"").decode(errors="replace"))
    names = {name for node in plan.spec.allocation.nodes for name in _short_names(node)}
    if status not in REQUESTED_STATUSES and lost in names:
        error = NodeLost(f"{lost} was lost while the command ran", hint=SPARES_HINT)
        return CommandResult(status or error.exit_code, error)
    return CommandResult(plan.started_by.rank_status(status, groups), error, tuple(sorted(without_command)))


def _short_names(node: Node) -> tuple[str, str]:
    return node.name, short(node.address)


def find_failure(plan: LaunchPlan, status: int, markers: Sequence[StartupMarker], stderr: str) -> EzpzError | None:
    """Return why a run failed, None if its command is the cause or nothing failed. Pure.

    Args:
        plan: The plan.
        status: The status of the launcher.
        markers: What the ranks reported.
        stderr: The end of the output on stderr.
    """
    error = _unusable_nodes(plan, markers)
    if error is not None:
        return error
    if status == 0 or markers or status in REQUESTED_STATUSES or plan.started_by.is_local:
        return None
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "it said nothing")
    return LauncherFailed(
        f"{plan.invocation.argv[0]} failed with status {status} before any rank ran: {last}",
        hint="nothing of COMMAND has run; `ezpz launch --dry-run` shows the line to try by hand",
    )


def _unusable_nodes(plan: LaunchPlan, markers: Sequence[StartupMarker]) -> CommandNotFound | None:
    """Return the error for nodes on which the command could not be started, None if there are none."""
    hosts = {what: sorted({marker.host for marker in markers if marker.what == what}) for what in NOT_RUN}
    prefix = plan.facts.environment.prefix if plan.facts.environment is not None else None
    if hosts[UNTRUSTED] and prefix is not None:
        return CommandNotFound(
            f"the environment at {prefix} on {fold(hosts[UNTRUSTED])} was not used: "
            "another user owns it, or can change it",
            hint=f"look at it there: `ls -ld {shlex.quote(prefix)}`; --exclude the node, or yeet to another place",
        )
    if hosts[NO_ENVIRONMENT] and prefix is not None:
        return CommandNotFound(
            f"there is no environment at {prefix} on {fold(hosts[NO_ENVIRONMENT])}", hint="run `ezpz yeet` first"
        )
    if hosts[NO_COMMAND]:
        command = plan.request.command[0]
        return CommandNotFound(
            f"'{command}' is not on {fold(hosts[NO_COMMAND])}, or is no program there",
            hint="give its full path, or --env",
        )
    return None


def _not_found(plan: LaunchPlan, message: str, hint: str) -> EzpzError:
    is_command = plan.invocation.argv == plan.spec.command
    return (CommandNotFound if is_command else LauncherMissing)(message, hint=hint)
