"""Agents start agents: with a fan of two, twelve nodes are reached over three levels, and none breaks another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import clean_environment
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import FaultyLab

pytestmark = pytest.mark.cluster

PROGRAM = Path(__file__).with_name("tree_of_agents.py")
FAN = 2
NODES = [f"n{number:03d}" for number in range(1, 13)]


class Tree:
    """The program on n000, which has started agents on all nodes; `came` and `where` as it prints them."""

    def __init__(self, lab: FaultyLab) -> None:
        self.lab = lab
        line = [sys.executable, str(PROGRAM), str(FAN), *NODES]
        pipe = subprocess.PIPE
        self.process = lab.popen("n000", line, env=clean_environment(), stdin=pipe, stdout=pipe, stderr=pipe)
        first = self._line()
        self.came: dict[str, str] = first["came"]
        self.where: dict[str, dict[str, Any]] = first["where"]

    def ping(self) -> list[str]:
        """The nodes whose sessions answer."""
        here: list[str] = self._ask("ping")["here"]
        return here

    def close(self) -> None:
        assert self._ask("close") == {"closed": True}
        assert self.process.wait(DEADLINE) == 0

    def started_from(self, host: str) -> list[str]:
        """The nodes to which a host holds an ssh."""
        return sorted(argv[-2] for _, argv in self.lab.processes(host) if argv[0] == "ssh")

    def wait_until_nothing_runs(self, hosts: list[str]) -> None:
        wait_until(lambda: not any(self.lab.processes(host) for host in hosts), "the end of all processes")

    def _ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def trees(lab16: FaultyLab) -> Iterator[list[Tree]]:
    """What a test started, which is ended after it."""
    made: list[Tree] = []
    yield made
    for tree in made:
        tree.process.kill()
        tree.process.communicate()


def children(number: int) -> list[str]:
    """The nodes that a host is to start, n000 included, when all is well."""
    return [NODES[child - 1] for child in (2 * number + 1, 2 * number + 2) if child <= len(NODES)]


def test_agents_start_agents_and_a_starter_that_dies_later_costs_only_itself(
    lab16: FaultyLab, trees: list[Tree]
) -> None:
    trees.append(tree := Tree(lab16))
    near, far = NODES[:FAN], NODES[FAN:]
    assert tree.came == {**dict.fromkeys(near, "ProcessChannel"), **dict.fromkeys(far, "TcpChannel")}
    assert {host.name: tree.started_from(host.name) for host in lab16.hosts} == {
        host.name: children(number) for number, host in enumerate(lab16.hosts)
    }
    assert tree.ping() == NODES
    assert {name: (where["name"], where["address"]) for name, where in tree.where.items()} == {
        name: (name, lab16.host(name).address) for name in far
    }
    lab16.kill("n001")
    assert tree.ping() == NODES[1:]
    tree.close()
    tree.wait_until_nothing_runs(["n000", *NODES[1:]])


def test_what_starters_cannot_start_that_are_dead_or_have_no_ssh_is_started_from_here(
    lab16: FaultyLab, trees: list[Tree]
) -> None:
    dead = ["n001", "n005"]  # of which one would have been started from here, the other by n002
    for name in dead:
        lab16.kill(name)
    lab16.without("n003", "ssh")
    trees.append(tree := Tree(lab16))
    failed = {name: came for name, came in tree.came.items() if not came.endswith("Channel")}
    assert failed == dict.fromkeys(dead, "ssh-refused")
    from_here = ["n002", "n003", "n004", "n007", "n008", "n011", "n012"]
    assert tree.started_from("n000") == from_here
    assert {name: tree.started_from(name) for name in ("n002", "n003", "n004")} == {
        "n002": ["n006"], "n003": [], "n004": ["n009", "n010"],
    }  # fmt: skip
    assert sorted(tree.where) == ["n006", "n009", "n010"]
    assert [name for name, came in tree.came.items() if came == "ProcessChannel"] == from_here
    alive = [name for name in NODES if name not in dead]
    assert tree.ping() == alive
    tree.close()
    tree.wait_until_nothing_runs(["n000", *alive])


def test_when_the_launching_process_is_killed_all_levels_go(lab16: FaultyLab, trees: list[Tree]) -> None:
    trees.append(tree := Tree(lab16))
    tree.process.kill()
    tree.wait_until_nothing_runs(["n000", *NODES])
