"""What a yeet takes of memory: never a share of the source, on the launching host and on the nodes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.members import write_members
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job
    from tests.lab import FaultyLab

pytestmark = pytest.mark.cluster

NODES = ("n001", "n002", "n003")
MEGABYTE = 10**6
AGENT_MOST, LAUNCHER_MOST = 128 * MEGABYTE, 256 * MEGABYTE
MILLION_MOST = 600 * MEGABYTE
FILES, FILE_SIZE = 8, 16 * MEGABYTE  # more in all than what an agent may take, and twice as much as all buffers
MANY = 10_000  # enough to see what a file takes, and made and copied in seconds
WANTED, MILLION = 100_000, 1_000_000  # files


def high_water(pid: int) -> int:
    """The most memory that a process has had, in bytes; 0 once it has gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
    except (OSError, ValueError):
        return 0
    return int(lines.get("VmHWM", "0 kB").split()[0]) * 1024


def peaks(job: Job, tree: Path | str) -> tuple[int, int]:
    """Yeet a tree to three nodes; the most memory that the launching process took, and the hungriest agent."""
    job.hostfile.write_text("".join(f"{name}\n" for name in ("n000", *NODES)))
    running = job.ezpz.popen("yeet", tree, "--dst", "/tmp/copy", "--hostfile", job.hostfile, "--json")
    most = dict.fromkeys(("n000", *NODES), 0)

    def look() -> bool:
        found = [(name, pid) for name in NODES for pid, argv in job.lab.processes(name) if "-IS" in argv]
        for name, pid in (("n000", running.pid), *found):
            most[name] = max(most[name], high_water(pid))
        return running.poll() is not None

    try:
        wait_until(look, "the end of the run")
        out, err = running.communicate()
    finally:
        running.kill()
    assert json.loads(out)["succeeded"] == 4, err
    assert all(most.values()), f"not seen: {most}"
    return most["n000"], max(most[name] for name in NODES)


def test_large_files_are_never_held_as_a_whole(shaped: FaultyLab, job: Job) -> None:
    """On a slow network, where everything waits for the wire."""
    tree = shaped.shared / "heavy"
    tree.mkdir()
    block = os.urandom(FILE_SIZE)
    for number in range(FILES):
        (tree / f"file{number}").write_bytes(block)
    launcher, agent = peaks(job, tree)
    assert agent < AGENT_MOST
    assert launcher < min(LAUNCHER_MOST, FILES * FILE_SIZE)


def test_a_hundred_thousand_small_files_fit(shaped: FaultyLab, job: Job) -> None:
    """Of which some are measured: what they take more than a few do, times as many as there are more."""
    found = {}
    for count in (10, MANY):
        tree = shaped.path("n000", f"/tmp/files-{count}")  # files are made there much faster than on the shared disk
        for number in range(count):
            if number % 100 == 0:
                folder = tree / f"folder{number:06d}"
                folder.mkdir(parents=True)
            (folder / f"a-name-of-some-length-{number}.py").write_text(str(number))
        found[count] = peaks(job, f"/tmp/{tree.name}")
    launcher, agent = grown(found, WANTED)
    assert agent < AGENT_MOST
    assert launcher < LAUNCHER_MOST


def grown(found: dict[int, tuple[int, int]], wanted: int) -> tuple[int, ...]:
    """What so many files take of the launching process and of an agent, given what few and many take."""
    (few, least), (many, most) = sorted(found.items())
    return tuple(low + (high - low) * (wanted - few) // (many - few) for low, high in zip(least, most, strict=True))


def test_a_million_members_of_an_archive_take_what_the_docs_say(shaped: FaultyLab, job: Job) -> None:
    """The same for an archive, which may come from anywhere: `make bench` has one with all of them."""
    found = {}
    for count in (MANY, 10 * MANY):
        archive = shaped.shared / f"members-{count}.tar.zst"
        write_members(archive, count)
        found[count] = peaks(job, archive)
    launcher, agent = grown(found, MILLION)
    assert max(launcher, agent) < MILLION_MOST
