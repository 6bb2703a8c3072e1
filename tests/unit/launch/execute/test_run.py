"""launch/run.py and ears.py: whose fault a failure is, and what is handed on."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.errors import CommandNotFound, LauncherFailed, NodeLost
from ezpz.launch.execute.run import CommandResult, find_failure, interpret_exit
from ezpz.launch.launchers.base import installed_launchers
from ezpz.launch.launchers.hydra import UNREACHABLE_PATTERN
from ezpz.launch.launchers.srun import EXIT_PATTERN
from ezpz.launch.launchers.startup_protocol import NO_COMMAND, NO_ENVIRONMENT, STARTED, UNTRUSTED
from ezpz.launch.output import stderr_reader
from ezpz.launch.output.startup_markers import StartupMarker, StartupReport
from ezpz.launch.output.stderr_reader import StderrReader
from ezpz.launch.plan.environment import RankEnvironment
from ezpz.launch.plan.plan import Facts, LaunchPlan
from tests.unit.launch.plan.test_make_plan import HYDRA, OPEN_MPI, FakeTools, decide

SAID = "[mpiexec@n000] bad option\nssh: connect to host n001 port 22: No route to host\n\n"


def hydra(**facts: object) -> LaunchPlan:
    planned = decide("hosts", FakeTools({"mpiexec": HYDRA}))
    return replace(planned, facts=replace(Facts(), **facts))  # type: ignore[arg-type]


def test_a_launcher_that_fails_before_any_rank_runs_is_to_blame_with_its_last_line() -> None:
    error = find_failure(hydra(), 255, (), SAID)
    assert isinstance(error, LauncherFailed)
    assert error.message.startswith("mpiexec failed with status 255 before any rank ran: ssh: connect to host n001")


@pytest.mark.parametrize(
    ("status", "markers"),
    [(0, ()), (7, (StartupMarker(STARTED, 3, "n001"),)), (130, ()), (143, ()), (0, (StartupMarker(STARTED, 0, ""),))],
)
def test_otherwise_the_status_is_the_commands(status: int, markers: tuple[StartupMarker, ...]) -> None:
    assert find_failure(hydra(), status, markers, SAID) is None


@pytest.mark.parametrize(
    ("status", "signals", "meant"),
    [
        (255, [15], 143),
        (15, [15], 143),
        (2, [2, 15], 130),
        (143, [15], 143),
        (7, [15], 7),
        (255, [], 255),
        (15, [], 15),
    ],
)
def test_the_status_of_a_launcher_that_was_asked_to_end(status: int, signals: list[int], meant: int) -> None:
    for launcher in installed_launchers([]):
        assert launcher.exit_status(status, signals) == (status if launcher.is_local else meant)


def test_what_a_node_lacks_is_told_with_the_node() -> None:
    markers = (
        StartupMarker(STARTED, 0, "n000"),
        StartupMarker(NO_COMMAND, 2, "n002"),
        StartupMarker(NO_COMMAND, 1, "n001"),
    )
    error = find_failure(hydra(), 51, markers, "")
    assert isinstance(error, CommandNotFound)
    assert error.message == "'app' is not on n[001-002], or is no program there"
    error = find_failure(
        hydra(environment=RankEnvironment("/tmp/env")), 51, (StartupMarker(NO_ENVIRONMENT, 0, "n003"),), ""
    )
    assert isinstance(error, CommandNotFound)
    assert error.message == "there is no environment at /tmp/env on n003"
    error = find_failure(
        hydra(environment=RankEnvironment("/tmp/env")),
        51,
        (StartupMarker(UNTRUSTED, 0, "n003"), StartupMarker(NO_ENVIRONMENT, 1, "n004")),
        "",
    )
    assert isinstance(error, CommandNotFound)
    assert error.message == "the environment at /tmp/env on n003 was not used: another user owns it, or can change it"
    assert "ls -ld /tmp/env" in error.hint


LOST = """\
PRTE has lost communication with a remote daemon.

  HNP daemon   : [prterun-n000-11034@0,0] on node n000
  Remote daemon: [prterun-n000-11034@0,1] on node n001.lab
