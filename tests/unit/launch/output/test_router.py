"""Labels, screen.py, transcript.py and journal.py: output is cut anywhere, and comes out whole."""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.cluster.allocation import Node
from ezpz.errors import UsageError
from ezpz.launch.launchers.base import installed_launchers
from ezpz.launch.launchers.output_labels import HOLD_SECONDS, LabeledText, LabelParser, add_label_options
from ezpz.launch.launchers.startup_protocol import STARTED
from ezpz.launch.output.attempt_log import AttemptLog, LogDirectory
from ezpz.launch.output.failure_analysis import FailureAnalyzer, RankPlacement
from ezpz.launch.output.filter import MAX_LINE_BYTES, LineSplitter, NoiseFilter
from ezpz.launch.output.first_errors import FirstErrors
from ezpz.launch.output.router import LOST_GRACE, OutputFormat, OutputRouter
from ezpz.launch.output.startup_markers import StartupMarker, StartupReport
from ezpz.launch.sites.site import FailureRule
from tests.contract.support import NOBODY, needs_root

LAUNCHERS = {each.name: each for each in installed_launchers([])}
LABELS = {name: each.label for name, each in LAUNCHERS.items() if each.label}
NOISE = (re.compile(rb"^noise"),)
NODES = tuple(Node(f"n00{number}", f"n00{number}", f"n00{number}") for number in range(4))


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def taken_apart(name: str | None, pieces: list[bytes]) -> tuple[dict[int | None, bytes], bytes]:
    parser = LabelParser(LABELS[name] if name else None)
    said: dict[int | None, bytes] = {}
    everything = b""
    found = [piece for data in pieces for piece in parser.feed(data, 0.0)] + parser.flush(math.inf)
    for piece in found:
        said[piece.rank] = said.get(piece.rank, b"") + piece.text
        everything += piece.text
    return said, everything


# What launchers really print: two ranks say "a", "b", and after a while "c", a carriage return and "d".
LABELLED = {
    "srun": (b"1: a\n0: a\n 12: bc\rd\n0: bc\rd\nsrun: error: x\n", {0: b"a\nbc\rd\n", 1: b"a\n", 12: b"bc\rd\n"}),
    "srun, whose lines are not longer than 1024 bytes": (
        b"1: %b\n0: a\n1: b\n0: %b\n0: \n1: %b\n" % (b"x" * 1024, b"y" * 1024, b"z" * 1023),
        {1: b"x" * 1024 + b"b\n" + b"z" * 1023 + b"\n", 0: b"a\n" + b"y" * 1024 + b"\n"},
    ),
    "srun, and slurmstepd": (
        b"1: a\n0: slurmstepd-n000: error: *** STEP 7.0 ON n000 CANCELLED AT 2026-11-29T05:09:17 ***\n1: b\n",
        {1: b"a\nb\n"},
    ),
    "pals": (
        b"x3005c0s31b1n0.hsn.cm 1: RuntimeError: CUDA\nx1.hsn 0: 1: two\nx1: rank 0 died from signal 9\n",
        {1: b"RuntimeError: CUDA\n", 0: b"1: two\n"},
    ),
    "hydra": (
        b"<|0@n000|>a\n<|0@n000|>b<|0@n000|>c\rd\n<|2@n002|>a\n<|2@n002|>b<|1@n001|>a\n<|2@n002|>[1] x<y|>\n",
        {0: b"a\nbc\rd\n", 2: b"a\nb[1] x<y|>\n", 1: b"a\n"},
    ),
    "hydra, which also speaks itself": (
        b"<|0@n000|>a\n=   PID 7 RUNNING AT n002\n<|1@n001|>b\n<|1@n001|>c\nssh: no\n<|1@n001|>d",
        {0: b"a\n", 1: b"b\nc\nd"},
    ),
    "openmpi": (
        b"[1,0]<stdout>:a\n[1,3]<stderr>:b\n[prterun-n000-77@1,2]<stdout>: c\nmpirun noticed\n",
        {0: b"a\n", 3: b"b\n", 2: b"c\n"},
    ),
}


