"""The main job on real hosts: what stood here stands there, whole, and works."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab import make_lab
from tests.lab.environments import make_tree
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Job
    from tests.lab import FaultyLab

pytestmark = pytest.mark.cluster

USE = "import numpy, sys; print(sys.prefix, numpy.__file__, int(numpy.arange(10).sum()))"


@pytest.mark.parametrize("strategy", ["direct", "rsync", "cp", "compress"])
def test_a_directory_arrives_whole_on_every_host_with_every_strategy(job: Job, data: Path, strategy: str) -> None:
    report = job.report(data, "--strategy", strategy)
    assert (report["status"], report["succeeded"], report["failed"]) == ("success", 4, 0)
    assert report["plan"]["strategy"]["name"] == strategy
    place = f"/tmp/{data.name}"
    original = job.files("n000", str(data))
    assert len(original) == 400
    for host in job.lab.hosts:
        assert job.files(host.name, place) == original, host.name
        assert job.litter(host.name) == []


def test_a_venv_is_activated_and_run_on_every_host(job: Job, venv: Path) -> None:
    done = job.yeet(env={"VIRTUAL_ENV": str(venv)})
    assert done.returncode == 0, done.stderr
    assert "source /tmp/numeric/bin/activate" in done.stdout
    for host in job.lab.hosts:
        activated = job.lab.run(host, ["bash", "-c", f". /tmp/numeric/bin/activate && python -c '{USE}'"]).stdout
        prefix, numpy, total = activated.split()
        assert (prefix, total) == ("/tmp/numeric", "45"), host.name
        assert numpy.startswith("/tmp/numeric/lib/")
        script = job.lab.run(host, ["/tmp/numeric/bin/pip", "--version"]).stdout
        assert "/tmp/numeric/lib" in script
        assert str(venv) not in job.sh(host.name, "cat /tmp/numeric/bin/activate* /tmp/numeric/bin/pip*")


def test_a_venv_runs_on_each_of_sixteen_hosts(lab16: FaultyLab, job: Job, venv: Path) -> None:
    assert job.report(venv)["succeeded"] == 16
    for host in lab16.hosts:
        prefix, numpy, _ = lab16.run(host, ["/tmp/numeric/bin/python", "-c", USE]).stdout.split()
        assert (prefix, numpy[:17]) == ("/tmp/numeric", "/tmp/numeric/lib/"), host.name


def test_an_archive_is_unpacked_on_every_host(job: Job, venv: Path) -> None:
    archive = job.lab.shared / "numeric.tar.gz"
    made = job.ezpz("yeet", "tar", venv, "-o", archive)
    assert made.returncode == 0, made.stderr
    report = job.report(archive)
    assert (report["plan"]["destination"], report["kind"]) == ("/tmp/numeric", "venv")
    for host in job.lab.hosts:
        prefix, numpy, _ = job.lab.run(host, ["/tmp/numeric/bin/python", "-c", USE]).stdout.split()
        assert (prefix, numpy[:17]) == ("/tmp/numeric", "/tmp/numeric/lib/"), host.name


def test_sixteen_hosts_serve_one_another(lab16: FaultyLab, job: Job, data: Path) -> None:
    report = job.report(data)
    assert report["succeeded"] == 16
    sources = {node["via"] for node in report["nodes"] if node["via"]}
    assert len(sources) > 1, "every copy came from the launching host"
    assert sum(node["via"] == "this host" for node in report["nodes"]) <= 8
    original = job.files("n000", str(data))
    assert all(job.files(host.name, f"/tmp/{data.name}") == original for host in lab16.hosts)


def test_a_second_run_moves_nothing_and_a_third_only_what_changed(job: Job, data: Path) -> None:
    job.report(data)
    second = job.report(data)
    assert all(node["unchanged"] and node["sent_bytes"] == 0 for node in second["nodes"])
    changed, gone = sorted(path for path in data.rglob("*") if path.is_file())[:2]
    changed.write_bytes(b"new content")
    gone.unlink()
    (data / "more").mkdir()
    (data / "more" / "file").write_bytes(b"x" * 1000)
    third = job.report(data)
    remote = [node for node in third["nodes"] if node["node"] != "n000"]
    assert {(node["sent_files"], node["removed"], node["unchanged"]) for node in remote} == {(2, 1, False)}
    assert {node["sent_bytes"] for node in remote} == {1011}
    original = job.files("n000", str(data))
    assert all(job.files(host.name, f"/tmp/{data.name}") == original for host in job.lab.hosts)


def test_a_node_that_was_changed_by_hand_is_put_right(job: Job, data: Path) -> None:
    job.report(data)
    job.sh("n002", f"cd /tmp/{data.name}; echo extra > extra; rm -r lib/package_000")
    report = job.report(data)
    assert [node["node"] for node in report["nodes"] if not node["unchanged"]] == ["n002"]
    assert job.files("n002", f"/tmp/{data.name}") == job.files("n000", str(data))


def test_a_rerun_never_shows_half_a_tree(job: Job, data: Path) -> None:
    """A reader on a node looks for the first and the last file over and over while new versions are published."""
    job.report(data)
    files = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())
    wanted = [f"/tmp/{data.name}/{name}" for name in (files[0], files[-1])]
    script = (
        "import os\n"
        "looks = missing = 0\n"
        "while not os.path.exists('/tmp/stop'):\n"
        f"    missing += not all(map(os.path.exists, {wanted!r}))\n"
        "    looks += 1\n"
        "print(looks, missing)\n"
    )
    reader = job.lab.popen("n001", [sys.executable, "-c", script], stdout=-1)
    try:
        for number in range(3):
            (data / f"more-{number}").write_text("x")
            job.report(data)
    finally:
        job.sh("n001", "touch /tmp/stop")
        looks, missing = map(int, reader.communicate(timeout=DEADLINE)[0].split())
    assert looks > 100
    assert missing == 0


def test_a_login_node_is_no_target_but_the_first_source(job: Job, data: Path) -> None:
    done = job.ezpz("yeet", data, "--hosts", "n[001-003]")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 nodes" in done.stdout
    assert job.sh("n000", "ls -A /tmp") == ""
    assert job.files("n003", f"/tmp/{data.name}") == job.files("n000", str(data))


def test_a_source_at_its_destination_is_sent_from_where_it_stands(job: Job) -> None:
    there = job.lab.path("n000", "/tmp/model")
    make_tree(there, files=50, total_bytes=500_000, seed=2)
    before = job.sh("n000", "find /tmp/model -printf '%i %p %C@\\n' | sort")
    report = job.report("/tmp/model", "--dst", "/tmp/model")
    assert report["plan"]["source"]["in_place"]
    assert report["succeeded"] == 4
    assert job.sh("n000", "find /tmp/model -printf '%i %p %C@\\n' | sort") == before
    assert job.files("n003", "/tmp/model") == job.files("n000", "/tmp/model")


def test_names_that_the_scheduler_writes_in_full_are_the_same_hosts(job: Job, data: Path) -> None:
    nodefile = job.lab.write_hostfile(job.lab.shared / "nodefile", fqdn=True, slots=3)
    done = job.ezpz("yeet", data, "--json", env={"PBS_NODEFILE": str(nodefile), "PBS_JOBID": "17.pbs"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"outcome": "ok"') == 4
    assert '"scheduler": "pbs"' in done.stdout


def test_the_fast_network_is_used_where_a_node_has_one(data: Path, job: Job) -> None:
    with make_lab(3, hsn=True) as lab:
        tree = lab.shared / "tree"
        make_tree(tree, files=20, total_bytes=100_000, seed=3)
        hostfile = lab.write_hostfile(lab.shared / "hostfile")
        job.ezpz.lab, job.hostfile = lab, hostfile
        report = job.report(tree)
        assert report["plan"]["allocation"]["addresses"] == {"n000": "n000", "n001": "n001-hsn0", "n002": "n002-hsn0"}
        off = job.report(tree, "--hsn", "off", "--dst", "/tmp/other")
        assert off["plan"]["allocation"]["addresses"]["n001"] == "n001"
        suffix = job.report(tree, "--hsn", "-hsn0", "--dst", "/tmp/third")
        assert suffix["plan"]["allocation"]["addresses"]["n002"] == "n002-hsn0"
        hostfile.write_text("n000\nn001-hsn0\nn002\n")
        mixed = job.report(tree, "--dst", "/tmp/fourth")
        assert [node["node"] for node in mixed["nodes"]] == ["n000", "n001-hsn0", "n002"]
        assert mixed["succeeded"] == 3


def test_the_pythons_of_old_nodes_can_run_the_agent(job: Job, data: Path) -> None:
    old = os.path.expanduser("~/.pyenv/versions/3.6.15/bin/python3.6")
    if not os.path.exists(old):
        pytest.skip("no Python 3.6 at ~/.pyenv/versions/3.6.15")
    with make_lab(3, python=old) as lab:
        lab.without("n001", "python3")
        lab.without("n002", "python3")
        tree = lab.shared / "tree"
        make_tree(tree, files=20, total_bytes=100_000, seed=3)
        job.ezpz.lab, job.hostfile = lab, lab.write_hostfile(lab.shared / "hostfile")
        assert job.report(tree)["succeeded"] == 3
        status = job.report("status", "--verify")
        assert {node["contents_compared"] for node in status["destinations"][0]["nodes"]} == {True}
        assert job.report("clean", "--yes")["freed"] > 0


def test_another_source_that_only_looks_the_same_is_sent_in_full(job: Job) -> None:
    for word in ("one", "two"):
        folder = job.lab.shared / word
        folder.mkdir()
        (folder / "file").write_text(word)
        os.utime(folder / "file", ns=(10**18, 10**18))
        assert job.report(folder, "--dst", "/tmp/same")["succeeded"] == 4
        assert [job.sh(host.name, "cat /tmp/same/file") for host in job.lab.hosts] == [word] * 4
