"""Names: short, checked, mine or not, folded and expanded."""

from __future__ import annotations

import socket
import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.cluster.hostnames import check_name, domain, expand, fold, is_address, is_me, local_names, short
from ezpz.errors import BadHostName, UsageError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=12).filter(
    lambda label: label[0] != "-" and not label.rpartition("-hsn")[2].isdigit() and not label.isdigit()
)
DOMAINS = st.lists(LABELS, max_size=3).map(".".join)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("x4310c3s2b0n0", "x4310c3s2b0n0"),
        ("x4310c3s2b0n0-hsn0", "x4310c3s2b0n0"),
        ("x4310c3s2b0n0-hsn7", "x4310c3s2b0n0"),
        ("x4310c3s2b0n0-HSN12.hsn.cm.aurora.alcf.anl.gov", "x4310c3s2b0n0"),
        ("x4310c3s2b0n0.hsn.cm.aurora.alcf.anl.gov", "x4310c3s2b0n0"),
        ("x4114c1s7b0n0.hostmgmt2.cm.aurora.alcf.anl.gov", "x4114c1s7b0n0"),
        ("NID001234", "nid001234"),
        ("my-hsn-box", "my-hsn-box"),
        ("10.77.0.3", "10.77.0.3"),
        ("FE80::1", "fe80::1"),
        ("10.77", "10"),
    ],
)
def test_short(name: str, canonical: str) -> None:
    assert short(name) == canonical


@given(LABELS, DOMAINS, st.sampled_from(["", "-hsn0", "-hsn7"]))
def test_every_name_of_a_host_has_one_short_form(label: str, rest: str, suffix: str) -> None:
    name = f"{label}{suffix}.{rest}" if rest else label + suffix
    assert short(name) == label
    assert short(short(name)) == short(name)
    assert is_me(name, frozenset({label}))
    assert not is_me(name, frozenset({label + "1"}))


def test_is_me_is_not_a_prefix() -> None:
    assert not is_me("node1", frozenset({"node11"}))
    assert not is_me("node11", frozenset({"node1"}))


def test_domain_and_address() -> None:
    assert domain("a.b.c.") == "b.c"
    assert domain("10.0.0.1") == ""
    assert domain("a") == ""
    assert is_address("::1")
    assert not is_address("1234")
    assert not is_address("a:b")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is empty"),
        ("-oProxyCommand=x", "begins with '-'"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\x00b", "control character"),
        ("a\x1b[31m", "control character"),
        ("a;rm", "';'"),
        ("$(id)", "'$'"),
        ("a`id`", "'`'"),
        ("a|b", "'|'"),
        ("a'b", '"\'"'),
        ("me@host", "'@'"),
        ("../etc", "'/'"),
        ("n*", "'*'"),
        ("näme", "'ä'"),
        ("a..b", "neither"),
        ("a:b", "neither"),
        ("x" * 64, "neither"),
        (".".join(["x" * 60] * 5), "neither"),
        ("fe80::1%e;h", "';'"),
    ],
)
def test_a_dangerous_name_is_refused_with_its_place(name: str, complaint: str) -> None:
    with pytest.raises(BadHostName) as caught:
        check_name(name, "hostfile:3")
    assert caught.value.message.startswith("hostfile:3: ")
    assert repr(name) in caught.value.message
    assert complaint in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["n1", "n_1", "N1.a-b.c", "n1.", "10.0.0.1", "::1", "fe80::1%eth0", "1234"])
def test_a_plain_name_is_taken(name: str) -> None:
    check_name(name, "here:1")


@given(st.text(max_size=20))
def test_what_passes_is_safe_for_a_shell_and_for_options(name: str) -> None:
    try:
        check_name(name, "here:1")
    except BadHostName:
        return
    assert not name.startswith("-")
    assert set(name) <= set(string.ascii_letters + string.digits + "._-:%")


def test_local_names_come_from_the_host_name_and_the_hosts_file(tmp_path: Path) -> None:
    me = socket.gethostname()
    hosts = tmp_path / "hosts"
    hosts.write_text(
        f"127.0.0.1 localhost\n10.77.0.9 other other-hsn0\n10.77.0.3 {me}.cluster alias # {me}\n# {me} no\n"
    )
    names = local_names(str(hosts))
    assert {short(me), "alias", "10.77.0.3", "localhost", "127.0.0.1"} <= names
    assert "other" not in names
    assert "127.0.0.2" not in names


def test_local_names_without_a_hosts_file(tmp_path: Path) -> None:
    assert short(socket.gethostname()) in local_names(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("nodeset", "names"),
    [
        ("n3,n1,n2", ("n3", "n1", "n2")),
        ("n[001-003]", ("n001", "n002", "n003")),
        ("n[9-10],a", ("n9", "n10", "a")),
        ("nid[001234-001236,001300]", ("nid001234", "nid001235", "nid001236", "nid001300")),
        ("n[1-2]-ib", ("n1-ib", "n2-ib")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("n[1-4]!n[2-3]", ("n1", "n4")),
        ("n1,n1,n[1-2]", ("n1", "n2")),
        (" n1, n2 ", ("n1", "n2")),
        ("n[0-8/4]", ("n0", "n4", "n8")),
        ("10.0.0.[1-2]", ("10.0.0.1", "10.0.0.2")),
        ("::1", ("::1",)),
    ],
)
def test_expand(nodeset: str, names: tuple[str, ...]) -> None:
    assert expand(nodeset) == names


@pytest.mark.parametrize(
    "nodeset", ["n[1-", "n[3-1]", "n[a-b]", "n1!n1", "", ",", "n[1-99999999999]", "n[1-5]]", "r[1-9999]n[1-9999]"]
)
def test_bad_nodeset_is_a_usage_error_with_the_text(nodeset: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(nodeset)
    assert caught.value.message.startswith("--hosts: ")


@pytest.mark.parametrize("nodeset", ["@grp", "n1,@*", "n*", "n[1-2];id", "-x[1-2]", "a b", "me@n1", "n1\n"])
def test_bad_name_in_a_nodeset_is_refused(nodeset: str) -> None:
    with pytest.raises(BadHostName):
        expand(nodeset, "here:1")


def test_fold() -> None:
    assert fold(()) == ""
    assert fold(["n3", "n1", "n2", "login1"]) == "login1,n[1-3]"
    assert fold(["x1c1", "x1c2", "x2c1", "x2c2"], one_bracket=True) == "x1c[1-2],x2c[1-2]"


@given(st.sets(st.tuples(LABELS, DOMAINS).map(lambda pair: ".".join(filter(None, pair))), min_size=1, max_size=20))
def test_expand_undoes_fold(names: set[str]) -> None:
    assert set(expand(fold(names))) == names
    assert set(expand(fold(names, one_bracket=True))) == names


def test_4096_plain_names_expand_at_once() -> None:
    names = tuple(f"x{n:04}c0s0b0n0" for n in range(4096))
    assert expand(",".join(names)) == names
