"""Special files and modes: what cannot be carried is left out or refused, never waited for, and always told."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.support import needs_root
from tests.relocation.trees import STRATEGIES, beside, names, ordinary, powerless, refusal, warnings, yeet

if TYPE_CHECKING:
    from collections.abc import Iterator

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree of three files."""
    for name in ("shared/S/file", "shared/S/folder/one", "shared/S/folder/two"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "node").mkdir()
    return tmp_path / "shared" / "S"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "node" / "D"


THREE = {"file", "folder", "folder/one", "folder/two"}


def bind(path: Path) -> None:
    """Make a socket; its name may be longer than bind(2) takes."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


@every_strategy
def test_case_39_fifos_and_sockets_are_left_out_in_one_line(source: Path, destination: Path, strategy: str) -> None:
    os.mkfifo(source / "fifo")
    bind(source / "folder" / "socket")
    for number in range(12):
        os.mkfifo(source / "folder" / f"fifo-{number}")
    done = yeet(source, destination, "--strategy", strategy)
    count, paths = warnings(done)["special-file"]
    assert (count, len(paths)) == (14, 10)
    assert names(destination) == THREE
    (line,) = [each["text"] for each in done["relocation"]["warnings"]]
    assert " and 11 more" in line


def test_case_39_a_link_to_a_fifo_outside_is_not_opened(source: Path, destination: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shared" / "fifo")
    (source / "link").symlink_to("../fifo")
    yeet(source, destination)
    assert (destination / "link").is_symlink()


@every_strategy
def test_case_40_what_cannot_be_read_is_refused_and_named(source: Path, destination: Path, strategy: str) -> None:
    for number in range(13):
        (source / "folder" / f"secret-{number:02}").write_text("secret")
        (source / "folder" / f"secret-{number:02}").chmod(0)
    done = yeet(source, destination, "--strategy", strategy, exit_code=11, under=powerless())
    code, message = refusal(done)
    assert code == "source-unreadable"
    assert message.count(f"'{source}/folder/secret-") == 10
    assert message.endswith(" and 3 more: Permission denied")
    assert "--skip-unreadable" in done["error"]["hint"]
    assert beside(destination) == []
    assert not destination.exists()


@every_strategy
def test_case_40_it_can_be_skipped(source: Path, destination: Path, strategy: str) -> None:
    (source / "secret").write_text("secret")
    (source / "secret").chmod(0)
    for name, mode in (("closed", 0), ("no-search", 0o600)):
        (source / name).mkdir()
        (source / name / "inside").touch()
        (source / name).chmod(mode)
    try:
        done = yeet(source, destination, "--skip-unreadable", "--strategy", strategy, under=powerless())
    finally:
        for name in ("closed", "no-search"):
            (source / name).chmod(0o700)
    assert names(destination) == THREE
    count, paths = warnings(done)["unreadable"]
    assert (count, set(paths)) == (3, {"secret", "closed", "no-search"})


@every_strategy
def test_case_41_setuid_and_setgid_are_dropped_and_told(source: Path, destination: Path, strategy: str) -> None:
    for name, mode in (("uid", 0o4755), ("gid", 0o2755), ("both", 0o6511)):
        (source / name).write_text("#!/bin/sh\n")
        (source / name).chmod(mode)
    done = yeet(source, destination, "--strategy", strategy)
    assert {stat.S_IMODE((destination / name).stat().st_mode) for name in ("uid", "gid")} == {0o755}
    assert stat.S_IMODE((destination / "both").stat().st_mode) == 0o511
    assert warnings(done)["setuid"][0] == 3
    assert stat.S_IMODE((source / "uid").stat().st_mode) == 0o4755


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@every_strategy
def test_case_42_read_only_folders_are_read_only_again(public: Path, strategy: str) -> None:
    source, destination = public / "shared" / "S", public / "node" / "D"
    (source / "folder" / "empty").mkdir(parents=True)
    destination.parent.mkdir()
    (source / "file").write_text("content")
    (source / "folder" / "absolute").symlink_to(source / "file")  # something changes in there
    os.utime(source / "folder", ns=(10**18, 10**18 + 7))
    for path, mode in ((source / "folder" / "empty", 0o500), (source / "folder", 0o555), (source, 0o555)):
        path.chmod(mode)
    user = ordinary(source.parent, destination.parent)
    for content in ("content", "other content"):  # the second time it is replaced
        (source / "file").write_text(content)
        yeet(source, destination, "--strategy", strategy, under=user)
        found = [stat.S_IMODE((destination / name).stat().st_mode) for name in ("", "folder", "folder/empty")]
        assert found == [0o500, 0o555, 0o500]  # the top is closed to others
        assert (destination / "folder").stat().st_mtime_ns == 10**18 + 7
        assert os.readlink(destination / "folder" / "absolute") == "../file"
        assert (destination / "file").read_text() == content
    assert beside(destination) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose filesystem takes names that differ only in case for the same."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4 to make a disk that ignores case")
    image, top = tmp_path / "disk", tmp_path / "mount"
    top.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "casefold", image], capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, top], capture_output=True).returncode != 0:
        pytest.skip("this kernel mounts no ext4 that ignores case")
    try:
        (top / "folding").mkdir()
        subprocess.run(["chattr", "+F", top / "folding"], check=True)
        yield top / "folding"
    finally:
        subprocess.run(["umount", top], check=True)


FOLDING = """
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
int stat64(const char *path, struct stat64 *status) {
  int (*real)(const char *, struct stat64 *) = dlsym(RTLD_NEXT, "stat64");
  char lower[4096];
  if (!real(path, status)) return 0;
  if (strncmp(path, getenv("FOLDING"), strlen(getenv("FOLDING"))) || strlen(path) >= sizeof lower) return -1;
  strcpy(lower, path);
  for (char *c = strrchr(lower, '/'); *c; c++) *c = tolower(*c);
  return real(lower, status);
}
int stat(const char *path, struct stat *status) { return stat64(path, (struct stat64 *)status); }
"""


@pytest.fixture
def folding(destination: Path, tmp_path: Path) -> dict[str, str]:
    """Variables that make stat(2) ignore the case of the last name, as if the destination were on such a disk."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    library = tmp_path / "folding.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-o", library, "-", "-ldl"], input=FOLDING.encode(), check=True
    )
    return {"LD_PRELOAD": str(library), "FOLDING": str(destination.parent)}


