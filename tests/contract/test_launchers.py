"""Every launcher that the registry names keeps the contract of `ezpz.launch.launchers.base.Launcher`."""

from __future__ import annotations

import itertools
import math
import re
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.cluster.allocation import Allocation, Node
from ezpz.cluster.detect_nodes import installed_steps
from ezpz.launch.cli.command import launch
from ezpz.launch.launchers import failure_lines
from ezpz.launch.launchers.base import HOSTFILE, LAUNCHERS, Availability, Launcher, LaunchSpec, installed_launchers
from ezpz.launch.launchers.output_labels import LabelParser, add_label_options
from ezpz.launch.output.startup_markers import StartupReport
from ezpz.remote.transports import TRANSPORTS
from ezpz.runtime.process import PIPE, end_tree, start
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ezpz.cluster.schedulers.base import JobSystem

ALL = installed_launchers([])
SYSTEMS: tuple[JobSystem | None, ...] = tuple(dict.fromkeys((None, *(step.system for step in installed_steps([])))))
COMMAND = ("sh", "-c", "exit 3", "--", "-n", "7")
AS_LABELED = {"srun": b"%d: ", "pals": b"n1.site %d: ", "hydra": b"<|%d@n1|>", "openmpi": b"[1,%d]<stdout>:"}
"""How each that can label does it."""
SIGN_GROUPS = {"node", "nodes", "rank", "ranks", "index", "status", "signal"}
SIGN_KINDS = {getattr(failure_lines, name) for name in ("NODE", "FAULT", "SIGNAL", "EXIT", "TIME", "WHERE")}

every_launcher = pytest.mark.parametrize("launcher", ALL, ids=lambda each: f"{each.name}-{each.order}")
every_labeler = pytest.mark.parametrize("launcher", [each for each in ALL if each.label], ids=lambda each: each.name)


@dataclass(frozen=True)
class FakeTools:
    """Programs on PATH, by name, and what each prints as its version."""

    versions: tuple[tuple[str, str], ...] = ()

    def path(self, name: str) -> str:
        return f"/usr/bin/{name}" if name in dict(self.versions) else ""

    def version(self, name: str) -> str:
        return dict(self.versions)[name]


VERSIONS = ("PALS 1", "HYDRA 4", "Open MPI 5", "something else", "")
TOOLS = (FakeTools(), *(FakeTools((("srun", "slurm"), ("mpiexec", said), ("mpirun", said))) for said in VERSIONS))


def job(*, local: bool = False, system: JobSystem | None = None) -> LaunchSpec:
    names = ("n1",) if local else ("n1", "n2")
    nodes = tuple(Node(name, f"{name}-hsn0", f"{name}.site", is_local=local) for name in names)
    scheduler = system.name if system else "hosts"
    return LaunchSpec(COMMAND, Allocation(scheduler, None, nodes), 2 * len(names), 2, {}, ("--own", "x"), system=system)


def test_each_is_declared_under_its_own_name_and_asked_at_a_place_of_its_own() -> None:
    assert {"srun", "local", "pals", "hydra", "openmpi"} <= set(LAUNCHERS.names())
    for name in LAUNCHERS.names():
        assert {each.name for each in LAUNCHERS.load(name)} == {name}
    orders = [each.order for each in ALL]
    assert orders == sorted(set(orders))


def test_the_help_names_them() -> None:
    option = next(each for each in launch.params if "--launcher" in each.opts)
    assert isinstance(option, click.Option)
    named = re.findall(r"\w+", str(option.help))
    assert {each.name for each in ALL} <= set(named)


@every_launcher
@pytest.mark.parametrize("tools", TOOLS, ids=range(len(TOOLS)))
@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_a_verdict_has_a_reason(launcher: Launcher, tools: FakeTools, system: JobSystem | None) -> None:
    for local in (True, False):
        availability = launcher.check_availability(job(local=local, system=system), tools)
        assert isinstance(availability, Availability)
        assert availability.why


@every_launcher
def test_without_programs_other_hosts_are_out_of_reach(launcher: Launcher) -> None:
    for system in SYSTEMS:
        assert not launcher.check_availability(job(system=system), FakeTools()).is_available


@every_launcher
def test_a_command_line_is_words_that_end_with_the_command(launcher: Launcher) -> None:
    for system in SYSTEMS:
        wanted = replace(job(local=launcher.is_local, system=system), cpu_bind="cores")
        invocation = launcher.invocation(wanted)
        argv = list(invocation.argv)
        assert all(isinstance(word, str) for word in argv)
        assert argv[-len(COMMAND) :] == list(COMMAND)
        own = argv[: -len(COMMAND)]
        assert (HOSTFILE in own) == bool(invocation.hostfile)
        if launcher.is_local:
            assert own == []
            assert [each["RANK"] for each in invocation.rank_environments] == ["0", "1"]
            continue
        assert own[0] in (launcher.name, wanted.program)
        assert own[own.index("--own") : own.index("--own") + 2] == ["--own", "x"]
        assert str(wanted.ranks) in own
        assert any("cores" in word for word in own)
        said = " ".join(own) + invocation.hostfile
        assert all(re.search(rf"{name}\b|n\[1-2\]", said) for name in ("n1", "n2"))
        assert invocation.rank_environments == ({},)