@pytest.mark.parametrize("name", LABELLED)
@given(places=st.lists(st.integers(0, 1000), max_size=8))
def test_labels_are_read_wherever_the_output_is_cut(name: str, places: list[int]) -> None:
    data, expected = LABELLED[name]
    said, _ = taken_apart(name.partition(",")[0], cuts(data, places))
    said.pop(None, None)
    assert said == expected


@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 300)))
def test_nothing_is_lost_without_labels(data: bytes, places: list[int]) -> None:
    assert taken_apart(None, cuts(data, places))[1] == data


@given(data=st.text("<|0@n>\n1: x[],", max_size=60), places=st.lists(st.integers(0, 60)))
def test_cuts_change_nothing(data: str, places: list[int]) -> None:
    for name in LABELS:
        assert taken_apart(name, cuts(data.encode(), places)) == taken_apart(name, [data.encode()])


def test_labels_are_asked_for_right_behind_the_launcher() -> None:
    label = LAUNCHERS["srun"].label_for(("-n", "2"))
    assert add_label_options(label, ("srun", "-n", "2", "--", "a")) == ("srun", "--label", "-n", "2", "--", "a")
    assert add_label_options(LAUNCHERS["local"].label_for(()), ("a",)) == ("a",)


@pytest.mark.parametrize(
    ("launcher", "word"), [("srun", "-l"), ("pals", "--label"), ("hydra", "-prepend-rank"), ("openmpi", "--tag-output")]
)
def test_labels_that_the_user_asks_for_are_left_to_him(launcher: str, word: str) -> None:
    assert LAUNCHERS[launcher].label_for(()) == LABELS[launcher]
    assert LAUNCHERS[launcher].label_for(("-x", word)) is None


@given(
    lines=st.lists(st.sampled_from([b"noise 1\n", b"a\n", b"\n", b"10%\r20%\r\n", b"xnoise\n"])),
    places=st.lists(st.integers(0, 1000)),
)
def test_noise_is_left_out_wherever_the_output_is_cut(lines: list[bytes], places: list[int]) -> None:
    noise = NoiseFilter(NOISE)
    shown = b"".join(noise.feed(piece, 0.0) for piece in cuts(b"".join(lines), places)) + noise.flush(math.inf)
    assert shown == b"".join(line for line in lines if not line.startswith(b"noise"))
    assert noise.hidden_lines == sum(line.startswith(b"noise") for line in lines)


def test_a_progress_bar_comes_through_at_once() -> None:
    assert NoiseFilter().feed(b"10%", 0.0) == b"10%"
    noise = NoiseFilter(NOISE)
    assert noise.feed(b"10%\r", 5.0) == b""
    assert noise.due == 5.0 + HOLD_SECONDS
    assert noise.flush(5.0) == b""
    assert noise.flush(5.0 + HOLD_SECONDS) == b"10%\r"
    assert noise.feed(b"20%\r", 6.0) == b"20%\r"
    assert noise.feed(b"done\nnoi", 6.0) == b"done\n"
    assert noise.feed(b"se\nx\n", 6.0) == b"x\n"


def test_a_line_that_does_not_end_is_cut() -> None:
    lines = LineSplitter()
    assert [len(line) for line in lines.feed(b"x" * (MAX_LINE_BYTES + 10))] == [MAX_LINE_BYTES]
    assert lines.flush() == [b"x" * 10]
    assert lines.flush() == []


