"""PBS: nodefiles, the spool, and qstat in all its moods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ezpz.cluster.schedulers.base import Answer, NodesFound, NotFound
from ezpz.cluster.schedulers.pbs import from_nodefile, from_qstat, from_spool, parse_qstat
from ezpz.errors import BadHostName, SchedulerError
from tests.unit.cluster.fakes import World, recorded

if TYPE_CHECKING:
    from pytest_subprocess import FakeProcess

AUX = "/var/spool/pbs/aux"
JOB = "2287864.aurora-pbs-0001.hostmgmt.cm.aurora.alcf.anl.gov"
USER = {"USER": "alice"}


def found(answer: Answer) -> NodesFound:
    assert isinstance(answer, NodesFound), answer
    return answer


def declined(answer: Answer) -> NotFound:
    assert isinstance(answer, NotFound), answer
    return answer


def test_nodefile() -> None:
    world = World("x4114c1s7b0n0", {"/n": recorded("nodefile-aurora")})
    answer = found(from_nodefile(world.context({"PBS_NODEFILE": "/n", "PBS_JOBID": JOB})))
    assert (answer.scheduler, answer.job_id, len(answer.names)) == ("pbs", JOB, 3)


def test_a_nodefile_that_is_gone_is_noted() -> None:
    answer = declined(from_nodefile(World().context({"PBS_NODEFILE": "/gone"})))
    assert answer.notable
    assert "/gone" in answer.why


def test_a_dangerous_nodefile_is_refused() -> None:
    with pytest.raises(BadHostName, match="/n:2"):
        from_nodefile(World("n1", {"/n": "n1\n-oProxyCommand=id\n"}).context({"PBS_NODEFILE": "/n"}))


@pytest.mark.parametrize("directory", [AUX, "/var/spool/PBS/aux"])
@pytest.mark.parametrize(
    ("job_id", "file"), [(JOB, JOB), (JOB, "2287864"), (JOB, "2287864.aurora-pbs-0001"), ("2287864", JOB)]
)
def test_spool(directory: str, job_id: str, file: str) -> None:
    world = World(
        "x4114c1s7b0n0", {f"{directory}/{file}": recorded("nodefile-aurora"), f"{directory}/22878640.x": "n9"}
    )
    answer = found(from_spool(world.context({"PBS_JOBID": job_id})))
    assert answer.job_id == job_id
    assert len(answer.names) == 3


def test_a_stale_job_id_is_not_trusted() -> None:
    world = World("elsewhere", {f"{AUX}/{JOB}": recorded("nodefile-aurora")})
    answer = declined(from_spool(world.context({"PBS_JOBID": JOB})))
    assert answer.notable
    assert "stale" in answer.why


@pytest.mark.parametrize("job_id", ["../../etc/passwd", "12;id", "x", "12.", "1 2"])
def test_what_is_no_job_id_is_not_looked_up(job_id: str) -> None:
    assert declined(from_spool(World().context({"PBS_JOBID": job_id}))).notable


def test_spool_without_the_job() -> None:
    assert not declined(from_spool(World().context({"PBS_JOBID": JOB}))).notable
    assert not declined(from_spool(World().context())).notable


def test_parse_qstat_of_aurora() -> None:
    jobs = parse_qstat(recorded("qstat-aurora"))
    assert [(job.id, job.names) for job in jobs] == [
        ("2287864", ("x4418c7s1b0n0", "x4418c7s2b0n0")),
        ("2287910", ("x4114c1s7b0n0",)),
    ]


def test_parse_qstat_of_polaris() -> None:
    (job,) = parse_qstat(recorded("qstat-polaris"))
    assert job.id == "337374"
    assert job.names == ("x3006c0s13b1n0", "x3006c0s19b0n0", "x3006c0s19b1n0", "x3006c0s1b0n0")


@pytest.mark.parametrize("text", ["", "\n", "no such user\n", "R R R R R R R R R R R R\n", "\0\0"])
def test_parse_qstat_of_nonsense(text: str) -> None:
    assert parse_qstat(text) == ()


@pytest.mark.parametrize(
    "me", ["x4418c7s2b0n0", "x4418c7s2b0n0.hostmgmt2.cm.aurora.alcf.anl.gov", "X4418c7s2b0n0-hsn0"]
)
def test_qstat_picks_the_job_of_this_host(me: str) -> None:
    world = World(me).says("qstat", recorded("qstat-aurora"))
    answer = found(from_qstat(world.context(USER)))
    assert answer.job_id == "2287864"
    assert world.asked == [("qstat", "-fn1wru", "alice")]


def test_qstat_on_a_login_node_notes_the_jobs() -> None:
    answer = declined(from_qstat(World("login1").says("qstat", recorded("qstat-aurora")).context(USER)))
    assert answer.notable
    assert "2287864 on 2 nodes, 2287910 on 1 node" in answer.why


def test_two_jobs_on_one_host_need_the_job_id() -> None:
    twice = recorded("qstat-polaris") + recorded("qstat-polaris").replace("337374", "337375")
    world = World("x3006c0s1b0n0").says("qstat", twice)
    with pytest.raises(SchedulerError) as caught:
        from_qstat(world.context(USER))
    assert "337374 on 4 nodes, 337375 on 4 nodes" in caught.value.message
    assert "PBS_JOBID" in caught.value.hint
    assert found(from_qstat(world.context({**USER, "PBS_JOBID": "337375.polaris"}))).job_id == "337375"


@pytest.mark.parametrize(
    "complaint",
    ["Communication failure.\nqstat: cannot connect to server pbs (errno=15137)", "CANNOT CONNECT TO SERVER"],
)
def test_a_transient_failure_is_retried(complaint: str) -> None:
    world = World("x3006c0s1b0n0").says("qstat", err=complaint, returncode=255)
    world.says("qstat", err=complaint, returncode=255).says("qstat", recorded("qstat-polaris"))
    assert found(from_qstat(world.context(USER))).job_id == "337374"
    assert world.slept == [1.0, 2.0]


def test_retries_end() -> None:
    world = World().says("qstat", err="Communication failure.", returncode=255)
    answer = declined(from_qstat(world.context(USER)))
    assert answer.notable
    assert "status 255: Communication failure." in answer.why
    assert len(world.asked) == 4


def test_another_failure_is_not_retried() -> None:
    world = World().says("qstat", err="qstat: illegal option -- w", returncode=2)
    assert declined(from_qstat(world.context(USER))).notable
    assert world.slept == []


def test_no_qstat_and_no_user() -> None:
    assert declined(from_qstat(World().context(USER))) == NotFound("not on PATH")
    assert "USER" in declined(from_qstat(World().context())).why
    assert declined(from_qstat(World().says("qstat").context(USER))) == NotFound("alice has no running job")


def test_a_real_process_that_prints_what_is_not_text(fp: FakeProcess) -> None:
    from dataclasses import replace

    from ezpz.runtime import process

    fp.register(["qstat", "-fn1wru", "alice"], stdout=b"\xff\xfe\x00 R \n" + recorded("qstat-polaris").encode())
    context = World("x3006c0s1b0n0").context(USER)
    context = replace(context, system=replace(context.system, run=process.run))
    assert found(from_qstat(context)).job_id == "337374"
