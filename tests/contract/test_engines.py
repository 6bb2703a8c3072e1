"""Every engine that the registry names brings the same tree to every node, and leaves alone what is not its own."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common.layout import OWN_FILES
from ezpz.yeet.engines.base import ENGINES
from tests.cluster.conftest import Job
from tests.contract.support import copied_without, needs_root, photograph
from tests.lab.compare import compare_trees
from tests.lab.nasty import nasty_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Ezpz

pytestmark = [pytest.mark.cluster, pytest.mark.parametrize("engine", ENGINES.names())]


@pytest.fixture
def job(ezpz: Ezpz) -> Job:
    """A job on the four hosts of `lab4`."""
    return Job(ezpz.lab, ezpz, ezpz.lab.write_hostfile(ezpz.lab.shared / "hostfile"))


@pytest.fixture
def source(job: Job, request: pytest.FixtureRequest) -> Path:
    """Where a test may put its source: on the disk that all hosts share, under a name of its own."""
    return job.lab.shared / f"engine-{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def small(source: Path) -> Path:
    """A few files and a link."""
    (source / "folder").mkdir(parents=True)
    for name in ("same", "content", "shrunk", "mode", "time", "gone", "kind", "folder/inner", "folder/alone"):
        (source / name).write_text(f"the first {name}\n")
    (source / "link").symlink_to("same")
    os.link(source / "same", source / "same-again")
    return source


def place_of(source: Path) -> str:
    return f"/tmp/{source.name}"


def failures(report: dict[str, Any]) -> dict[str, str]:
    return {node["node"]: node["failure"]["code"] for node in report["nodes"] if node["failure"]}


def has_arrived(job: Job, expected: Path, source: Path, *but: str) -> None:
    """Assert that each host but these has the tree, and nothing else of ours."""
    for host in job.lab.hosts:
        if host.name not in but:
            assert compare_trees(expected, job.lab.path(host, place_of(source)), but=OWN_FILES, private=True) == [], (
                host.name
            )
            assert job.sh(host.name, "ls -A /tmp") == f"{source.name}\n"


def as_it_lands(source: Path) -> Path:
    """What a nasty tree is at its destination: its one link with a full path into itself leads into the copy."""
    expected = copied_without(source, source.with_name(f"{source.name}-expected"))
    link = expected / "links" / "absolute"
    times = [(path, path.lstat()) for path in (link, link.parent)]
    link.unlink()
    link.symlink_to("../contents/small")
    for path, was in times:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns), follow_symlinks=False)
    return expected


def test_a_nasty_tree_arrives_as_it_is_and_the_same_again_touches_nothing(job: Job, source: Path, engine: str) -> None:
    nasty_tree(source)
    report = job.report(source, "--engine", engine)
    assert (report["plan"]["engine"]["name"], report["succeeded"], failures(report)) == (engine, 4, {})
    has_arrived(job, as_it_lands(source), source)
    places = [job.lab.path(host, place_of(source)) for host in job.lab.hosts]
    before = [photograph(place, inode=False) for place in places]
    report = job.report(source, "--engine", engine)
    assert [(node["unchanged"], node["sent_bytes"]) for node in report["nodes"]] == [(True, 0)] * 4
    assert [photograph(place, inode=False) for place in places] == before


def test_what_was_changed_there_is_put_right_and_what_was_changed_here_follows(
    job: Job, small: Path, engine: str
) -> None:
    job.report(small, "--engine", engine)
    has_arrived(job, small, small)
    job.sh("n002", f"cd {place_of(small)}; rm same; rm -r folder; echo more > extra; chmod 600 mode")
    report = job.report(small, "--engine", engine)
    assert [node["node"] for node in report["nodes"] if not node["unchanged"]] == ["n002"]
    has_arrived(job, small, small)
    change(small)
    report = job.report(small, "--engine", engine)
    assert [node["unchanged"] for node in report["nodes"]] == [False] * 4
    has_arrived(job, small, small)


def change(tree: Path) -> None:
    """Change everything that can be, and add something."""
    (tree / "content").write_text("the other content, longer\n")
    (tree / "shrunk").write_text("short")
    (tree / "mode").chmod(0o755)
    os.utime(tree / "time", ns=(1, 1_000_000_001))
    (tree / "gone").unlink()
    (tree / "kind").unlink()
    (tree / "kind").mkdir()
    (tree / "folder" / "alone").unlink()
    (tree / "same-again").unlink()
    (tree / "link").unlink()
    (tree / "link").symlink_to("content")
    (tree / "new").write_text("new")


def test_a_dead_node_is_reported_and_the_others_are_served(job: Job, small: Path, engine: str) -> None:
    job.lab.kill("n002")
    report = job.report(small, "--engine", engine, exit_code=31)
    assert (failures(report), report["succeeded"]) == ({"n002": "ssh-refused"}, 3)
    has_arrived(job, small, small, "n002")


def test_what_is_not_ours_is_refused_on_its_node_and_left_alone(job: Job, small: Path, engine: str) -> None:
    theirs = place_of(small)
    job.sh("n002", f"mkdir {theirs}; echo precious > {theirs}/thesis; chmod 400 {theirs}/thesis")
    before = photograph(job.lab.path("n002", theirs))
    report = job.report(small, "--engine", engine, exit_code=21)
    assert failures(report) == {"n002": "destination-not-ours"}
    assert [job.sh(name, "ls -A /tmp") for name in ("n000", "n001", "n003")] == [""] * 3
    report = job.report(small, "--engine", engine, "--min-success-nodes", "3")
    assert (failures(report), report["succeeded"]) == ({"n002": "destination-not-ours"}, 3)
    has_arrived(job, small, small, "n002", "n000")  # which has the list of who failed besides
    assert photograph(job.lab.path("n002", theirs)) == before
    assert job.sh("n002", "ls -A /tmp") == f"{small.name}\n"


STRANGER = "setpriv --reuid=20001 --regid=20001 --clear-groups"


def who_may_read(job: Job, source: Path) -> set[tuple[str, bool]]:
    """Return the modes of the tops on all hosts, and whether another user can list them."""
    look = f"stat -c %a {{0}}; {STRANGER} ls {{0}} >/dev/null 2>&1 && echo yes || echo no"
    found = (job.sh(host.name, look.format(place_of(source))).split() for host in job.lab.hosts)
    return {(mode, answer == "yes") for mode, answer in found}


def test_a_node_without_python_is_refused_and_the_others_are_served(job: Job, small: Path, engine: str) -> None:
    job.lab.without("n002", "python3")
    job.sh("n002", f"mount -t tmpfs none {os.path.dirname(os.path.realpath(sys.executable))}")
    report = job.report(small, "--engine", engine, exit_code=30)
    assert (failures(report), report["succeeded"]) == ({"n002": "tool-missing"}, 3)
    [message] = [node["failure"]["message"] for node in report["nodes"] if node["failure"]]
    assert message == "n002: no python3 (3.6 or newer) was found there"
    has_arrived(job, small, small, "n002")


@needs_root
def test_another_user_of_a_node_lists_no_copy_unless_it_is_public(job: Job, small: Path, engine: str) -> None:
    small.chmod(0o755)
    for options, seen in (((), ("700", False)), (("--public",), ("755", True)), ((), ("700", False))):
        first = not job.lab.path("n001", place_of(small)).exists()
        report = job.report(small, "--engine", engine, *options)
        assert who_may_read(job, small) == {seen}
        if not first:  # the same version, with another mode
            assert [(node["unchanged"], node["replaced"]) for node in report["nodes"]] == [
                (False, report["version"])
            ] * 4
            assert [(node["sent_files"], node["sent_bytes"]) for node in report["nodes"]] == [(0, 0)] * 4


@needs_root
def test_only_the_node_where_a_copy_was_opened_by_hand_is_put_right(job: Job, small: Path, engine: str) -> None:
    small.chmod(0o755)
    job.report(small, "--engine", engine)
    job.sh("n002", f"chmod 755 {place_of(small)}")
    report = job.report(small, "--engine", engine)
    assert {node["node"]: node["unchanged"] for node in report["nodes"]} == {
        "n000": True, "n001": True, "n002": False, "n003": True,
    }  # fmt: skip
    assert who_may_read(job, small) == {("700", False)}
    assert all(node["unchanged"] for node in job.report(small, "--engine", engine)["nodes"])
