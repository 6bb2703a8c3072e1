"""Carry a LaunchPlan out: the hostfile, the command in the foreground, its exit status."""

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
from ezpz.launch.output.startup_markers import StartupReport
from ezpz.launch.output.stderr_reader import StderrReader
from ezpz.launch.plan import rank_wrapper
from ezpz.runtime.signals import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ezpz.cluster.allocation import Node
    from ezpz.launch.launchers.base import Invocation
    from ezpz.launch.plan.plan import LaunchPlan
    from ezpz.launch.plan.rank_wrapper import StartupMarker
    from ezpz.runtime import process

GRACE = 10.0  # seconds that ranks have to end after Ctrl-C or SIGTERM, for instance to write a checkpoint
SPARES_HINT = "with --spares and --max-restarts it starts again without such a node"
NOT_RUN = (rank_wrapper.NO_COMMAND, rank_wrapper.NO_ENVIRONMENT, rank_wrapper.UNTRUSTED)
REQUESTED_STATUSES = (129, 130, 131, 143)  # by a signal that was sent to end it


def execute(plan: LaunchPlan, *, environ: Mapping[str, str], stdout: int | None = None, grace: float = GRACE) -> int:
    """Run the plan's command to its end, on this terminal, and return its exit status (128 + N for signal N).

    `stdout` is a descriptor for what it prints there. Raises CommandNotFound, LauncherMissing, LauncherFailed when the
    launcher gave up before any rank ran, and NodeLost when it tells of a lost node by nothing but words.
    """
    ending = run_plan(plan, environ=environ, stdout=stdout, grace=grace)
    if ending.error is not None:
        raise ending.error
    return ending.status


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a run ended: the exit status, and why its command is not to blame, if it is not.

    lacking: the hosts on which there is no command, or no environment, or another user's
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
    """Run the plan's command to its end. `through`: what runs it, in the place of `foreground` and called so.

    Raises CommandNotFound and LauncherMissing when nothing can be started here, and what `through` raises.
    """
    envs = [{**environ, **extra} for extra in plan.invocation.ranks]
    asked: list[int] = []

    def forward_signal(running: process.Running, number: int) -> None:
        if number in ENDING:
            asked.append(number)
        plan.started_by.forward_signal(running, number, plan.spec)

    run = functools.partial(
        runner or run_on_terminal, envs=envs, grace=grace, stdout=stdout, forward_signal=forward_signal
    )
    name = f"{rank_wrapper.SCRIPT_NAME}-{secrets.token_hex(4)}"
    report = StartupReport(name, plan.invocation.exit_pattern, plan.invocation.unreachable_pattern, plan.spec.ranks)
    try:
        with _argv(plan.invocation) as argv:
            place = rank_wrapper.find_wrapper_name(argv)
            if place is None or plan.started_by.writes_output_files(plan.spec.options):
                return CommandResult(run(argv, report=None))
            argv[place] = report.name
            status = run(argv, report=report)
            return interpret_exit(plan, plan.started_by.exit_status(status, asked), report)
    except ToolMissing as e:
        raise _not_found(plan, e.message, e.hint) from e
    except BrokenPipeError:  # nobody reads what it says
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
    """Run a command line on this terminal, only its stderr goes through us if its ranks `report`."""
    if report is None:
        return run_in_foreground(argv, envs=envs, grace=grace, stdout=stdout, forward_signal=forward_signal)
    reader = StderrReader(report, 2)
    is_hopeless = reader.is_hopeless if report.unreachable_pattern else None
    with reader as stderr:
        return run_in_foreground(
            argv,
            envs=envs,
            grace=grace,
            stdout=stdout,
            stderr=stderr,
            forward_signal=forward_signal,
            is_hopeless=is_hopeless,
        )


@contextlib.contextmanager
def _argv(invocation: Invocation) -> Iterator[list[str]]:
    """The command line, with a hostfile that lasts as long as the context."""
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
    """What the status of a launcher means, as far as its ranks have reported. Pure."""
    error = find_failure(plan, status, report.markers, report.tail.decode(errors="replace"))
    if (
        report.unreachable_match is not None
        and report.is_starting
        and (report.given_up or status not in (0, *REQUESTED_STATUSES))
    ):
        error = NodeLost(
            f"{plan.invocation.argv[0]} cannot reach all nodes: {report.unreachable_match[0].decode(errors='replace').strip()}",
            hint="leave the node out with --exclude; --check finds such nodes first",
        )
    without_command = {mark.host for mark in report.markers if mark.what in NOT_RUN}
    told = report.exit_match.groupdict() if report.exit_match is not None and error is None else {}
    lost = short((told.get("lost") or b"").decode(errors="replace"))
    if status not in REQUESTED_STATUSES and lost in {
        name for node in plan.spec.allocation.nodes for name in _names(node)
    }:
        error = NodeLost(f"{lost} was lost while the command ran", hint=SPARES_HINT)
        return CommandResult(status or error.exit_code, error)
    return CommandResult(plan.started_by.rank_status(status, told), error, tuple(sorted(without_command)))


def _names(node: Node) -> tuple[str, str]:
    """What a launcher may call a node, in short."""
    return node.name, short(node.address)


def find_failure(plan: LaunchPlan, status: int, markers: Sequence[StartupMarker], said: str) -> EzpzError | None:
    """Pure: why a run failed for which its command is not to blame, None if it is, or if nothing failed.

    marks: what the ranks reported. said: the end of what came on stderr.
    """
    absent = sorted({mark.host for mark in markers if mark.what == rank_wrapper.NO_COMMAND})
    homeless = sorted({mark.host for mark in markers if mark.what == rank_wrapper.NO_ENVIRONMENT})
    foreign = sorted({mark.host for mark in markers if mark.what == rank_wrapper.UNTRUSTED})
    if foreign and plan.facts.environment is not None:
        place = plan.facts.environment.prefix
        return CommandNotFound(
            f"the environment at {place} on {fold(foreign)} was not used: another user owns it, or can change it",
            hint=f"look at it there: `ls -ld {shlex.quote(place)}`; --exclude the node, or yeet to another place",
        )
    if homeless and plan.facts.environment is not None:
        place = plan.facts.environment.prefix
        return CommandNotFound(f"there is no environment at {place} on {fold(homeless)}", hint="run `ezpz yeet` first")
    if absent:
        command = plan.request.command[0]
        return CommandNotFound(
            f"'{command}' is not on {fold(absent)}, or is no program there", hint="give its full path, or --env"
        )
    if status == 0 or markers or status in REQUESTED_STATUSES or plan.started_by.is_local:
        return None
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
    return LauncherFailed(
        f"{plan.invocation.argv[0]} failed with status {status} before any rank ran: {last}",
        hint="nothing of COMMAND has run; `ezpz launch --dry-run` shows the line to try by hand",
    )


def _not_found(plan: LaunchPlan, message: str, hint: str) -> EzpzError:
    own = plan.invocation.argv == plan.spec.command
    return (CommandNotFound if own else LauncherMissing)(message, hint=hint)
