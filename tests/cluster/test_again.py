"""A source that is changed at random, and copies on nodes that are meddled with: after each yeet all of them agree."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ezpz.yeet.agent.manifest import BLOCK
from ezpz.yeet.agent.tree import OWN_FILES
from ezpz.yeet.fanout.base import ENGINES
from tests.lab.compare import compare_trees

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster

NAMES = ("a", "b", "c.py", "not-utf8-\udcff", "new\nline", "-rf")
FOLDERS = ("", "f", "f/g", "h")
SIZES = (0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK - 5)
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
            assert compare_trees(self.source, found, but=OWN_FILES) == [], host.name

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
            max_examples=6, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
