"""`ezpz yeet status` on real hosts: every state made for real and seen; what is under way followed to its end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import clean_environment
from tests.lab import make_lab
from tests.lab.environments import make_tree
from tests.waiting import DEADLINE, wait_for_next_second

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster


def status(job: Job, *arguments: str | Path, exit_code: int = 1) -> dict[str, dict[str, Any]]:
    """What `status --json` says of the one destination, by node."""
    [destination] = job.report("status", *arguments, exit_code=exit_code)["destinations"]
    return {node["node"]: node for node in destination["nodes"]}


def states(job: Job, *arguments: str | Path, exit_code: int = 1) -> list[str]:
    return [node["state"] for node in status(job, *arguments, exit_code=exit_code).values()]


def place_of(data: Path) -> str:
    return f"/tmp/{data.name}"


def test_all_current(job: Job, data: Path) -> None:
    job.report(data)
    done = job.yeet("status", place_of(data))
    assert done.returncode == 0, done.stdout + done.stderr
    title, line = done.stdout.splitlines()
    assert title == f"{place_of(data)}  from {data}"
    facts = (
        r"    4  n\[000-003\]  current [0-9a-f]{12}, 5.0 MB, 200 files, \d+ s old \(.*\), run \d{8}-\d{6}-[0-9a-f]{8}"
    )
    assert re.fullmatch(facts, line)


def test_every_state(job: Job, data: Path) -> None:
    place = place_of(data)
    job.report(data)
    job.sh("n000", f"echo more >>{place}/$(cd {place}; find . -type f ! -name '.ezpz*' | head -1)")
    job.sh("n001", f"rm -r {place}")
    job.sh("n002", f"rm {place}/.ezpz-yeet-receipt.json")
    job.lab.kill("n003")
    assert states(job, place) == ["modified", "absent", "foreign", "unreachable"]
    assert states(job) == ["modified", "absent", "foreign", "unreachable"]
    lines = job.yeet("status", place).stdout.splitlines()[1:]
    assert "1 changed" in lines[0]
    assert "foreign: it has no receipt of a yeet" in lines[2]
    assert "unreachable: the connection was refused" in lines[3]


def test_another_version_is_stale_and_a_changed_source_makes_all_stale(job: Job, data: Path) -> None:
    place = place_of(data)
    job.report(data)
    (data / "more").write_text("more")
    wait_for_next_second()  # a receipt holds whole seconds
    done = job.ezpz("yeet", data, "--hosts", "n[000-001]")
    assert done.returncode == 0, done.stderr
    assert states(job, place) == ["current", "current", "stale", "stale"]
    job.report(data)
    assert states(job, place, exit_code=0) == ["current"] * 4
    wait_for_next_second()  # a receipt holds whole seconds
    (data / "even-more").write_text("more")
    found = status(job, place)
    assert {node["state"] for node in found.values()} == {"stale"}
    assert found["n003"]["why"] == "its source has changed since: even-more"


def test_verify_finds_a_flipped_byte_of_the_same_size_and_time(job: Job, data: Path) -> None:
    place = place_of(data)
    job.report(data)
    name = next(
        str(path.relative_to(data)) for path in sorted(data.rglob("*")) if path.is_file() and path.stat().st_size > 100
    )
    flip = (
        f"import os; p = {f'{place}/{name}'!r}; s = os.stat(p); f = open(p, 'r+b'); b = f.read(1); f.seek(0); "
        "f.write(bytes([b[0] ^ 1])); f.close(); os.utime(p, ns=(s.st_atime_ns, s.st_mtime_ns))"
    )
    job.lab.run("n002", ["/usr/bin/python3", "-c", flip])
    assert states(job, place, exit_code=0) == ["current"] * 4, "only reading it can tell"
    found = status(job, place, "--verify")
    assert [node["state"] for node in found.values()] == ["current", "current", "modified", "current"]
    assert found["n002"]["differences"]["changed_paths"] == [name]
    assert all(node["contents_compared"] for node in found.values())
    assert f"changed  {name}" in job.yeet("status", "--verify", place).stdout


def test_a_version_of_an_older_ezpz_is_judged_by_its_receipt(job: Job, data: Path) -> None:
    place = place_of(data)
    job.report(data)
    forget = (
        f"import json; p='{place}/.ezpz-yeet-receipt.json'; r=json.load(open(p)); "
        "[r.pop(n, None) for n in ('contents', 'inputs')]; json.dump(r, open(p, 'w'))"
    )
    for host in job.lab.hosts:
        job.lab.run(host, ["/usr/bin/python3", "-c", forget])
        job.sh(host.name, f"rm {place}/.ezpz-yeet-manifest")
    assert states(job, place, exit_code=0) == ["current"] * 4
    job.sh("n001", f"touch {place}/added")
    found = status(job, place)
    assert (found["n001"]["state"], found["n001"]["why"]) == (
        "modified", "the number of its files differs: 201 instead of 200",
    )  # fmt: skip
    assert "no digests" in job.yeet("status", "--verify", place).stdout


def test_without_a_destination_every_place_is_looked_at(job: Job, data: Path) -> None:
    for dst in ("/tmp/one", "/dev/shm/two", "/tmp/job-17/three"):
        job.report(data, "--dst", dst)
    job.sh("n001", "mkdir /tmp/plain; cp -a /tmp/one /tmp/copied-by-hand")
    variables = {"TMPDIR": "/tmp/job-17"}
    document = job.report("status", env=variables)
    assert [each["destination"] for each in document["destinations"]] == [
        "/dev/shm/two",
        "/tmp/job-17/three",
        "/tmp/one",
    ]
    assert document["exit_code"] == 0


def test_nothing_anywhere(job: Job) -> None:
    done = job.yeet("status")
    assert (done.returncode, done.stdout) == (1, "nothing of a yeet under the usual places of 4 nodes\n")


def test_a_run_that_was_killed_leaves_a_partial_one(job: Job, data: Path) -> None:
    job.report(data)
    place = place_of(data)
    run = "20261120-164754-252269f7"
    job.sh(
        "n001",
        f"rm -r {place}; mkdir -p /tmp/.{data.name}.ezpz-{run}/tree; echo 12345 >/tmp/.{data.name}.ezpz-{run}/tree/x",
    )
    found = status(job, place)
    assert (found["n001"]["state"], found["n001"]["why"]) == ("partial", "left by a run that died")
    [staging] = found["n001"]["staging"]
    assert (staging["run"], staging["files"], staging["bytes"], staging["live"]) == (run, 1, 6, False)


@pytest.mark.parametrize("shell", ["/bin/csh", "/usr/bin/fish", "/bin/dash"])
def test_every_login_shell_starts_what_answers(job: Job, shell: str) -> None:
    from ezpz.remote.bootstrap import query_command

    if not os.path.exists(shell):
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-c", query_command()], input=b"0\n", capture_output=True)
    assert b"python3: not found" in done.stderr  # as no python can run an empty program


def test_a_node_without_python_is_answered_by_ours_or_says_so(job: Job, data: Path) -> None:
    job.report(data)
    job.lab.without("n002", "python3")
    assert states(job, place_of(data), exit_code=0) == ["current"] * 4
    job.sh("n002", f"mount -t tmpfs none {os.path.dirname(os.path.realpath(sys.executable))}")
    found = status(job, place_of(data))
    assert found["n002"]["state"] == "unreachable"
    assert found["n002"]["failure"]["code"] == "tool-missing"


def test_very_many_nodes_are_reached_through_a_tree_of_agents(job: Job, data: Path) -> None:
    """As if two were very many, and as if one host started but one."""
    job.report(data)
    arguments = ["yeet", "status", "--verify", "--hostfile", str(job.hostfile)]
    code = (
        "from ezpz.remote import query, startup; from ezpz.cli.app import main; "
        f"query.MANY = 1; startup.FAN = 1; main({arguments!r})"
    )
    done = job.lab.run("n000", [sys.executable, "-c", code], env=clean_environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert "    4  n[000-003]  current" in done.stdout


@pytest.fixture
def slow(job: Job) -> Any:
    """Four hosts on slow cables, and a tree that takes some seconds to be sent."""
    with make_lab(4, rate="15mbit") as lab:
        tree = lab.shared / "tree"
        make_tree(tree, files=300, total_bytes=40_000_000, seed=5)
        job.ezpz.lab, job.lab = lab, lab
        job.hostfile = lab.write_hostfile(lab.shared / "hostfile")
        yield job, tree


def begun(job: Job, tree: Path) -> subprocess.Popen[str]:
    """A run in another terminal that has begun to write on every node."""
    run = job.ezpz.popen("yeet", tree, "--hostfile", job.hostfile)
    for host in ("n001", "n003"):
        job.sh(host, "while ! find /tmp/.tree.ezpz-*/tree -type f 2>/dev/null | grep -q .; do sleep 0.05; done")
    return run


def test_a_run_is_followed_to_its_end(slow: tuple[Job, Path]) -> None:
    job, tree = slow
    run = begun(job, tree)
    now = status(job, "/tmp/tree")
    assert now["n003"]["state"] == "partial"
    assert now["n003"]["lock"]["host"] == "n003"
    assert now["n003"]["staging"][0]["live"]
    done = job.yeet("status", "--watch")
    assert run.wait(timeout=DEADLINE) == 0
    run.communicate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"/tmp/tree: \d of 4 nodes have it, \d writing, [0-9.]+ MB( of [0-9.]+ MB)? on their disks", done.stderr
    )
    assert "    4  n[000-003]  current" in done.stdout
    again = job.yeet("status", "--watch", "/tmp/tree")
    assert (again.returncode, again.stderr) == (0, "no run is under way\n")


def test_ctrl_c_ends_the_watching_and_not_the_run(slow: tuple[Job, Path]) -> None:
    job, tree = slow
    run = begun(job, tree)
    watching = job.ezpz.popen("yeet", "status", "--watch", "--hostfile", job.hostfile)
    assert watching.stderr is not None
    assert "on their disks" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=DEADLINE)
    assert (watching.returncode, "Traceback" in err) == (130, False)
    assert run.wait(timeout=DEADLINE) == 0
    run.communicate()
    assert states(job, "/tmp/tree", exit_code=0) == ["current"] * 4


def test_on_a_terminal_it_is_drawn_in_place(slow: tuple[Job, Path]) -> None:
    job, tree = slow
    run = begun(job, tree)
    ours, theirs = pty.openpty()
    environment = {**clean_environment(), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    argv = job.ezpz.argv("yeet", "status", "--watch", "--hostfile", job.hostfile)
    watching = job.lab.popen("n000", argv, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while data := os.read(ours, 1 << 16):
            said += data
    except OSError:
        pass  # the terminal is gone with its last process
    os.close(ours)
    out, _ = watching.communicate(timeout=DEADLINE)
    run.communicate(timeout=DEADLINE)
    assert b"nodes have it" in said
    assert b"\x1b[2K" in said or b"\x1b[1A" in said
    assert "current" in out


def test_status_is_valid_by_its_schema(job: Job, data: Path) -> None:
    import jsonschema

    from tests.unit.test_docs import SCHEMAS

    job.report(data)
    job.sh("n001", f"rm -r {place_of(data)}/lib")
    job.lab.kill("n003")
    schema = json.loads((SCHEMAS / "yeet-status.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(job.report("status", "--verify", exit_code=1))
