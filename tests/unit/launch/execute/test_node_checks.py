"""Health checks: what the answers mean, and the checks themselves on this host, by every Python here."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ezpz.agent import health_check
from ezpz.agent.common.messages.queries import CheckResult, HealthCheckAnswer, HealthCheckRequest
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.cluster.allocation import Node
from ezpz.errors import EzpzError, Interrupted, NodeLost, ToolMissing
from ezpz.launch.execute.node_checks import (
    MAX_CLOCK_SKEW,
    CheckRequest,
    NodeFault,
    absolute_paths,
    evaluate_replies,
    format_table,
)
from ezpz.remote.bootstrap import BOOTSTRAP, bundle
from ezpz.remote.health_check import Reply, ReplyOrError, check_health
from tests.contract.support import NOBODY, needs_root
from tests.lab.slowfs import slowfs
from tests.waiting import DEADLINE, act_when

HERE = Node("here", "here", "here", is_local=True)
PYTHONS = sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3"))


def said(clock: float = 0.0, **checks: dict[str, Any]) -> Reply:
    named = {name.replace("__", " /").replace("_", " "): {"ok": True, **found} for name, found in checks.items()}
    return Reply(HealthCheckAnswer.from_json({"time": 1000.0 + clock, "checks": named}), 1000.0, 1001.0)


def answer_of(python: Path | str, request: HealthCheckRequest, env: dict[str, str] | None = None) -> HealthCheckAnswer:
    """Return what the agent answers that this Python runs on this host."""
    line = json.dumps({"id": 7, "op": "health_check", **request.to_json()}) + "\n"
    argv = [python, "-IS", "-c", BOOTSTRAP]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bundle("query_server") + line.encode())
        process.stdin.flush()  # and stays open: an agent whose stdin ends gives up what it is doing
        found: dict[str, Any] = next(json.loads(said) for said in process.stdout if said.startswith(b'{"id"'))
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
    return HealthCheckAnswer.from_json(found["result"])


def faults(**heard: ReplyOrError) -> list[tuple[str, str, str]]:
    return [(fault.node, fault.check, fault.why) for fault in evaluate_replies(heard).faults]


def test_who_does_not_answer_is_out_and_who_has_no_python_is_not() -> None:
    findings = evaluate_replies(
        {"n1": NodeLost("n1: gone"), "n2": ToolMissing("n2: python3 is not installed"), "n3": said()}
    )
    assert findings.faults == (NodeFault("n1", "reached", "n1: gone"),)
    assert findings.remarks == ("n2 is not checked: n2: python3 is not installed",)


def test_a_check_that_fails_says_what_and_where() -> None:
    assert faults(
        n1=said(path__soft={"ok": False, "why": "no answer within 5 s"}, tmp={"ok": False, "why": "full"})
    ) == [("n1", "path", "/soft: no answer within 5 s"), ("n1", "tmp", "full")]


@pytest.mark.parametrize(
    ("clock", "why"),
    [
        (0.5, None),
        (MAX_CLOCK_SKEW, None),
        (-MAX_CLOCK_SKEW, None),
        (-MAX_CLOCK_SKEW - 1, "6 s slow"),
        (MAX_CLOCK_SKEW + 2, "6 s fast"),
        (3600, "3599 s fast"),
    ],
)
def test_a_clock_is_off_only_if_no_delay_explains_it(clock: float, why: str | None) -> None:
    assert [fault[2] for fault in faults(n1=said(clock))] == ([why] if why else [])


def test_a_link_is_down_only_if_others_use_it() -> None:
    up, down = {"links": {"hsn0": "up", "ib1": "down"}}, {"links": {"hsn0": "down", "ib1": "down"}}
    assert faults(a=said(links=up), b=said(links=down), c=said(links=up)) == [("b", "link", "hsn0 is down")]
    assert faults(a=said(links=down), b=said(links=down)) == []


def test_fewer_devices_than_most() -> None:
    nodes = {f"n{count}": said(devices_smi={"devices": 4}) for count in range(3)}
    found = faults(**nodes, bad=said(devices_smi={"devices": 3}))
    assert found == [("bad", "devices", "smi lists 3, on most nodes 4")]


def test_a_version_unlike_the_others() -> None:
    good, other = ({"dst": "/tmp/e", "version": version * 20} for version in ("a", "b"))
    found = faults(a=said(version__tmp=good), b=said(version__tmp=other), c=said(version__tmp=good), d=said())
    usual = "on most nodes aaaaaaaaaaaa"
    assert found == [
        ("b", "version", f"version bbbbbbbbbbbb at /tmp/e, {usual}"),
        ("d", "version", f"no yeet at /tmp/e, {usual}"),
    ]


def test_the_table() -> None:
    findings = evaluate_replies({"n1": NodeLost("gone"), "n002": said(tmp={"ok": False, "why": "full"})})
    assert format_table(findings, 2) == ("node  check    why", "n1    reached  gone", "n002  tmp      full")
    assert format_table(evaluate_replies({"n1": said()}), 1) == ("the node passed the checks",)
    assert absolute_paths(["a", None, "/b", "/b"]) == ("/b",)


@pytest.mark.processes
def test_all_looks_on_this_host(tmp_path: Path) -> None:
    (tmp_path / "tree" / "bin").mkdir(parents=True)
    receipt_of(tmp_path / "tree")
    (tmp_path / "tree" / "bin" / "run").write_text("")
    os.mkfifo(tmp_path / "blocks")
    wanted = CheckRequest(
        programs=(sys.executable, str(tmp_path / "tree" / "bin" / "run")),
        paths=(str(tmp_path), str(tmp_path / "no"), str(tmp_path / "blocks")),
        shared=(str(tmp_path),),
        tmp=str(tmp_path),
        room=0,
        timeout=1.5,
    )
    heard = check_health((HERE,), wanted.to_request(), transport="ssh", within=5)["here"]
    assert isinstance(heard, Reply), heard
    checks = heard.answer.checks
    assert {name for name, found in checks.items() if not found.ok} == {
        f"path {tmp_path}/tree/bin/run", f"path {tmp_path}/no", f"path {tmp_path}/blocks"
    }  # fmt: skip
    assert checks[f"path {tmp_path}/blocks"].why == "no answer within 1.5 s"
    assert checks[f"version {tmp_path}/tree/bin/run"] == CheckResult(dst=f"{tmp_path}/tree", version="abc")
    assert not [fault for fault in evaluate_replies({"here": heard}).faults if fault.check != "path"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks", "tree"]


def test_too_little_room(tmp_path: Path) -> None:
    with pytest.raises(health_check.CheckFailed, match="MB free in"):
        health_check.check_tmp(str(tmp_path), 1 << 60)


def planted(folder: Path, victim: Path, names: list[str]) -> None:
    victim.write_text("thesis")
    for name in names:
        (folder / name).symlink_to(victim)


@pytest.mark.parametrize("nameless", [True, False])
def test_a_link_that_waits_for_the_checkup_is_not_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nameless: bool,  # noqa: FBT001
) -> None:
    names = [f".ezpz-checkup-{socket.gethostname()}-{os.getpid()}", f".ezpz-checkup-{b'guessed!'.hex()}"]
    place = tmp_path / "tmp"
    place.mkdir()
    planted(place, tmp_path / "victim", names)
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    random = iter((b"guessed!", b"tooquick"))
    monkeypatch.setattr(os, "urandom", lambda _: next(random))
    assert health_check.check_tmp(str(place), 0)["free"] > 0
    assert (tmp_path / "victim").read_text() == "thesis"
    assert sorted(os.listdir(place)) == sorted(names)


def test_the_file_of_the_checkup_can_be_read_by_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    fd, name = health_check.new_file(str(tmp_path))
    os.close(fd)
    assert os.stat(name).st_mode & 0o777 == 0o600
    assert re.fullmatch(r"\.ezpz-checkup-[0-9a-f]{16}", os.path.basename(name))


def receipt_of(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    receipt = folder / ".ezpz-yeet-receipt.json"
    receipt.write_text(json.dumps(Receipt(version="abc", destination=str(folder)).to_json()))
    return receipt


@needs_root
@pytest.mark.parametrize("how", ["file", "folder", "both", "hard link", "link", "linked folder"])
def test_a_receipt_counts_only_if_it_and_its_directory_are_the_users(tmp_path: Path, how: str) -> None:
    copy = tmp_path / "copy"
    receipt = receipt_of(copy)
    assert health_check.find_copy(f"{copy}/bin/python3") == {"dst": str(copy), "version": "abc"}
    if how in ("file", "both"):
        os.chown(receipt, NOBODY, NOBODY)
    if how in ("folder", "both"):
        os.chown(copy, NOBODY, NOBODY)
    if how == "hard link":
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.link(receipt, theirs / receipt.name)
        os.chown(theirs, NOBODY, NOBODY)
        receipt.unlink()  # the user cleans: there is one name left
        copy.rmdir()
        theirs.rename(copy)
    if how == "link":
        receipt.rename(tmp_path / "receipt")
        receipt.symlink_to(tmp_path / "receipt")
    if how == "linked folder":
        copy.rename(tmp_path / "elsewhere")
        copy.symlink_to("elsewhere")
    assert health_check.find_copy(f"{copy}/bin/python3") == {}


@pytest.mark.processes
def test_what_is_left_of_a_run_is_ended_and_nothing_else() -> None:
    argv = ["sleep", "60"]
    with (
        subprocess.Popen(argv, env={**os.environ, "EZPZ_LAUNCH_ID": "x17"}) as ours,
        subprocess.Popen(argv, env={**os.environ, "EZPZ_LAUNCH_ID": "x171"}) as other,
    ):
        heard = check_health((HERE,), HealthCheckRequest(sweep="EZPZ_LAUNCH_ID=x17"), transport="ssh", within=5)["here"]
        assert isinstance(heard, Reply)
        assert heard.answer.swept == [ours.pid]
        assert ours.wait(DEADLINE) == -9
        assert other.poll() is None
        other.kill()


@pytest.mark.processes
def test_a_node_that_cannot_be_reached_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(
        "#!/bin/sh\necho 'ssh: connect to host n1 port 22: Connection refused' >&2\nexit 255\n"
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    heard = check_health((Node("n1", "n1", "n1"),), HealthCheckRequest(), transport="ssh", within=1)["n1"]
    assert "connection was refused" in str(heard)


SRUN = """\
#!{python}
import os, subprocess, sys
command = sys.argv[sys.argv.index("sh"):]
environments = [dict(os.environ, SLURMD_NODENAME=name) for name in ("n1", "n2")]
print("hello from .bashrc", flush=True)
agents = [subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, bufsize=0) for environment in environments]
while data := os.read(0, 65536):
    for agent in agents:
        agent.stdin.write(data)
