"""A source that is changed at random, and copies on nodes that are meddled with: after each yeet all of them agree."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.manifest import BLOCK
from ezpz.yeet.engines.base import ENGINES
from tests.cluster.conftest import Job
from tests.contract.node import facts
from tests.lab.compare import compare_trees
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab import Host

pytestmark = pytest.mark.cluster

NAMES = ("a", "b", "c.py", "not-utf8-\udcff", "new\nline", "-rf")
FOLDERS = ("", "f", "f/g", "h")
SIZES = (0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK - 5)
SIZE = 100_000  # bytes
MODES = (0o644, 0o755, 0o400)

places = st.builds(os.path.join, st.sampled_from(FOLDERS), st.sampled_from(NAMES))


class Meddling(RuleBasedStateMachine):
    """The source is on the disk that all hosts share; `job` has four of them."""

    job: ClassVar[Job]

    @initialize()
    def begin(self) -> None:
        self.source = self.job.lab.shared / f"meddled-{len(list(self.job.lab.shared.iterdir()))}"
        self.place = f"/tmp/{self.source.name}"
        for folder in FOLDERS:
            (self.source / folder).mkdir(parents=True, exist_ok=True)
        (self.source / "stays").write_text("stays")

    def teardown(self) -> None:
        for host in self.job.lab.hosts:
            self.job.lab.run(host, ["rm", "-rf", self.place])

    @rule(
        place=places, size=st.sampled_from(SIZES), seed=st.integers(0, 3), mode=st.sampled_from((0o644, 0o755, 0o400))
    )
    def write(self, place: str, size: int, seed: int, mode: int) -> None:
        path = self._cleared(place)
        path.write_bytes(random.Random(seed).randbytes(size))
        path.chmod(mode)

    @rule(place=places, to=places)
    def link(self, place: str, to: str) -> None:
        self._cleared(place).symlink_to(to)

    @rule(place=places, to=places)
    def rename(self, place: str, to: str) -> None:
        if place != to and self._is_file(place):
            self._cleared(to)
            (self.source / place).rename(self.source / to)

    @rule(place=places, to=places, hard=st.booleans())
    def copy(self, place: str, to: str, hard: bool) -> None:  # noqa: FBT001 - hypothesis names it
        if place != to and self._is_file(place):
            path = self._cleared(to)
            (os.link if hard else shutil.copy2)(self.source / place, path)

    @rule(place=places, seconds=st.integers(1, 2**31))
    def touch(self, place: str, seconds: int) -> None:
        if self._is_file(place):
            os.utime(self.source / place, ns=(0, seconds * 10**9 + 123_456_789))

    @rule(place=places, host=st.integers(0, 3), what=st.sampled_from(("rm -f", "echo more >>", "chmod 640", "touch")))
    def meddle(self, place: str, host: int, what: str) -> None:
        """Change one file of one node's copy, or add one."""
        name = os.path.join(self.place, place)
        self.job.lab.run(f"n00{host}", ["sh", "-c", f'{what} "$1"', "sh", name], check=False)

    @rule(engine=st.sampled_from(ENGINES.names()), checksum=st.booleans(), host=st.integers(0, 3))
    def yeet(self, engine: str, checksum: bool, host: int) -> None:  # noqa: FBT001 - hypothesis names it
        more = ["--checksum"] if checksum else []
        report = self.job.report(self.source, "--engine", engine, *more, host=f"n00{host}")
        assert report["succeeded"] == 4
        self._all_agree()
        again = self.job.report(self.source, "--engine", engine, host=f"n00{host}")
        assert [(node["unchanged"], node["sent_bytes"]) for node in again["nodes"]] == [(True, 0)] * 4

    def _all_agree(self) -> None:
        for host in self.job.lab.hosts:
            found = self.job.lab.path(host, self.place)
            assert compare_trees(self.source, found, but=OWN_FILES, private=True) == [], host.name

    def _is_file(self, place: str) -> bool:
        path = self.source / place
        return path.is_file() and not path.is_symlink()

    def _cleared(self, place: str) -> Path:
        path = self.source / place
        path.unlink(missing_ok=True)
        return path