PAIRS = pytest.mark.parametrize("name", ["FILE", "Straße", "É"])


@needs_root
@PAIRS
def test_case_45_names_that_differ_only_in_case_are_refused_on_a_disk_that_ignores_it(
    source: Path, disk: Path, name: str
) -> None:
    (source / name).touch()
    (source / name.swapcase()).touch()
    assert refusal(yeet(source, disk / "D", exit_code=20))[0] == "destination-refused"
    assert list(disk.iterdir()) == []
    yeet(source, disk / "D", "--exclude", name.swapcase())
    assert (disk / "D" / name).exists()


@PAIRS
def test_case_45_names_that_differ_only_in_case_are_refused_before_anything_moves(
    source: Path, destination: Path, folding: dict[str, str], name: str
) -> None:
    for each in (name, name.swapcase()):
        (source / "folder" / each).touch()
    code, message = refusal(yeet(source, destination, exit_code=20, env=folding))
    assert (code, "differs only in case" in message) == ("destination-refused", True)
    assert list(destination.parent.iterdir()) == []
    yeet(source, destination, "--exclude", name.swapcase(), env=folding)
    assert (destination / "folder" / name).exists()


def test_case_45_names_that_differ_only_in_case_are_fine_elsewhere(source: Path, destination: Path) -> None:
    (source / "FILE").touch()
    yeet(source, destination)
    assert names(destination) == THREE | {"FILE"}


def test_case_45_a_path_too_long_for_the_destination_is_refused_before_anything_moves(
    source: Path, destination: Path
) -> None:
    deep = source.joinpath(*["d" * 250] * 14)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    long = destination.joinpath(*["e" * 200] * 3)
    code, message = refusal(yeet(source, long, exit_code=20))
    assert (code, "too long below" in message) == ("destination-refused", True)
    assert not destination.exists()
    yeet(source, destination)
    assert (destination / deep.relative_to(source) / "file").exists()


@every_strategy
def test_case_24_names_of_any_bytes_are_carried(source: Path, destination: Path, strategy: str) -> None:
    odd = os.fsencode(source) + b"/\xff\n' \\ -rf"
    os.mkdir(odd)
    with open(odd + b"/\xfe", "wb") as file:
        file.write(b"content")
    os.symlink(odd + b"/\xfe", os.fsencode(source) + b"/odd \xfd")
    yeet(source, destination, "--strategy", strategy)
    assert os.readlink(os.fsencode(destination) + b"/odd \xfd") == b"\xff\n' \\ -rf/\xfe"
    with open(os.fsencode(destination) + b"/odd \xfd", "rb") as file:
        assert file.read() == b"content"


def test_case_43_a_sparse_file_is_as_small_at_the_destination(source: Path, destination: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    if (source / "sparse").stat().st_blocks > 2048:
        pytest.skip("this filesystem has no holes")
    yeet(source, destination)
    status = (destination / "sparse").stat()
    assert (status.st_size, status.st_blocks <= 2048) == (1 << 30, True)
