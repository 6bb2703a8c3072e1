"""Hostfiles in the forms that MPI implementations, PBS and people write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.cluster.schedulers.base import read_file
from ezpz.cluster.schedulers.hostfile import parse, read_hostfile
from ezpz.errors import BadHostName, EzpzError, HostfileError
from tests.unit.cluster.fakes import recorded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1\nn2\n", ("n1", "n2")),
        ("# head\n\n  n1  # first\nn2\r\n", ("n1", "n2")),
        ("n1 slots=4 max_slots=8\nn2 slots=4", ("n1", "n2")),
        ("n1:4\nn2:4", ("n1", "n2")),
        ("fe80::1\n::1:22", ("fe80::1", "::1:22")),
        ("n[1-3]\nn[2-4]:8", ("n1", "n2", "n3", "n4")),
        ("n2,n1", ("n2", "n1")),
        ("N1.Domain", ("N1.Domain",)),
        ("", ()),
    ],
)
def test_forms(text: str, names: tuple[str, ...]) -> None:
    assert parse(text, "hostfile") == names


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("-oProxyCommand=id", BadHostName),
        ("n1 n2", BadHostName),
        ("n1;id", BadHostName),
        ("n1\x0bn2", BadHostName),
        ("me@n1", BadHostName),
        ("@all", BadHostName),
        ("n1\u2028n2", BadHostName),
        ("n[1-", HostfileError),
        ("n[3-1]", HostfileError),
    ],
)
def test_errors_carry_file_and_line(line: str, error: type[EzpzError]) -> None:
    with pytest.raises(error) as caught:
        parse(f"# comment\nn0\n{line}\n", "my hostfile")
    assert caught.value.message.startswith("my hostfile:3: ")


def test_a_nodefile_repeats_its_nodes() -> None:
    assert parse(recorded("nodefile-aurora"), "nodefile") == tuple(
        f"x4114c1s{n}b0n0.hostmgmt2.cm.aurora.alcf.anl.gov" for n in (7, 6, 5)
    )
    assert parse(recorded("nodefile-sunspot"), "nodefile") == ("x1921c0s3b0n0-hsn0", "x1921c0s0b0n0-hsn0")


@pytest.mark.parametrize("content", [b"", b"\n# nothing\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hosts with\nnewline"
    path.write_bytes(content)
    with pytest.raises(HostfileError, match="names no host"):
        read_hostfile(str(path), read_file)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (str(tmp_path / "none"), str(tmp_path), "nul\0byte"):
        with pytest.raises(HostfileError, match="cannot be read"):
            read_hostfile(path, read_file)


def test_a_file_without_end_is_an_error() -> None:
    with pytest.raises(HostfileError, match="larger than"):
        read_hostfile("/dev/zero", read_file)


def test_a_pipe_and_a_byte_order_mark_are_fine() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"\xef\xbb\xbfn1\nn2\n")
    os.close(writer)
    assert read_hostfile(f"/dev/fd/{reader}", read_file) == ("n1", "n2")
    os.close(reader)


@given(st.binary(max_size=60))
def test_any_bytes_are_hosts_or_an_error_that_names_the_file(content: bytes) -> None:
    try:
        names = read_hostfile("hostfile", lambda _: content)
    except (BadHostName, HostfileError) as e:
        names = (e.message.replace("the hostfile 'hostfile'", "hostfile"),)
    assert names
    assert all(name.isprintable() for name in names)