@given(
    parts=st.lists(st.sampled_from([b"10%", b"\r", b"\n", b"\r\n", b"ValueError: no"])),
    places=st.lists(st.integers(0, 100)),
)
def test_what_is_drawn_over_is_a_line_too_wherever_the_output_is_cut(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    lines = LineSplitter()
    cut = [line for piece in cuts(data, places) for line in lines.feed(piece)] + lines.flush()
    assert not any(b"\r" in line or b"\n" in line for line in cut)
    assert b"".join(cut) == data.replace(b"\r", b"").replace(b"\n", b"")
    whole = LineSplitter()
    assert cut == whole.feed(data) + whole.flush()


def test_a_progress_bar_is_in_the_log_as_it_is_drawn() -> None:
    lines = LineSplitter()
    assert lines.feed(b"\r 10%\r 20%") == [b" 10%"]
    assert lines.feed(b"\r 30%\r") == [b" 20%"]
    assert lines.feed(b"\n\nTraceback") == [b" 30%", b""]
    assert lines.flush() == [b"Traceback"]


def transcript(output_format: OutputFormat, logged: list[tuple[int | None, bytes]]) -> OutputRouter:
    analyzer = FailureAnalyzer(RankPlacement(NODES, 1), 4)
    return OutputRouter(output_format, analyzer, logged.extend)


def test_a_transcript_shows_without_labels_and_logs_with_ranks_and_noise() -> None:
    logged: list[tuple[int | None, bytes]] = []
    heard = transcript(OutputFormat(LABELS["hydra"], noise=NOISE, progress=re.compile(rb"step[=:]")), logged)
    shown = heard.feed(0, "stdout", b"<|0@n000|>a\n<|1@n001|>noise\n<|1@n001|>half", 0.0)
    assert shown == b"a\n"
    assert not heard.made_progress
    assert heard.flush(1.0) == [("stdout", b"half")]
    assert heard.feed(0, "stdout", b"<|1@n001|> a line\n<|2@n002|>step: 4", 1.0) == b" a line\n"
    assert heard.flush(math.inf) == [("stdout", b"step: 4")]
    assert logged == [(0, b"a"), (1, b"noise"), (1, b"half a line"), (2, b"step: 4")]
    assert heard.made_progress
    assert heard.hidden_lines == 1
    assert heard.due == math.inf


def test_no_rank_breaks_into_a_line_that_another_has_begun() -> None:
    """MPICH's hydra writes the end of a line by itself, when another rank may have spoken already."""
    heard = transcript(OutputFormat(LABELS["hydra"]), [])
    assert heard.feed(0, "stdout", b"<|0@n000|>ready", 0.0) == b""
    assert heard.feed(0, "stdout", b"<|1@n001|>ready\n", 0.0) == b"ready\n"
    assert heard.feed(0, "stdout", b"<|0@n000|>\n<|1@n001|>10%", 0.0) == b"ready\n"
    assert heard.flush(HOLD_SECONDS) == [("stdout", b"10%")]
    assert heard.feed(0, "stdout", b"<|1@n001|>\r20%", 1.0) == b"\r20%"


ANCHORED = (FailureRule("^no such line$", "because of it every line is looked at"),)
SAYINGS = (
    b"step: 1 loss 2\n", b"\r 10%", b"srun: error: n001: task 1: Killed\n", b"Traceback (most recent call last):\n",
    b"  File x\n", b"ValueError: no\n", b"CUDA: uncorrectable ECC error\n", b"nothing ", b"No space left on device",
)  # fmt: skip


@pytest.mark.parametrize("name", [None, "srun", "hydra"])
@given(
    said=st.lists(st.tuples(st.sampled_from(SAYINGS), st.integers(0, 3))),
    places=st.lists(st.integers(0, 500), max_size=12),
)
def test_nothing_that_tells_something_is_missed_by_looking_at_much_at_once(
    name: str | None, said: list[tuple[bytes, int]], places: list[int]
) -> None:
    label = {None: b"%.0s", "srun": b"%d: ", "hydra": b"<|%d@n|>"}[name]
    data = b"".join((label % rank if name else b"") + text for text, rank in said)
    heard = transcript(OutputFormat(LABELS[name] if name else None), [])
    careful = OutputRouter(
        OutputFormat(LABELS[name] if name else None), FailureAnalyzer(RankPlacement(NODES, 1), 4, ANCHORED)
    )
    for piece in cuts(data, places):
        heard.feed(0, "stdout", piece, 0.0)
    careful.feed(0, "stdout", data, 0.0)
    heard.flush(math.inf)
    careful.flush(math.inf)
    assert heard.analyzer.cause() == careful.analyzer.cause()
    assert heard.first_errors.first_of(range(4)) == careful.first_errors.first_of(range(4))


REPORTED = {
    "srun": b"1: \x1eezpz-1a started 1 n001\x1e\n1: hello\nsrun: error: oops\n",
    "pals": b"n001 1: \x1eezpz-1a started 1 n001\x1e\nn001 1: hello\nsrun: error: oops\n",
    "hydra": b"srun: error: oops\n<|1@n001|>\x1eezpz-1a star<|2@n002|><|1@n001|>ted 1 n001\x1e\n<|1@n001|>hello\n",
    "openmpi": b"srun: error: oops\n[7,1]<stderr>: \x1eezpz-1a started 1 n001\x1e\n[7,1]<stderr>: hello\n",
    "nobody": b"\x1eezpz-1a started 1 n001\x1e\nhello\nsrun: error: oops\n",
}


@pytest.mark.parametrize("launcher", REPORTED)
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_reports_are_neither_shown_nor_logged(launcher: str, piece: int) -> None:
    logged: list[tuple[int | None, bytes]] = []
    report = StartupReport("ezpz-1a", "oops")
    heard = transcript(OutputFormat(LABELS.get(launcher), report=report, noise=NOISE), logged)
    said = REPORTED[launcher]
    shown = [heard.feed(0, "stderr", said[node_at : node_at + piece], 0.0) for node_at in range(0, len(said), piece)]
    shown += [data for _, data in heard.flush(math.inf)]
    assert sorted(b"".join(shown).splitlines()) == [b"hello", b"srun: error: oops"]
    rank = None if launcher == "nobody" else 1
    assert set(logged) == {(rank, b"hello"), (None, b"srun: error: oops")}
    assert report.markers == [StartupMarker(STARTED, 1, "n001")]
    assert report.exit_match is not None


def test_what_only_begins_like_a_report_is_shown() -> None:
    logged: list[tuple[int | None, bytes]] = []
    heard = transcript(OutputFormat(report=StartupReport("ezpz-1a")), logged)
    assert heard.feed(0, "stderr", b"x\x1eezpz", 0.0) == b"x"
    assert heard.flush(math.inf) == [("stderr", b"\x1eezpz")]
    assert logged == [(None, b"x\x1eezpz")]


def test_ranks_that_we_start_ourselves_need_no_label() -> None:
    logged: list[tuple[int | None, bytes]] = []
    heard = transcript(OutputFormat(is_local=True), logged)
    assert heard.feed(3, "stderr", b"x\n", 0.0) == b"x\n"
    assert logged == [(3, b"x")]


def test_a_launcher_that_waits_for_a_lost_node_is_not_waited_for() -> None:
    heard = transcript(OutputFormat(end_when_lost=True), [])
    heard.feed(0, "stderr", b"ssh: connect to host n003 port 22: Connection refused\n", 5.0)
    assert not heard.should_end(5.0)
    assert heard.should_end(5.0 + LOST_GRACE)
    patient = transcript(OutputFormat(), [])
    patient.feed(0, "stderr", b"ssh: connect to host n003 port 22: Connection refused\n", 5.0)
    assert not patient.should_end(1e9)


TRACEBACK = """\
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    raise ValueError("bad loss")
ValueError: bad loss
done with it
"""


def test_the_first_error_of_a_rank_is_its_whole_traceback() -> None:
    heard = FirstErrors()
    for line in ("all is well", *TRACEBACK.splitlines()):
        heard.feed(line, 2)
        heard.feed(f"RuntimeError: {line}", 1)
    assert heard.first_of((2,)) == (2, tuple(TRACEBACK.splitlines()[:4]))
    assert heard.first_of(()) == (1, ("RuntimeError: all is well",))
    assert FirstErrors().first_of((1,)) is None


def test_what_the_launcher_says_at_the_end_is_the_last_resort() -> None:
    heard = FirstErrors()
    heard.feed("[mpiexec@n000] write error: Bad file descriptor", None)
    assert heard.first_of(()) == (None, ("[mpiexec@n000] write error: Bad file descriptor",))
    heard.feed("ValueError: no", 3)
    heard.feed("RuntimeError: peer has gone", 2)
    assert heard.first_of(()) == (3, ("ValueError: no",))
    assert heard.first_of((2, 3)) == (2, ("RuntimeError: peer has gone",))


def test_the_error_of_a_rank_that_draws_a_progress_bar_is_found() -> None:
    logged: list[tuple[int | None, bytes]] = []
    heard = transcript(OutputFormat(is_local=True), logged)
    bar = b"".join(b"\r%3d%% %s" % (percent, b"#" * percent) for percent in range(100))
    heard.feed(1, "stderr", bar + TRACEBACK.encode(), 0.0)
    assert heard.first_errors.first_of((1,)) == (1, tuple(TRACEBACK.splitlines()[:4]))
    assert len(logged) == 99 + 5


def test_a_journal_overwrites_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        journal = LogDirectory(str(tmp_path / "new" / "logs"))
        with journal.open_log() as log:
            log.write([(3, b"hello"), (None, b"mpiexec says")])
        journal.append_summary(["it went well"])
    directory = tmp_path / "new" / "logs"
    assert sorted(path.name for path in directory.iterdir()) == ["attempt-1.log", "attempt-2.log", "summary.txt"]
    assert (directory / "attempt-2.log").read_bytes() == b"3: hello\nlauncher: mpiexec says\n"
    assert (directory / "summary.txt").read_text() == "it went well\n" * 2


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--log-dir"):
        LogDirectory(str(tmp_path / "file"))


def another_users(summary: Path) -> None:
    summary.touch()
    os.chown(summary, NOBODY, NOBODY)


@needs_root
@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (lambda summary: summary.symlink_to(summary.parent.parent / "profile"), "it is a link"),
        (lambda summary: os.link(summary.parent.parent / "profile", summary), "it is not a file of yours alone"),
        (another_users, "it is not a file of yours alone"),
    ],
)
def test_a_summary_that_somebody_has_planted_is_not_written_to(tmp_path: Path, plant: Any, why: str) -> None:
    (tmp_path / "profile").write_text("mine\n")
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o777)
    plant(logs / "summary.txt")
    with pytest.raises(UsageError, match=f"summary.txt' cannot be written: {why}"):
        LogDirectory(str(logs))
    (logs / "summary.txt").unlink()
    journal = LogDirectory(str(logs))
    (logs / "summary.txt").unlink()
    plant(logs / "summary.txt")
    journal.append_summary(["error: $(touch x)"])
    assert why in journal.write_error
    assert (tmp_path / "profile").read_text() == "mine\n"