"""


@pytest.mark.parametrize(("status", "ending"), [(0, 36), (1, 1), (143, 143)])
def test_open_mpi_loses_a_node_and_ends_with_0(status: int, ending: int) -> None:
    planned = decide("hosts", FakeTools({"mpiexec": OPEN_MPI}))
    report = StartupReport("ezpz-1a", planned.invocation.exit_pattern)
    report.markers.append(StartupMarker(STARTED, 0, "n000"))
    assert interpret_exit(planned, 0, report) == CommandResult(0)
    report.add_output(LOST.encode())
    found = interpret_exit(planned, status, report)
    assert found.status == ending
    assert (found.error is None) == (status == 143)
    if found.error is not None:
        assert found.error.message == "n001 was lost while the command ran"


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("Connection to n001-hsn0 closed by remote host.\n", True),
        ("Connection to login1 closed by remote host.\n", False),
        ("Connection to n001 closed.\n", False),
    ],
)
def test_mpich_loses_a_node(said: str, *, lost: bool) -> None:
    planned = hydra()
    report = StartupReport("ezpz-1a", planned.invocation.exit_pattern)
    report.markers.append(StartupMarker(STARTED, 0, "n000"))
    report.add_output(said.encode())
    found = interpret_exit(planned, 255, report)
    assert (found.status, isinstance(found.error, NodeLost)) == (255, lost)


def heard(chunks: list[bytes]) -> tuple[bytes, tuple[StartupMarker, ...]]:
    """What Ears hand on of these chunks, to the end, and the marks."""
    ours, theirs = os.pipe()
    report = StartupReport("ezpz-1a")
    reader = StderrReader(report, theirs)
    with reader.open_pipe() as descriptor:
        for chunk in chunks:
            os.write(descriptor, chunk)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        return pipe.read(), tuple(report.markers)


def fed(chunks: list[bytes]) -> tuple[bytes, tuple[StartupMarker, ...]]:
    """The same, of chunks that come exactly so."""
    ours, theirs = os.pipe()
    report = StartupReport("ezpz-1a")
    reader = StderrReader(report, theirs)
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    os.close(theirs)
    with open(ours, "rb") as pipe:
        return pipe.read(), tuple(report.markers)


TEXT = (
    b"one\n\x1eezpz-1a started 12 n001\x1e\ntwo\x1eezpz-1a started 3 n\x1e\n\n\x1eezpz-2b started 0 n\x1e\n"
    b"3: \x1eezpz-1a started 4 n\x1e\n\x1b[0mthree \x1e"
)


@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_marks_are_found_wherever_the_output_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TEXT)]
    chunks = [TEXT[begin:end] for begin, end in itertools.pairwise(edges) if begin < end]
    text, markers = fed(chunks)
    if any(TEXT[:edge].endswith((b"\n3", b"\n3:", b"\n3: ")) for edge in edges):
        text = text.replace(b"3: \x1b", b"\x1b")  # a label that came alone is handed on
    assert text == b"one\ntwo\n\x1eezpz-2b started 0 n\x1e\n\x1b[0mthree \x1e"
    assert markers == (
        StartupMarker(STARTED, 12, "n001"),
        StartupMarker(STARTED, 3, "n"),
        StartupMarker(STARTED, 4, "n"),
    )


def test_the_first_rank_that_srun_names_gives_the_status() -> None:
    report = StartupReport("ezpz-1a", EXIT_PATTERN)
    reader = StderrReader(report, os.open(os.devnull, os.O_WRONLY))
    for chunk in (
        b"srun: error: n001: tas",
        b"ks 1-2: Exited with exit code 7\n",
        b"srun: error: n000: task 0: Terminated\n",
    ):
        reader.feed(chunk)
    os.close(reader.target)
    assert report.exit_match is not None
    assert report.exit_match["code"] == b"7"


UNREACHED = b"ssh: connect to host n002 port 22: Connection refused\r\n"


def test_ranks_that_do_not_come_after_a_node_said_no_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    report = StartupReport("ezpz-1a", "", UNREACHABLE_PATTERN, 2)
    reader = StderrReader(report, os.open(os.devnull, os.O_WRONLY))
    monkeypatch.setattr(stderr_reader, "START_TIMEOUT", 0.0)
    reader.feed(b"\x1eezpz-1a started 0 n001\x1e\nssh: connect to ")
    assert not reader.is_hopeless()
    reader.feed(UNREACHED.removeprefix(b"ssh: connect to "))
    reader.is_hopeless()
    assert reader.is_hopeless()
    error = interpret_exit(hydra(), 143, report).error
    assert isinstance(error, NodeLost)
    assert error.message == "mpiexec cannot reach all nodes: ssh: connect to host n002 port 22: Connection refused"
    reader.feed(b"\x1eezpz-1a started 1 n002\x1e\n")
    assert not reader.is_hopeless()
    assert interpret_exit(hydra(), 7, report).error is None
    os.close(reader.target)


@pytest.mark.parametrize(
    "line",
    [
        "ssh: Could not resolve hostname n9: Name or service not known",
        "root@n002: Permission denied (publickey,password).",
        "Host key verification failed.",
        "kex_exchange_identification: read: Connection reset by peer",
        "Connection closed by 10.0.0.2 port 22",
    ],
)
def test_what_ssh_says_of_a_node_that_it_cannot_reach(line: str) -> None:
    assert re.fullmatch(UNREACHABLE_PATTERN, line)
    assert not re.fullmatch(UNREACHABLE_PATTERN, f"app: {line}") or "Permission" in line


def test_what_a_program_says_of_ssh_once_all_ranks_run_is_its_own_business() -> None:
    report = StartupReport("ezpz-1a", "", UNREACHABLE_PATTERN, 1)
    reader = StderrReader(report, os.open(os.devnull, os.O_WRONLY))
    reader.feed(b"\x1eezpz-1a started 0 n001\x1e\n" + UNREACHED)
    os.close(reader.target)
    assert report.unreachable_match is None


def test_much_output_is_handed_on_whole() -> None:
    chunk = b"x" * 1000 + b"\n"
    text, _ = heard([chunk] * 50)
    assert text == chunk * 50
