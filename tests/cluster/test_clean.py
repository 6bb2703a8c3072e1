"""`ezpz yeet clean` on real hosts: exactly what is proven to be ours goes, whatever is around it, whenever it dies."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import clean_environment
from tests.lab.environments import make_tree
from tests.unit.processes import waits_for_input
from tests.waiting import DEADLINE, read_until, wait_for_next_second, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job

pytestmark = pytest.mark.cluster

OLD = "20261120-164754-252269f7"
NEIGHBOURS = f"""
cd /tmp
mkdir plain; echo mine >plain/file
cp -a DATA copied-by-hand                                   # a receipt that names another place
ln -s /tmp/plain link-to-plain; ln -s DATA link-to-data
cp -a DATA somebody-elses; sed -i s,/tmp/DATA,/tmp/somebody-elses, somebody-elses/.ezpz-yeet-receipt.json
chown -R 12345 somebody-elses
cp -a DATA given; sed -i s,/tmp/DATA,/tmp/given, given/.ezpz-yeet-receipt.json
chown 12345 given/.ezpz-yeet-receipt.json                   # somebody put a receipt into a directory of mine
mkdir linked; cp -a DATA/.ezpz-yeet-receipt.json receipt; sed -i s,/tmp/DATA,/tmp/linked, receipt
ln -s /tmp/receipt linked/.ezpz-yeet-receipt.json           # a receipt that is a link
mkdir forged; echo '{{"format":"ezpz/receipt/1","destination":"/tmp/forged/../plain"}}' >forged/.ezpz-yeet-receipt.json
mkdir broken; echo '{{"format":' >broken/.ezpz-yeet-receipt.json
mkdir .x.ezpz-{OLD}x .x.ezpz-2026 x.ezpz-{OLD} .ezpz-{OLD}  # names that only look like staging
ln -s /tmp/plain .y.ezpz-{OLD}; echo file >.z.ezpz-{OLD}
mkdir .theirs.ezpz-{OLD}; chown 12345 .theirs.ezpz-{OLD}
mkfifo .pipe.ezpz-lock; ln -s /tmp/plain/file .q.ezpz-lock
find /tmp -exec touch -h -d '3 hours ago' {{}} +
"""


def place_of(data: Path) -> str:
    return f"/tmp/{data.name}"


def names(job: Job, host: str) -> set[str]:
    return set(job.sh(host, "ls -A /tmp").split())


def test_preview_and_then_it_goes(job: Job, data: Path) -> None:
    place = place_of(data)
    job.report(data)
    preview = job.yeet("clean", place)
    assert preview.returncode == 2, preview.stderr
    title, line, total, verdict = preview.stdout.splitlines()
    assert title == place
    assert line.startswith("    4  n[000-003]  remove version ")
    assert str(data) in line
    assert total.startswith("this would free ")
    assert verdict == "nothing was removed: nobody said yes; --yes removes it without asking"
    assert job.yeet("clean", place, "--dry-run").returncode == 0
    assert all(names(job, host.name) == {data.name} for host in job.lab.hosts)
    done = job.yeet("clean", place, "--yes")
    assert done.returncode == 0, done.stderr
    assert "removed 4 directories from 4 nodes: 2" in done.stdout
    assert all(names(job, host.name) == set() for host in job.lab.hosts)
    again = job.yeet("clean", place, "--yes")
    assert (again.returncode, again.stdout) == (0, "nothing to remove\n")


def test_what_is_said_to_be_freed_is(job: Job, data: Path) -> None:
    job.report(data)
    free = "df -k --output=used /tmp | tail -1"
    before = {host.name: int(job.sh(host.name, free)) * 1024 for host in job.lab.hosts}
    document = job.report("clean", "--yes")
    assert (document["done"], document["exit_code"]) == (True, 0)
    assert document["freed"] == document["frees"]
    for [removal] in (
        [each for each in document["destinations"][0]["removals"] if each["node"] == name] for name in before
    ):
        used = int(job.sh(removal["node"], free)) * 1024
        assert before[removal["node"]] - used == pytest.approx(removal["freed"], abs=64 << 10)


def test_what_one_node_alone_would_look_for_goes_from_all(job: Job, data: Path) -> None:
    job.report(data, "--dst", "/tmp/odd/env")
    job.sh("n001", "ln -s /tmp/odd /dev/shm/$(id -un)")
    assert job.yeet("status").stdout.splitlines()[0] == f"/tmp/odd/env  from {data}"
    assert job.yeet("clean", "--yes").returncode == 0
    assert [job.sh(host.name, "ls -A /tmp/odd") for host in job.lab.hosts] == [""] * 4


def test_a_nasty_neighbourhood_stays(job: Job, data: Path) -> None:
    job.report(data)
    before = {}
    look = "cd /tmp; find . -mindepth 1 -path ./DATA -prune -o -printf '%p %y %m %U %s %l\\n' | sort".replace(
        "DATA", data.name
    )
    for host in job.lab.hosts:
        job.sh(host.name, NEIGHBOURS.replace("DATA", data.name))
        job.sh(host.name, "rm /tmp/link-to-data; ln -s /tmp/copied-by-hand /tmp/link-to-data")
        before[host.name] = job.sh(host.name, look)
    document = job.report("clean", "--yes")
    assert [each["destination"] for each in document["destinations"] if each["removals"]] == [place_of(data)]
    for host in job.lab.hosts:
        assert data.name not in names(job, host.name)
        assert job.sh(host.name, look) == before[host.name]
    for name in ("plain", "copied-by-hand", "link-to-plain", "link-to-data", "given", "linked", "forged", "broken",
                 "somebody-elses"):  # fmt: skip
        refused = job.yeet("clean", f"/tmp/{name}", "--yes")
        assert refused.returncode == 21, (name, refused.stdout, refused.stderr)
        assert "leave alone" in refused.stdout
    for host in job.lab.hosts:
        assert job.sh(host.name, look) == before[host.name]


def test_a_run_under_way_is_left_alone_on_every_node(job: Job, data: Path) -> None:
    place = place_of(data)
    job.report(data)
    lock = f"/tmp/.{data.name}.ezpz-lock"
    hold = (
        f"import fcntl, json, os, sys; f = open({lock!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        f"f.write(json.dumps(dict(run={OLD!r}, user='me', host='n002', pid=os.getpid(), since=0))); f.flush(); "
        "print(1, flush=True); sys.stdin.read()"
    )
    argv = ["/usr/bin/python3", "-c", hold]
    holder = job.lab.popen("n002", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        job.report(data, "--dst", "/tmp/free")
        done = job.yeet("clean", "--yes")
        assert done.returncode == 22, done.stdout + done.stderr
        assert f"left alone: '{place}' is held: run {OLD} of me is under way" in done.stdout
    finally:
        holder.communicate(timeout=DEADLINE)
    assert all(data.name in names(job, host.name) for host in job.lab.hosts)
    assert all("free" not in names(job, host.name) for host in job.lab.hosts)
    assert job.yeet("clean", "--yes").returncode == 0
    assert all(names(job, host.name) == set() for host in job.lab.hosts)


def test_keep_keeps_the_newest_of_each_source(job: Job, data: Path) -> None:
    other = job.lab.shared / f"other-{data.name}"
    make_tree(other, files=5, total_bytes=5000, seed=3)
    for number in range(3):
        (data / "more").write_text(str(number))
        job.report(data, "--dst", f"/tmp/v{number}")
        wait_for_next_second()  # a receipt holds whole seconds
    job.report(other, "--dst", "/tmp/only")
    job.report("clean", "--keep", "2", "--yes")
    assert all(names(job, host.name) == {"v1", "v2", "only"} for host in job.lab.hosts)
    job.report("clean", "--keep", "1", "--yes")
    assert all(names(job, host.name) == {"v2", "only"} for host in job.lab.hosts)
    (data / "more").write_text("newest")
    assert job.ezpz("yeet", data, "--dst", "/tmp/v2", "--hosts", "n000").returncode == 0
    job.report("clean", "/tmp/v2", "--keep", "1", "--yes")
    assert [("v2" in names(job, host.name)) for host in job.lab.hosts] == [True, False, False, False]


def test_staging_goes_once_it_is_old(job: Job, data: Path) -> None:
    """ctime cannot be set, so the clock of the agent is what is moved: by a python that says it is later."""
    staging = f".{data.name}.ezpz-{OLD}"
    for host in job.lab.hosts:
        job.sh(
            host.name, f"mkdir -p /tmp/{staging}/tree; echo x >/tmp/{staging}/tree/x; touch /tmp/.{data.name}.ezpz-lock"
        )
    young = job.report("clean", "--yes")
    assert [each["removals"] for each in young["destinations"]] == [[]]
    later = "import time; real = time.time; time.time = lambda: real() + 4000\n"
    code = later + "from ezpz.cli.app import main; main(['yeet', 'clean', '--yes', '--hosts', 'n000'])"
    done = job.lab.run("n000", [sys.executable, "-c", code], env=clean_environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert f"what run {OLD} left, unchanged for 1 h" in done.stdout
    assert names(job, "n000") == set()
    assert names(job, "n001") == {staging, f".{data.name}.ezpz-lock"}


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_that_is_killed_leaves_nothing_half_and_the_next_finishes(job: Job, seed: int) -> None:
    data = job.lab.shared / f"many-{seed}"
    make_tree(data, files=6000, total_bytes=600_000, seed=seed)
    place = place_of(data)
    job.report(data)
    wanted = {host.name: job.files(host.name, place) for host in job.lab.hosts}
    cleaning = job.ezpz.popen("yeet", "clean", "--yes", "--hostfile", job.hostfile)
    assert cleaning.stdout is not None
    assert any("this would free" in line for line in iter(cleaning.stdout.readline, ""))
    chance = random.Random(seed)
    time.sleep(chance.uniform(0.0, 1.0))
    for signalled in (False, True):
        for host in job.lab.hosts[1:]:
            kill_agents(job, host.name)
        if not signalled:
            cleaning.send_signal(signal.SIGKILL)
            cleaning.communicate(timeout=DEADLINE)
    for host in job.lab.hosts:
        left = names(job, host.name)
        if data.name in left:
            assert job.files(host.name, place) == wanted[host.name], "half of it stands"
        assert all(name == data.name or name.startswith(f".{data.name}.ezpz-") for name in left)
    again = job.yeet("clean", "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(names(job, host.name) == set() for host in job.lab.hosts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_middle_leaves_nothing_half(job: Job, number: int) -> None:
    data = job.lab.shared / f"interrupted-{number}"
    make_tree(data, files=6000, total_bytes=600_000, seed=number)
    job.report(data)
    wanted = job.files("n000", place_of(data))
    hold, asked = job.lab.shared / f"hold-{number}", job.lab.shared / f"asked-{number}"
    hold.touch()  # n003 answers the question, and is reached for the removal only when there is no hold any more
    job.lab.bashrc("n003", f"mkdir {asked} 2>/dev/null || while test -e {hold}; do sleep 0.05; done\n")
    cleaning = job.ezpz.popen("yeet", "clean", "--yes", "--hostfile", job.hostfile)
    assert cleaning.stdout is not None
    assert any("this would free" in line for line in iter(cleaning.stdout.readline, ""))
    wait_until(lambda: data.name not in names(job, "n001"), "the removal on n001", process=cleaning)
    cleaning.send_signal(number)
    _, err = cleaning.communicate(timeout=DEADLINE)
    assert (cleaning.returncode, "Traceback" in err) == (128 + number, False), err
    hold.unlink()
    for host in job.lab.hosts:
        wait_until(lambda: not any("-IS" in argv for _, argv in job.lab.processes(host)), "the end of all agents")  # noqa: B023 - called at once
        if data.name in names(job, host.name):
            assert job.files(host.name, place_of(data)) == wanted
    again = job.yeet("clean", "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(names(job, host.name) == set() for host in job.lab.hosts)


def kill_agents(job: Job, host: str) -> None:
    """End what an ssh session has started on a host, as a power cut would."""
    script = (
        "for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'IS -c import sys,zlib'; then "
    )
    script += "[ $(readlink /proc/self/ns/net) = $(readlink $p/ns/net) ] && kill -9 ${p#/proc/}; fi; done; true"
    job.lab.run(host, ["sh", "-c", script], check=False)


def test_a_yeet_after_a_killed_clean_finds_its_place_clean(job: Job, data: Path) -> None:
    job.report(data)
    left = f".{data.name}.ezpz-{OLD}"
    job.sh("n001", f"cd /tmp; mkdir {left}; mv {data.name} {left}/gone; rm -r {left}/gone/lib")
    job.report(data)
    assert names(job, "n001") == {data.name}
    assert job.files("n001", place_of(data)) == job.files("n000", str(data))


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2), ("", 2)])
def test_on_a_terminal_it_asks(job: Job, data: Path, answer: str, code: int) -> None:
    job.report(data)
    said, status = on_a_terminal(job, ["yeet", "clean", place_of(data), "--hostfile", str(job.hostfile)], answer)
    assert status == code, said
    assert "Remove this from 4 nodes? [y/N]" in said
    assert all((data.name in names(job, host.name)) == bool(code) for host in job.lab.hosts)


def test_ctrl_c_at_the_question_removes_nothing(job: Job, data: Path) -> None:
    job.report(data)
    said, status = on_a_terminal(job, ["yeet", "clean", "--hostfile", str(job.hostfile)], "\x03")
    assert (status, "Traceback" in said) == (130, False), said
    assert all(data.name in names(job, host.name) for host in job.lab.hosts)


def on_a_terminal(job: Job, arguments: list[str], answer: str) -> tuple[str, int]:
    """What `ezpz` says there, with this answer to its question, and its exit status.

    It comes when `input` waits for it: just before, a Ctrl-C would be lost until the next key.
    """
    argv = job.lab.argv("n000", job.ezpz.argv(*arguments))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, {**clean_environment(), "TERM": "xterm", "NO_COLOR": "1"})
    keys = b"\x03" if answer == "\x03" else answer.encode() + b"\n"
    pressed = False

    def answer_when_asked(said: bytes) -> bool:
        nonlocal pressed
        if b"[y/N]" in said and not pressed and waits_for_input(pid):
            os.write(terminal, keys)
            pressed = True
        return False

    said = read_until(terminal, answer_when_asked)
    os.close(terminal)  # hangs up on whoever is still there
    return said.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_nodes_that_do_not_answer_are_told_and_the_others_cleaned(job: Job, data: Path) -> None:
    job.report(data)
    job.lab.kill("n003")
    done = job.yeet("clean", "--yes")
    assert done.returncode == 31, done.stdout
    assert "    1  n003  failed: the connection was refused" in done.stdout
    assert all(names(job, f"n00{number}") == set() for number in range(3))


def test_clean_is_valid_by_its_schema(job: Job, data: Path) -> None:
    import json

    import jsonschema

    from tests.unit.test_docs import SCHEMAS

    schema: Any = json.loads((SCHEMAS / "yeet-clean.schema.json").read_text())
    validate = jsonschema.Draft202012Validator(schema).validate
    job.report(data)
    validate(job.report("clean", exit_code=2))
    job.sh("n001", f"rm {place_of(data)}/.ezpz-yeet-receipt.json")
    validate(job.report("clean", place_of(data), "--yes", exit_code=21))
    validate(job.report("clean", "--yes"))