def test_a_log_that_somebody_has_planted_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    journal = LogDirectory(str(tmp_path / "logs"))
    (tmp_path / "logs" / "attempt-1.log").symlink_to(tmp_path / "profile")
    with journal.open_log() as log:
        log.write([(0, b"x")])
    assert os.path.basename(log.path) == "attempt-2.log"
    assert not (tmp_path / "profile").exists()


def test_logs_are_for_the_user_alone(tmp_path: Path) -> None:
    journal = LogDirectory(str(tmp_path / "logs"))
    with journal.open_log() as log:
        log.write([(0, b"x")])
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "logs", Path(log.path), tmp_path / "logs/summary.txt")]
    assert modes == [0o700, 0o600, 0o600]


def test_two_runs_share_a_directory_and_neither_is_in_the_way_of_the_other(tmp_path: Path) -> None:
    one, other = LogDirectory(str(tmp_path)), LogDirectory(str(tmp_path))
    paths = []
    for journal in (one, other, one):
        with journal.open_log() as log:
            log.write([(0, b"x")])
        paths.append(log.path)
    assert [os.path.basename(path) for path in paths] == ["attempt-1.log", "attempt-2.log", "attempt-3.log"]


def test_a_full_disk_costs_the_log_and_not_the_run() -> None:
    with AttemptLog("/dev/full", open("/dev/full", "wb")) as log:
        log.write([(1, b"x")])
        assert "No space left" in log.write_error
        log.write([(1, b"x")])


def test_a_directory_that_vanishes_costs_the_logs_and_not_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    journal = LogDirectory(str(directory))
    shutil.rmtree(directory)
    with journal.open_log() as log:
        log.write([(1, b"x")])
    assert log.write_error == f"'{directory}/attempt-1.log' cannot be written: No such file or directory"
    journal.append_summary(["it went well"])
    assert journal.write_error == f"'{directory}/summary.txt' cannot be written: No such file or directory"


def test_pieces_know_their_node() -> None:
    pieces = LabelParser(LABELS["pals"]).feed(b"x1.hsn.cm 4: hello\n", 0.0)
    assert pieces == [LabeledText(b"hello\n", 4, "x1.hsn.cm")]
