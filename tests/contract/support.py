"""What the contract suites share: photographs of trees, copies with parts left out, and a Python without privileges."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.waiting import DEADLINE

Photograph: TypeAlias = "dict[bytes, tuple[object, ...]]"

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other users, mounts")


def photograph(root: Path, *, inode: bool = True) -> Photograph:
    """All that lstat(2) and a hash tell of every name in a tree, but for the time of the last access.

    inode: also what a new hard link to a file would change (the count of links, and the time of that change)
    """
    top = os.fsencode(root)
    names = [top]
    for folder, folders, files in os.walk(top):
        names.extend(os.path.join(folder, name) for name in (*folders, *files))
    return {os.path.relpath(name, top): _facts(name, inode=inode) for name in names}


def _facts(path: bytes, *, inode: bool) -> tuple[object, ...]:
    status = os.lstat(path)
    content: object = None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    links = (status.st_nlink, status.st_ctime_ns) if inode else ()
    return (status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, content, *links)


def copied_without(source: Path, target: Path, *left_out: str) -> Path:
    """What `cp -a` makes of a tree, minus these paths; the times of the folders are as before."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    for name in left_out:
        path = target / name
        times = os.stat(path.parent)
        mode = stat.S_IMODE(times.st_mode)
        path.parent.chmod(mode | 0o700)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        path.parent.chmod(mode)
    return target


def powerless(code: str, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that obeys permission bits, which root otherwise does not."""
    drop = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("root obeys no permission bits, and setpriv is not here")
    return run_code(code, *arguments, under=drop)


def as_ordinary_user(code: str, own: Path, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code as a user who is not root, to whom `own`, its first argument, belongs and who may read all."""
    user: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("this is root, and setpriv is not here")
        os.chown(own, NOBODY, NOBODY)
        user = [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "--bounding-set=-all,+dac_read_search",
        ]
        user += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return run_code(code, own, *arguments, under=user)


def on_small_disk(
    code: str, where: Path, size: str, *arguments: str | os.PathLike[str]
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a mount namespace of its own with a tmpfs of this size, whose path is its first argument."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare to mount a small disk")
    where.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={size},nr_inodes=200 none "$1" && shift && exec "$@"'
    unshare = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", str(where)]
    return run_code(code, where, *arguments, under=unshare)


def in_mount_namespace(folder: Path, mount: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with paths in `folder` as arguments, in a mount namespace of its own where a script of shell,
    which runs in `folder`, has mounted something.
    """
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *user, "-m", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    script = f'cd "$1" || exit; shift; {{ {mount}; }} || exit; cd "$OLDPWD" && exec "$@"'
    paths = [folder / argument for argument in arguments]
    return run_code(code, *paths, under=[*unshare, "sh", "-c", script, "sh", str(folder)])


def on_btrfs(code: str, where: Path, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code in a mount namespace of its own with a btrfs of 128 MiB, whose path is its first argument."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs root, unshare and mkfs.btrfs to mount a filesystem that can share blocks")
    where.mkdir()
    image = where.with_suffix(".btrfs")
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "--quiet", image], check=True, capture_output=True)
    unshare = ["unshare", "-m", "--propagation", "private", "sh", "-c"]
    mount = 'mount -o loop "$1" "$2"'
    tried = subprocess.run([*unshare, mount, "sh", image, where], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no btrfs can be mounted here: {tried.stderr.strip()}")
    return run_code(
        code, where, *arguments, under=[*unshare, f'{mount} && shift 2 && exec "$@"', "sh", str(image), str(where)]
    )


def run_code(
    code: str, *arguments: str | os.PathLike[str], under: list[str] | tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Python code, which may import ezpz and tests, with these arguments and perhaps under another command."""
    return subprocess.run(
        [*under, sys.executable, "-c", code, *(os.fspath(argument) for argument in arguments)],
        capture_output=True, text=True, errors="surrogateescape", timeout=DEADLINE, cwd=REPOSITORY,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))),
    )  # fmt: skip
