"""The address of each node: fast where it can be, bounded in time, mixed where it must be."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from ezpz.cluster.addresses import Address, candidates, choose_addresses, is_reachable, resolve, summary
from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def dial(
    names: Iterable[str], known: set[str], hsn: str = "auto", silent: frozenset[str] = frozenset()
) -> dict[str, Address]:
    return choose_addresses(
        names,
        hsn=hsn,
        resolve=lambda name: (name,) if name in known | silent else (),
        answers=lambda address: address in known,
    )


def test_each_node_is_probed_by_itself() -> None:
    chosen = dial(["n1", "n2", "n3"], {"n1-hsn0", "n3-hsn0"})
    assert [chosen[name].address for name in ("n1", "n2", "n3")] == ["n1-hsn0", "n2", "n3-hsn0"]
    assert not any(address.fell_back for address in chosen.values())
    assert "n2 dialled by the given name (there is no <node>-hsn0)" in summary(chosen)
    assert "n[1,3] dialled by <node>-hsn0" in summary(chosen)


def test_a_name_that_resolves_but_does_not_answer_is_not_dialled() -> None:
    chosen = dial(["n1"], set(), silent=frozenset({"n1-hsn0"}))
    assert chosen["n1"] == Address("n1", "<node>-hsn0 does not answer")


@pytest.mark.parametrize(
    "name", ["n1-hsn0", "n1-hsn3", "x3006c0s13b1n0.hsn.cm.polaris.alcf.anl.gov", "n1-hsn0.cluster", "10.0.0.1", "::1"]
)
def test_what_needs_no_probe_is_kept(name: str) -> None:
    def never(_: str) -> tuple[str, ...]:
        raise AssertionError

    assert choose_addresses([name], resolve=never)[name].address == name


def test_off_keeps_every_name() -> None:
    assert dial(["n1"], {"n1-hsn0"}, "off")["n1"].address == "n1"


def test_a_suffix_that_is_not_there_falls_back_and_says_so() -> None:
    chosen = dial(["n1", "n2-hsn0", "n3-hsn1", "10.0.0.1"], {"n1-hsn1"}, "-hsn1")
    assert {name: address.address for name, address in chosen.items()} == {
        "n1": "n1-hsn1",
        "n2-hsn0": "n2-hsn0",
        "n3-hsn1": "n3-hsn1",
        "10.0.0.1": "10.0.0.1",
    }
    assert [name for name, address in chosen.items() if address.fell_back] == ["n2-hsn0"]


@pytest.mark.parametrize("hsn", ["", "atuo", "-", "- x", "-hsn0;id", "on"])
def test_a_bad_network_is_a_usage_error(hsn: str) -> None:
    with pytest.raises(UsageError, match="--hsn"):
        dial([], set(), hsn)


def test_candidates_of_an_fqdn() -> None:
    assert candidates("x4.hostmgmt2.cm.aurora.alcf.anl.gov", "auto") == (
        "x4-hsn0",
        "x4-hsn0.hostmgmt2.cm.aurora.alcf.anl.gov",
        "x4.hsn.cm.aurora.alcf.anl.gov",
    )
    assert candidates("n1-hsn0.cluster", "-hsn1") == ("n1-hsn1", "n1-hsn1.cluster")
    assert candidates("n1", "auto") == ("n1-hsn0",)


def test_a_resolver_that_hangs_costs_the_limit_once() -> None:
    release = threading.Event()

    def hang(name: str) -> tuple[str, ...]:
        if name == "n7-hsn0":
            return (name,)
        release.wait()
        return ()

    names = [f"n{number}" for number in range(4096)]
    chosen = choose_addresses(names, resolve=hang, answers=lambda _: True, limit=0.3)
    release.set()
    assert chosen["n7"].address == "n7-hsn0"
    assert chosen["n4095"] == Address("n4095", "<node>-hsn0 was not found within 0.3 s")
    assert chosen.keys() == set(names)


def test_each_of_4096_nodes_without_a_fast_network_is_looked_up_once() -> None:
    asked: list[str] = []

    def nothing(name: str) -> tuple[str, ...]:
        asked.append(name)
        return ()

    chosen = choose_addresses([f"n{number}" for number in range(4096)], resolve=nothing, answers=lambda _: True)
    assert sorted(asked) == sorted(f"n{number}-hsn0" for number in range(4096))
    assert summary(chosen) == "all dialled by the given name (there is no <node>-hsn0)"


def test_the_real_resolver() -> None:
    assert "127.0.0.1" in resolve("127.0.0.1")
    assert resolve("a..b") == ()


def test_a_host_answers_also_by_refusing() -> None:
    assert is_reachable("127.0.0.1")
    assert not is_reachable("no address")
    assert socket.has_ipv6 is False or isinstance(is_reachable("::1"), bool)
