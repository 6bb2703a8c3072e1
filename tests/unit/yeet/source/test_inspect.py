"""What is at a path, what it is called, and why it cannot be taken."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.filesystem import SHARED_FILESYSTEMS, is_node_local
from ezpz.errors import EzpzError, SourceEmpty, SourceNotFound, UsageError
from ezpz.yeet.model.source import Kind, default_destination
from ezpz.yeet.source.archive_formats import ARCHIVE_SUFFIXES
from ezpz.yeet.source.inspect import active_environment, find_newer_archive, inspect_source, kind_of
from tests.contract.support import powerless

if TYPE_CHECKING:
    from pathlib import Path


def folder(path: Path, *names: str) -> Path:
    """A directory with these files in it; what ends in a slash is a directory."""
    path.mkdir(parents=True, exist_ok=True)
    for name in names or ("file",):
        target = path / name
        if name.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("x")
    return path


class TestKinds:
    """The files that mark a tree decide what it is for."""

    @pytest.mark.parametrize(
        ("names", "kind"),
        [
            (("pyvenv.cfg", "bin/python"), Kind.VENV),
            (("pyvenv.cfg", "conda-meta/"), Kind.VENV),
            (("conda-meta/", "bin/python"), Kind.CONDA),
            (("bin/tool",), Kind.TOOL),
            (("model.safetensors",), Kind.DATA),
            (("pyvenv.cfg/",), Kind.DATA),
            (("conda-meta",), Kind.DATA),
            (("sub/pyvenv.cfg",), Kind.DATA),
        ],
    )
    def test_what_marks_it(self, tmp_path: Path, names: tuple[str, ...], kind: Kind) -> None:
        folder(tmp_path / "x", *names)
        assert kind_of(os.fsencode(tmp_path / "x")) is kind
        assert inspect_source(str(tmp_path / "x")).kind is kind

    def test_environments_are_those_that_are_activated(self) -> None:
        assert {kind for kind in Kind if kind.is_environment} == {Kind.VENV, Kind.CONDA}

    @pytest.mark.parametrize("suffix", [*ARCHIVE_SUFFIXES, ".TGZ", ".Tar.Gz"])
    def test_an_archive_has_no_kind_before_it_is_unpacked(self, tmp_path: Path, suffix: str) -> None:
        (tmp_path / f"my.env{suffix}").write_bytes(b"whatever")
        source = inspect_source(str(tmp_path / f"my.env{suffix}"))
        assert (source.kind, source.is_archive, source.name) == (None, True, "my.env")
        assert default_destination(source) == "/tmp/my.env"


class TestNames:
    """The name as given, not that of a link's target."""

    def test_case_61_a_link_keeps_its_own_name(self, tmp_path: Path) -> None:
        folder(tmp_path / "target")
        (tmp_path / "link").symlink_to("target")
        source = inspect_source(str(tmp_path / "link"))
        assert (source.path, source.real) == (str(tmp_path / "link"), str(tmp_path / "target"))
        assert default_destination(source) == "/tmp/link"

    def test_a_link_to_an_archive_keeps_its_own_name(self, tmp_path: Path) -> None:
        (tmp_path / "env-2024.tar.gz").write_bytes(b"x")
        (tmp_path / "latest.tgz").symlink_to("env-2024.tar.gz")
        assert inspect_source(str(tmp_path / "latest.tgz")).name == "latest"

    @pytest.mark.parametrize(
        ("given", "name"),
        [("env", "env"), ("env/", "env"), ("./env//", "env"), ("env/.", "env"), ("sub/../env", "env"), (".", "work")],
    )
    def test_relative_and_untidy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str) -> None:
        folder(tmp_path / "work" / "env")
        (tmp_path / "work" / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        source = inspect_source(given)
        assert source.name == name
        assert source.path == source.real == str(tmp_path / "work" / ("" if given == "." else "env")).rstrip("/")

    def test_dots_behind_a_link_lead_where_the_filesystem_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder(tmp_path / "far" / "away")
        folder(tmp_path / "far" / "env", "right")
        folder(tmp_path / "env", "wrong")
        (tmp_path / "link").symlink_to("far/away")
        monkeypatch.chdir(tmp_path)
        assert inspect_source("link/../env").real == str(tmp_path / "far" / "env")

    def test_a_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xff\n")
        os.mkdir(odd)
        os.mkdir(odd + "/bin")
        assert inspect_source(odd).name == os.fsdecode(b"caf\xff\n")

    def test_the_active_environment(self) -> None:
        assert active_environment({"VIRTUAL_ENV": "/v", "CONDA_PREFIX": "/c"}) == "/v"
        assert active_environment({"VIRTUAL_ENV": "", "CONDA_PREFIX": "/c"}) == "/c"
        for environ in ({}, {"VIRTUAL_ENV": ""}):
            with pytest.raises(SourceNotFound, match="no SRC was given") as caught:
                active_environment(environ)
            assert "activate" in caught.value.hint


class TestErrors:
    """Each thing that is wrong with a source has a line that names it."""

    @pytest.mark.parametrize(
        ("name", "error", "text"),
        [
            ("missing", SourceNotFound, "does not exist"),
            ("file/below", SourceNotFound, "does not exist"),
            ("dangling", SourceNotFound, "is a link to nothing"),
            ("loop", SourceNotFound, "is a link to nothing"),
            ("empty", SourceEmpty, "empty directory"),
            ("empty.tar.gz", SourceEmpty, "empty file"),
            ("file", UsageError, "no archive that ezpz reads"),
            ("env.zip", UsageError, "no archive that ezpz reads"),
            (".tar.gz", UsageError, "no archive that ezpz reads"),
            ("fifo", UsageError, "neither a directory nor a file"),
            ("socket", UsageError, "neither a directory nor a file"),
            ("missing\n\x1b[31m\udcff", SourceNotFound, r"missing\\n\\x1b\[31m\\xff"),
        ],
    )
    def test_what_cannot_be_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[EzpzError], text: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for file in ("file", "env.zip", ".tar.gz"):
            (tmp_path / file).write_text("x")
        (tmp_path / "empty.tar.gz").touch()
        (tmp_path / "empty").mkdir()
        (tmp_path / "dangling").symlink_to("nowhere")
        (tmp_path / "loop").symlink_to("loop")
        os.mkfifo(tmp_path / "fifo")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("socket")
        with pytest.raises(error, match=text) as caught:
            inspect_source(name)
        assert caught.value.message.isprintable()

    @pytest.mark.processes
    @pytest.mark.parametrize(("kind", "mode"), [("env", 0o000), ("env", 0o400), ("env", 0o100), ("env.tar.gz", 0o000)])
    def test_what_may_not_be_read(self, tmp_path: Path, kind: str, mode: int) -> None:
        folder(tmp_path / "env")
        (tmp_path / "env.tar.gz").write_text("x")
        (tmp_path / kind).chmod(mode)
        code = (
            "import sys\nfrom ezpz.errors import EzpzError\nfrom ezpz.yeet.source.inspect import inspect_source\n"
            "try:\n    inspect_source(sys.argv[1])\nexcept EzpzError as e:\n    print(e.code)\n"
        )
        done = powerless(code, tmp_path / kind)
        (tmp_path / kind).chmod(0o755)
        assert (done.stdout, done.stderr) == ("source-unreadable\n", "")


class TestNewerArchive:
    """An archive of the environment's name that is newer than it is worth a hint."""

    @pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
    def test_beside_it_or_in_the_working_directory(self, tmp_path: Path, suffix: str) -> None:
        env = folder(tmp_path / "envs" / "env")
        work = folder(tmp_path / "work")
        assert find_newer_archive(str(env), str(work)) is None
        for where in (work, env.parent):
            archive = where / f"env{suffix}"
            archive.touch()
            os.utime(archive, (10**9, 10**9))
            assert find_newer_archive(str(env), str(work)) is None
            os.utime(archive, (4 * 10**9, 4 * 10**9))
            assert find_newer_archive(str(env), str(work)) == str(archive)
            archive.unlink()

    def test_another_name_is_another_matter(self, tmp_path: Path) -> None:
        env = folder(tmp_path / "env")
        for name in ("env2.tar.gz", "env.zip", "xenv.tgz"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (4 * 10**9, 4 * 10**9))
        assert find_newer_archive(str(env), str(tmp_path)) is None


@pytest.mark.parametrize("name", ["lustre", "gpfs", "nfs4", "fuse.sshfs", "fuse.dfuse", "fuse", "beegfs", "cifs"])
def test_case_60_shared_filesystems(name: str) -> None:
    assert not is_node_local(name)


@pytest.mark.parametrize("name", ["ext4", "xfs", "tmpfs", "overlay", "btrfs", "fuseblk", ""])
def test_case_60_local_filesystems(name: str) -> None:
    assert name not in SHARED_FILESYSTEMS
    assert is_node_local(name)