@every_launcher
def test_ranks_know_who_they_are(launcher: Launcher) -> None:
    assert launcher.is_local == (launcher.rank_variables is None)
    if launcher.rank_variables is not None:
        assert launcher.rank_variables.rank


def test_a_label_of_each_is_known_here() -> None:
    assert {each.name for each in ALL if each.label} == set(AS_LABELED)


@every_labeler
@given(
    lines=st.lists(st.tuples(st.integers(0, 300), st.sampled_from([b"a\n", b"12: x\n", b"\n", b"a b [1,2] c\n"]))),
    places=st.lists(st.integers(0, 1000), max_size=8),
)
def test_labels_come_off_as_they_were_put_on(
    launcher: Launcher, lines: list[tuple[int, bytes]], places: list[int]
) -> None:
    data = b"".join(AS_LABELED[launcher.name] % rank + text for rank, text in lines)
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    parser = LabelParser(launcher.label)
    found = [piece for a, b in itertools.pairwise(edges) for piece in parser.feed(data[a:b], 0.0)]
    found += parser.flush(math.inf)
    for rank in {rank for rank, _ in lines}:
        said = b"".join(piece.text for piece in found if piece.rank == rank)
        assert said == b"".join(text for each, text in lines if each == rank)


@every_labeler
def test_labels_are_asked_for_unless_the_user_does(launcher: Launcher) -> None:
    label = launcher.label_for(("--own",))
    assert label is not None
    argv = launcher.invocation(job()).argv
    assert add_label_options(label, argv) == (argv[0], *label.options, *argv[1:])
    for word in label.user_options:
        assert launcher.label_for(("--own", word)) is None
    assert launcher.label_for(label.options) is None


@every_launcher
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_arrives(launcher: Launcher, number: int) -> None:
    """At what was started here: there is no job whose scheduler could be asked to tell the ranks."""
    name = signal.Signals(number).name.removeprefix("SIG")
    script = f"trap 'echo got; exit 5' {name}; echo ready; while :; do read -r line; done"
    running = start(("sh", "-c", script), stdin=PIPE, stdout=PIPE, stderr=None, env=None)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        launcher.forward_signal(running, number, job())
        assert running.stdout.readline() == b"got\n"
        assert running.wait(timeout=DEADLINE) == 5
    finally:
        end_tree(running)
        for stream in (running.stdin, running.stdout):
            if stream is not None:
                stream.close()


@every_launcher
@pytest.mark.parametrize(("status", "signals"), [(0, []), (1, []), (143, []), (7, [15]), (143, [15]), (0, [15])])
def test_a_status_that_tells_all_stays(launcher: Launcher, status: int, signals: Sequence[int]) -> None:
    assert launcher.exit_status(status, signals) == status
    assert launcher.rank_status(status, {}) == status


@every_launcher
@pytest.mark.parametrize("status", [15, 255])
def test_a_status_that_hides_the_signal_is_told_as_a_shell_does(launcher: Launcher, status: int) -> None:
    assert launcher.exit_status(status, [15]) == (status if launcher.is_local else 143)


@every_launcher
def test_lines_of_failures_can_be_looked_for(launcher: Launcher) -> None:
    invocation = launcher.invocation(job(local=launcher.is_local))
    report = StartupReport("ezpz-1a", invocation.exit_pattern, invocation.unreachable_pattern, 2)
    report.add_output(b"\nhello\n")
    assert (report.exit_match, report.unreachable_match) == (None, None)
    told = re.compile(invocation.exit_pattern).groupindex
    assert launcher.rank_status(0, dict.fromkeys(told)) == 0


@every_launcher
def test_signs_say_what_is_known(launcher: Launcher) -> None:
    for sign in launcher.failure_patterns:
        assert sign.kind in SIGN_KINDS
        assert sign.hint
        pattern = re.compile(sign.regex)
        assert set(pattern.groupindex) <= SIGN_GROUPS
        assert pattern.search("") is None


@every_launcher
def test_nodes_are_asked_over_a_transport_that_exists(launcher: Launcher) -> None:
    for system in SYSTEMS:
        environ = {system.job_variable: "7"} if system else {}
        assert launcher.transport(environ) in TRANSPORTS


@every_launcher
def test_options_that_write_files_are_told_from_others(launcher: Launcher) -> None:
    assert not launcher.writes_output_files(("-n", "2", "--label", "x"))
    assert not launcher.writes_output_files(("", "="))