def test_whatever_is_changed_here_or_there_all_agree_in_the_end(job: Job) -> None:
    Meddling.job = job
    run_state_machine_as_test(
        Meddling,
        settings=settings(
            max_examples=4, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.fixture
def source(job: Job) -> Path:
    """Twenty files of 100 kB, on the disk that all hosts share."""
    root = job.lab.shared / f"again-{len(list(job.lab.shared.iterdir()))}"
    (root / "folder").mkdir(parents=True)
    for number in range(20):
        (root / "folder" / f"file{number}").write_bytes(random.Random(number).randbytes(SIZE))
    return root


def sent(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """How many files, and bytes, each node was sent."""
    return {node["node"]: (node["sent_files"], node["sent_bytes"]) for node in report["nodes"]}


def all_have(job: Job, source: Path) -> bool:
    places = (job.lab.path(host, f"/tmp/{source.name}") for host in job.lab.hosts)
    return all(compare_trees(source, place, but=OWN_FILES, private=True) == [] for place in places)


@pytest.mark.parametrize("engine", ENGINES.names())
def test_each_node_gets_what_it_needs_in_one_run(job: Job, source: Path, engine: str) -> None:
    job.report(source, "--engine", engine)
    (source / "folder" / "file0").write_bytes(b"0" * SIZE)
    two = source.with_name(f"{source.name}-hosts")
    two.write_text("n000\nn001\n")
    Job(job.lab, job.ezpz, two).report(source, "--engine", engine)
    (source / "folder" / "file1").write_bytes(b"1" * SIZE)
    place = f"/tmp/{source.name}"
    job.sh("n002", f"cd {place}/folder; echo more >> file2; rm file3")
    job.sh("n003", f"rm -r {place}")
    report = job.report(source, "--engine", engine)
    assert all_have(job, source)
    assert sent(report) == {"n000": (0, 0), "n001": (1, SIZE), "n002": (4, 4 * SIZE), "n003": (20, 20 * SIZE)}


@pytest.mark.parametrize("engine", ENGINES.names())
def test_where_nothing_has_changed_no_python_is_started(job: Job, source: Path, engine: str) -> None:
    job.report(source, "--engine", engine)
    place = f"/tmp/{source.name}"
    for host in ("n001", "n002"):
        job.lab.without(host, "python3")
        job.sh(host, f"mount -t tmpfs none {os.path.dirname(os.path.realpath(sys.executable))}")
    done = job.yeet(source, "--engine", engine, "--json")
    assert all(node["unchanged"] for node in json.loads(done.stdout)["nodes"])
    assert "no python3" not in done.stderr
    job.sh("n002", f"rm {place}/folder/file0")
    report = job.report(source, "--engine", engine, exit_code=30)
    [failure] = [node["failure"] for node in report["nodes"] if node["failure"]]
    assert (failure["code"], failure["message"]) == ("tool-missing", "n002: no python3 (3.6 or newer) was found there")
    unchanged = {node["node"]: node["unchanged"] for node in report["nodes"]}
    assert unchanged == {"n000": True, "n001": True, "n002": False, "n003": True}


@pytest.mark.parametrize("engine", ENGINES.names())
def test_the_failed_are_noted_on_a_node_where_nothing_was_to_be_done(job: Job, source: Path, engine: str) -> None:
    others = source.with_name(f"{source.name}-others")
    others.write_text("n001\nn002\nn003\n")
    away = Job(job.lab, job.ezpz, others)
    away.report(source, "--engine", engine)
    place = f"/tmp/{source.name}"
    job.sh("n003", f"rm -r {place}; mkdir {place}")
    report = away.report(source, "--engine", engine, "--min-success-nodes", "1")
    assert {node["node"]: node["unchanged"] for node in report["nodes"]} == {"n001": True, "n002": True, "n003": False}
    assert report["failed_list"] == f"n001:{place}/.ezpz-yeet-failed-nodes.txt"
    assert job.sh("n001", f"cat {place}/.ezpz-yeet-failed-nodes.txt") == "n003\n"
    job.sh("n003", f"rmdir {place}")
    assert away.report(source, "--engine", engine)["succeeded"] == 3
    assert not job.lab.path("n001", f"{place}/.ezpz-yeet-failed-nodes.txt").exists()


@pytest.mark.parametrize("engine", ENGINES.names())
def test_who_has_lost_its_manifest_gets_another(job: Job, source: Path, engine: str) -> None:
    job.report(source, "--engine", engine)
    for host in ("n000", "n001"):
        job.sh(host, f"truncate -s 50 /tmp/{source.name}/.ezpz-yeet-manifest")
    report = job.report(source, "--engine", engine)
    assert {node["node"]: node["unchanged"] for node in report["nodes"]} == {
        "n000": False, "n001": False, "n002": True, "n003": True,
    }  # fmt: skip
    assert all_have(job, source)
    assert all(node["unchanged"] for node in job.report(source, "--engine", engine)["nodes"])


@pytest.mark.parametrize("engine", ENGINES.names())
def test_what_was_renamed_or_copied_is_not_sent(job: Job, source: Path, engine: str) -> None:
    job.report(source, "--engine", engine)
    (source / "folder").rename(source / "renamed")
    shutil.copy(source / "renamed" / "file0", source / "copied")
    report = job.report(source, "--engine", engine)
    assert all_have(job, source)
    assert {size for _, size in sent(report).values()} == {0}
    places = [job.lab.path(host, f"/tmp/{source.name}") for host in job.lab.hosts]
    assert {(place / name).stat().st_nlink for place in places for name in ("copied", "renamed/file0")} == {1}


def test_a_content_that_hides_behind_size_and_time_is_found_by_reading(job: Job, source: Path) -> None:
    job.report(source)
    path = source / "folder" / "file0"
    times = path.stat()
    path.write_bytes(b"0" * SIZE)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert all(node["unchanged"] for node in job.report(source)["nodes"])
    report = job.report(source, "--checksum")
    assert sent(report) == {"n000": (0, 0), **dict.fromkeys(("n001", "n002", "n003"), (1, SIZE))}
    assert all_have(job, source)
    assert all(node["unchanged"] for node in job.report(source, "--checksum")["nodes"])


def test_of_an_archive_that_was_made_anew_only_what_is_new_is_sent(job: Job, source: Path) -> None:
    archive = source.with_name(f"{source.name}.tar.gz")

    def pack() -> None:
        assert job.ezpz("yeet", "tar", source, "-o", archive).returncode == 0

    pack()
    job.report(archive, "--dst", f"/tmp/{source.name}")
    assert all_have(job, source)
    again = job.report(archive, "--dst", f"/tmp/{source.name}")
    assert all(node["unchanged"] for node in again["nodes"])
    assert "stream" not in again["phases"]
    (source / "folder" / "file0").write_bytes(b"0" * SIZE)
    (source / "large").write_bytes(random.Random(0).randbytes(3 * BLOCK))
    pack()
    report = job.report(archive, "--dst", f"/tmp/{source.name}")
    assert {size for node, (_, size) in sent(report).items() if node != "n000"} == {SIZE + 3 * BLOCK}
    (source / "folder" / "file1").unlink()
    pack()
    report = job.report(archive, "--dst", f"/tmp/{source.name}")
    assert {size for _, size in sent(report).values()} == {0}
    assert all_have(job, source)


VICTIMS = {"stream": ("agent",), "rsync": ("agent", "rsync")}


@pytest.mark.parametrize("engine", ENGINES.names())
def test_whatever_is_killed_when_each_node_has_the_old_version_or_the_new(job: Job, source: Path, engine: str) -> None:
    rng = random.Random()
    places = [job.lab.path(host, f"/tmp/{source.name}") for host in job.lab.hosts]
    job.report(source)
    for turn in range(5):
        before = list(map(shown, places))
        (source / f"new{turn}").write_bytes(rng.randbytes(20 * SIZE))
        (source / "folder" / f"file{turn}").write_bytes(rng.randbytes(SIZE))
        running = job.ezpz.popen("yeet", source, "--engine", engine, "--hostfile", job.hostfile)
        time.sleep(rng.uniform(0.4, 2.0))
        kill(job, rng.choice(job.lab.hosts[1:]), rng.choice(VICTIMS[engine]))
        if turn % 2:
            running.kill()
        running.communicate()
        for place, was in zip(places, before, strict=True):
            assert shown(place) in (was, shown(source)), (turn, place)
    until_free(job)
    report = job.report(source, "--engine", engine)
    assert report["succeeded"] == 4
    assert all_have(job, source)
    assert [job.litter(host.name) for host in job.lab.hosts] == [[]] * 4


def kill(job: Job, host: Host, victim: str) -> None:
    """End the agent of a host, or every rsync there, as a power cut would."""
    sign = {"agent": "import sys,zlib", "rsync": "rsync"}[victim]
    for pid, argv in job.lab.processes(host):
        if any(sign in word for word in argv):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def shown(place: Path) -> dict[bytes, Any]:
    """Return all that is in a tree: modes, sizes, times and contents; of the mode of the top, what is the owner's."""
    found: dict[bytes, Any] = {path: seen[:4] for path, seen in facts(place).items()}  # without the number of names
    mode, *others = found[b"."]
    return {**found, b".": (mode & ~0o077, *others)}


def until_free(job: Job) -> None:
    """Wait for agents that have lost their launching host."""
    wait_until(lambda: not any(job.lab.processes(host) for host in job.lab.hosts[1:]), "the end of all agents")