for agent in agents:
    agent.stdin.close()
    agent.wait()
"""


@pytest.mark.processes
def test_one_srun_starts_agents_on_all_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that prints a line of its own first, and starts no agent on one node."""
    (tmp_path / "srun").write_text(SRUN.format(python=sys.executable))
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("ezpz.remote.health_check.CONNECT_TIMEOUT", 10.0)  # seconds that n3 is waited for
    nodes = tuple(Node(name, "127.0.0.1", name) for name in ("n1", "n2", "n3"))
    heard = check_health(nodes, HealthCheckRequest(tmp=str(tmp_path)), transport="srun", within=5)
    assert [isinstance(heard[name], Reply) for name in ("n1", "n2", "n3")] == [True, True, False], heard
    assert str(heard["n3"]) == "n3: srun started no agent there: no answer within 10 s"


SAYS_NOTHING = """\
#!/bin/sh
echo '{"ready": "EZPZ-AGENT-READY"}'
echo '{"id": 1, '
"""


@pytest.mark.processes
def test_an_answer_that_is_no_json_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text('#!/bin/sh\necho \'{"ready": "EZPZ-AGENT-READY"}\'\necho \'{"id": 1, \'\nexec true\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    heard = check_health((Node("n1", "n1", "n1"),), HealthCheckRequest(), transport="ssh", within=1)["n1"]
    assert isinstance(heard, EzpzError)


@pytest.mark.processes
def test_a_signal_ends_the_asking_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 600\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sender = act_when((tmp_path / "begun").exists, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(Interrupted, match="SIGUSR1") as raised:
        check_health((Node("n1", "n1", "n1"),), HealthCheckRequest(), transport="ssh", within=DEADLINE)
    sender.join()
    assert raised.value.signal == signal.SIGUSR1


@pytest.mark.processes
def test_a_directory_on_path_that_hangs_hangs_nothing(tmp_path: Path) -> None:
    slow = slowfs(tmp_path / "slow", 600_000_000)  # microseconds a call: beyond the deadline
    (tmp_path / "slow").mkdir()
    request = CheckRequest(paths=(str(tmp_path / "slow" / "x"),), room=0, timeout=1).to_request()
    env = {**slow, "PATH": f"{tmp_path}/slow:{os.environ['PATH']}"}
    checks = answer_of(os.path.realpath(sys.executable), request, env).checks
    silent = {name for name, found in checks.items() if found.why == "no answer within 1 s"}
    assert {f"path {tmp_path}/slow/x", "devices nvidia-smi", "devices rocm-smi", "devices xpu-smi"} <= silent
    assert checks["tmp"].ok


@pytest.mark.processes
@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parts[-3])
def test_every_python_can_run_it(python: Path, tmp_path: Path) -> None:
    request = CheckRequest(paths=(str(tmp_path),), tmp=str(tmp_path), room=0, timeout=20).to_request()
    checks = answer_of(python, request).checks
    assert checks["tmp"].ok
    assert checks[f"path {tmp_path}"] == CheckResult()
