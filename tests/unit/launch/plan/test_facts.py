"""What a plan depends on: accelerators, the environment, the nodes that may run, where ranks meet. Ports are fakes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.cluster.allocation import Allocation, Node
from ezpz.cluster.schedulers.pbs import PBS
from ezpz.cluster.schedulers.slurm import SLURM
from ezpz.errors import NodesOutside, NotEnoughNodes, TimedOut, UsageError
from ezpz.launch.plan.accelerators import AcceleratorProbe, find_capacity
from ezpz.launch.plan.environment import RankEnvironment, find_environment
from ezpz.launch.plan.rendezvous import PORTS, choose_rendezvous, port_is_free, port_is_free_at
from ezpz.launch.plan.usable_nodes import (
    choose_nodes,
    query_failed_nodes,
    read_failed_nodes,
    rename_to_job,
    sort_like_job,
)
from ezpz.remote.transports import TRANSPORTS, Transport
from ezpz.runtime.process import Completed
from tests.contract.support import NOBODY, needs_root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def nodes(*names: str, local: str = "") -> tuple[Node, ...]:
    return tuple(Node(name, f"{name}-hsn0", f"{name}.site", is_local=name == local) for name in names)


HERE = Allocation("pbs", "1", nodes("n1", "n2", local="n1"))
AWAY = Allocation("pbs", "1", nodes("n1", "n2"))
SYSTEMS = {"slurm": SLURM, "pbs": PBS, "": None}
GPUS = "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"


def probe(nvidia: str = "", dri: tuple[str, ...] = (), cores: int = 16) -> AcceleratorProbe:
    return AcceleratorProbe(lambda: nvidia, lambda: dri, lambda: cores)


@pytest.mark.parametrize(
    ("found", "site", "allocation", "scheduler", "environ", "seen"),
    [
        ((2, 4, "SLURM_NTASKS_PER_NODE is 2"), 0, HERE, "slurm",
         {"SLURM_NTASKS_PER_NODE": "2", "SLURM_GPUS_ON_NODE": "4"}, probe()),
        ((4, 4, "SLURM_GPUS_ON_NODE is 4"), 8, HERE, "slurm", {"SLURM_GPUS_ON_NODE": "4"}, probe()),
        ((12, 12, "site s has 12"), 12, HERE, "pbs", {"SLURM_GPUS_ON_NODE": "4"}, probe(GPUS)),
        ((2, 2, "nvidia-smi lists 2"), 0, HERE, "", {}, probe(GPUS, ("renderD128",))),
        ((3, 3, "/dev/dri has 3"), 0, HERE, "", {}, probe("", ("card0", "renderD128", "renderD129", "renderD130"))),
        ((16, 0, "16 cores here"), 0, HERE, "pbs", {}, probe()),
        ((64, 0, "the job has 64 CPUs"), 0, AWAY, "slurm", {"SLURM_JOB_CPUS_PER_NODE": "64(x2)"}, probe(GPUS)),
        ((1, 0, "no accelerator is known"), 0, AWAY, "pbs", {}, probe(GPUS)),
        ((1, 0, "no accelerator is known"), 0, HERE, "", {}, probe()),
    ],
)  # fmt: skip
def test_ranks_a_node(
    found: tuple[int, int, str],
    site: int,
    allocation: Allocation,
    scheduler: str,
    environ: Mapping[str, str],
    seen: AcceleratorProbe,
) -> None:
    answer = find_capacity(("s", site), allocation, SYSTEMS[scheduler], environ, seen)
    assert (answer.ranks, answer.accelerators) == found[:2]
    assert found[2] in answer.why


def test_what_was_looked_at_before_is_evidence() -> None:
    answer = find_capacity(("s", 0), AWAY, PBS, {}, probe())
    assert any("this host is none of the nodes" in line for line in answer.evidence)


def exists(*paths: str) -> Any:
    return lambda path: path in paths


def test_the_active_environment_and_a_copy() -> None:
    assert find_environment({}, None, exists()) is None
    assert find_environment({"VIRTUAL_ENV": "/e"}, None, exists()) == RankEnvironment("/e", "VIRTUAL_ENV")
    assert find_environment({"CONDA_PREFIX": "/c"}, None, exists()) == RankEnvironment("/c", "CONDA_PREFIX")
    assert find_environment({"VIRTUAL_ENV": "/e"}, "/tmp/e/", exists()) == RankEnvironment("/tmp/e", original="/e")
    yeeted = exists("/tmp/e/.ezpz-yeet-receipt.json", "/tmp/e/env.sh")
    assert find_environment({"VIRTUAL_ENV": "/tmp/e"}, None, yeeted) == RankEnvironment("/tmp/e")
    for bad in ("tmp/e", "/tmp/\ne"):
        with pytest.raises(UsageError):
            find_environment({}, bad, exists())


@pytest.mark.parametrize(
    ("environment", "command", "resolved"),
    [
        (RankEnvironment("/e", "VIRTUAL_ENV"), "python3.11", "/e/bin/python3.11"),
        (RankEnvironment("/e", "VIRTUAL_ENV"), "python3", "python3"),
        (RankEnvironment("/e", "VIRTUAL_ENV"), "/e/bin/tool", "/e/bin/tool"),
        (RankEnvironment("/tmp/e"), "python3", "/tmp/e/bin/python3"),
        (RankEnvironment("/tmp/e", original="/e"), "/e/bin/tool", "/tmp/e/bin/tool"),
        (RankEnvironment("/tmp/e", original="/e"), "/env/bin/tool", "/env/bin/tool"),
        (RankEnvironment("/tmp/e", original="/e"), "pythonic", "pythonic"),
    ],
)
def test_the_program_is_the_environments(environment: RankEnvironment, command: str, resolved: str) -> None:
    assert environment.resolve_command((command, "-x"), exists("/e/bin/python3.11")) == (resolved, "-x")


def test_nodes_that_failed_or_are_excluded_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".ezpz-yeet-failed-nodes.txt").write_text("N2.site\n\n")
    failed = read_failed_nodes(str(tmp_path))
    found = choose_nodes(
        Allocation("pbs", "1", nodes("n1", "n2", "n3", "n4")), exclude=("n[3,9]",), failed=failed, place="/t"
    )
    assert [node.name for node in found.allocation.nodes] == ["n1", "n4"]
    assert found.left_out == ("left out n2: the yeet to /t failed there",)
    assert found.evidence == ("--exclude: left out n3", "--exclude: n9 is none of the nodes")
    assert read_failed_nodes(str(tmp_path / "none")) == ()


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS)
def test_the_newest_list_of_failed_nodes_is_asked_for_on_the_first_nodes(transport: Transport) -> None:
    said = {
        "n1": "",
        "n2": "hello\nEZPZ-FAILED 100\nn9\n",
        "n3": "EZPZ-FAILED 200\nn1\nn5.site\n",
        "n4": "EZPZ-FAILED 300\n",
    }

    def run(argv: Any, *, timeout: float | None = None) -> Completed:
        assert argv[0] == transport.name
        (name,) = (name for name in said if any(name in word for word in argv[:-1]))
        if name == "n1":
            raise TimedOut("it hangs")
        return Completed(argv, 0, said[name].encode(), b"")

    assert query_failed_nodes("/tmp/it's", nodes(*said), run, transport) == ("n1", "n5.site")
    assert query_failed_nodes("/tmp/it's", nodes("n1"), run, transport) == ()


LIST = ".ezpz-yeet-failed-nodes.txt"


def asked(prefix: Path) -> tuple[str, ...]:
    """The failed nodes as a login shell of a node tells them."""

    def run(argv: Any, *, timeout: float | None = None) -> Completed:
        done = subprocess.run(["sh", "-c", argv[-1]], capture_output=True, timeout=timeout)
        return Completed(argv, done.returncode, done.stdout, done.stderr)

    return query_failed_nodes(str(prefix), nodes("n1"), run, TRANSPORTS["ssh"])


def asked_by_srun(prefix: Path) -> tuple[str, ...]:
    def run(argv: Any, *, timeout: float | None = None) -> Completed:
        done = subprocess.run(argv[-3:], capture_output=True, timeout=timeout)
        return Completed(argv, done.returncode, done.stdout, done.stderr)

    return query_failed_nodes(str(prefix), nodes("n1"), run, TRANSPORTS["srun"])


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize("reader", [lambda path: read_failed_nodes(str(path)), asked, asked_by_srun])
@pytest.mark.parametrize("how", ["list", "directory", "link", "linked directory", "FIFO"])
def test_a_list_of_failed_nodes_counts_only_if_it_is_the_users(tmp_path: Path, reader: Any, how: str) -> None:
    copy = tmp_path / "it's a copy"
    copy.mkdir()
    (copy / LIST).write_text("n7\nn8\n")
    assert reader(copy) == ("n7", "n8")
    if how == "list":
        os.chown(copy / LIST, NOBODY, NOBODY)
    elif how == "directory":
        os.chown(copy, NOBODY, NOBODY)
    elif how == "link":
        (copy / LIST).rename(tmp_path / "list")
        (copy / LIST).symlink_to(tmp_path / "list")
    elif how == "linked directory":
        copy.rename(tmp_path / "elsewhere")
        copy.symlink_to("elsewhere")
    else:
        (copy / LIST).unlink()
        os.mkfifo(copy / LIST)
    assert reader(copy) == ()


def test_nobody_left_is_an_error() -> None:
    with pytest.raises(NotEnoughNodes, match=r"no node is left of n\[1-2\]: left out n2.*--exclude: left out n1"):
        choose_nodes(AWAY, exclude=("n1",), failed=("n2",), place="/t")


def test_nodes_outside_of_the_job() -> None:
    with pytest.raises(NodesOutside, match=r"the hostfile h names n\[7-8\], which are not among the 2 nodes of job 1"):
        rename_to_job(nodes("n1", "n7", "n8"), AWAY, "the hostfile h")


def test_nodes_of_the_job_are_called_what_the_scheduler_calls_them() -> None:
    mine = (Node("n2", "n2-hsn0", "N2.other"), Node("localhost", "localhost", "localhost", is_local=True))
    assert rename_to_job(mine, HERE, "--hosts") == (Node("n2", "n2-hsn0", "n2.site"), HERE.nodes[0])


def test_srun_has_an_order_of_its_own() -> None:
    job = nodes("n10", "n2", "n1")
    assert sort_like_job(nodes("n1", "n10", "new"), job) == nodes("n10", "n1", "new")


def meet(allocation: Allocation, environ: Mapping[str, str] | None = None, **ports: Any) -> tuple[str, int]:
    found = choose_rendezvous(
        allocation.nodes, environ or {}, random.Random(1), **{"is_free_at": lambda *_: True, **ports}
    )
    assert len(found.evidence) == 2
    return found.address, found.port


def test_ranks_meet_on_the_first_node_by_its_fast_name() -> None:
    assert meet(AWAY)[0] == "n1-hsn0"
    assert meet(HERE, address_of=lambda given, hsn: f"{given}/{hsn}", is_free=lambda _: True)[0] == "n1.site/auto"
    assert meet(Allocation("localhost", None, nodes("n1", local="n1")))[0] == "127.0.0.1"


@pytest.mark.parametrize("given", ["n1", "N1.site", "n1-ib0", "n1-hsn1.hsn.site", "10.0.0.1"])
def test_what_the_environment_says_of_where_to_meet_is_kept(given: str) -> None:
    assert meet(AWAY, {"MASTER_ADDR": given, "MASTER_PORT": "7"}) == (given, 7)


@pytest.mark.parametrize("given", ["n2", "n11", "other", "localhost", "127.0.0.1", "::1"])
def test_an_address_that_is_not_the_first_nodes_is_left_aside(given: str) -> None:
    found = choose_rendezvous(AWAY.nodes, {"MASTER_ADDR": given, "MASTER_PORT": "7"}, random.Random(1))
    assert (found.address, found.port) == ("n1-hsn0", 7)
    assert found.evidence[0] == f"MASTER_ADDR {given} of the environment is not the first node, n1"


@pytest.mark.parametrize(
    ("given", "address"),
    [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("n1", "n1"), ("n7", "127.0.0.1")],
)
def test_one_host_alone_may_be_called_anything_that_leads_to_it(given: str, address: str) -> None:
    assert choose_rendezvous(nodes("n1", local="n1"), {"MASTER_ADDR": given}, random.Random(1)).address == address


@pytest.mark.parametrize("given", ["", "x", "0", "65536", "-1", "\u0663"])
def test_what_is_no_port_is_left_aside(given: str) -> None:
    assert meet(AWAY, {"MASTER_PORT": given})[1] in PORTS


def test_a_port_of_another_host_is_asked_of_it() -> None:
    asked: list[tuple[str, int]] = []

    def ask(address: str, port: int) -> bool | None:
        asked.append((address, port))
        return len(asked) == 3

    found = choose_rendezvous(AWAY.nodes, {}, random.Random(1), is_free_at=ask)
    assert asked[-1] == (found.address, found.port) == ("n1-hsn0", found.port)
    assert len(asked) == 3
    assert found.evidence[-1] == f"MASTER_PORT {found.port}: free on n1"
    silent = choose_rendezvous(AWAY.nodes, {}, random.Random(1), is_free_at=lambda *_: None)
    assert silent.port == asked[0][1]
    assert silent.evidence[-1].endswith("n1 does not tell")


def test_whether_somebody_listens() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        port = busy.getsockname()[1]
        assert port_is_free_at("127.0.0.1", port) is True
        busy.listen()
        assert port_is_free_at("127.0.0.1", port) is False
    assert port_is_free_at("no-such-host.invalid", 22) is None
    assert port_is_free_at("a" * 70 + ".b", 22) is None


def test_the_port_is_free_where_that_can_be_known() -> None:
    free = PORTS[7]
    found = {
        meet(HERE, address_of=lambda given, _: given, is_free=lambda port: port % 2 == free % 2)[1] for _ in range(5)
    }
    assert all(port % 2 == free % 2 and port in PORTS for port in found)
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        assert not port_is_free(busy.getsockname()[1])
