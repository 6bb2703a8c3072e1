"""Programs that run where a source is not: its paths hidden from them, or every call that reaches it written down."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.model import LabUnavailable
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HIDE = """
mount --make-rprivate /
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mount -t tmpfs -o ro,mode=0755 hidden "$1"; else mount --bind /dev/null "$1"; fi
  shift
done
shift
exec "$@"
"""
ELSEWHERE = """
mount --make-rprivate /
root=$1; shift
mount -t tmpfs another "$root"
mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/dev" "$root/proc" "$root/tmp"
mount --rbind /proc "$root/proc"
for folder in lib lib64; do
  ln -s "usr/$folder" "$root/$folder"
  mount --rbind "/usr/$folder" "$root/usr/$folder"
done
for python in "$root"/usr/lib/python*; do [ ! -d "$python" ] || mount -t tmpfs hidden "$python"; done
ln -s usr/bin "$root/bin"
for tool in sh env mkdir sed tar zstd; do cp -L "$(command -v $tool)" "$root/bin/"; done
: >"$root/dev/null"; mount --bind /dev/null "$root/dev/null"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}"; : >"$root$1"; fi
  mount --bind "$1" "$root$1"
  shift
done
shift
exec chroot "$root" "$@"
"""
CALLS = "%file,getdents,getdents64,fchdir"
# How strace -y spells the directory that a path begins at, a path, and what an open file is.
CALL = re.compile(r"\d+ +(?P<resumed><\.\.\. )?(?P<name>\w+)")
BEGIN = re.compile(r"(?:AT_FDCWD|\d+)<(?P<place>(?:[^>\\]|\\.)*)>, $")
LAST_AS_IT_IS = re.compile(r"\d+ +(lstat|l\w+xattr|readlink|unlink|rename|symlink|link)|.*\b(AT_SYMLINK|O)_NOFOLLOW\b")
ONE_PATH = ("execve", "execveat", "readlink", "readlinkat")
TEXT = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')
OPENED = re.compile(r"(?:\d+|AT_FDCWD)<(?P<path>/(?:[^>\\]|\\.)*)>")
LINKS = 40  # as many as the kernel follows


@functools.cache
def why_not() -> str | None:
    """Return why nothing can be hidden here, or None when it can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run([*_enter(), "mount", "--make-rprivate", "/"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"no private mounts: {done.stderr.strip()}"


def _enter() -> tuple[str, ...]:
    return ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")


def hidden(
    argv: Sequence[str | os.PathLike[str]],
    paths: Iterable[Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = DEADLINE,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end where these paths are empty directories or empty files. Nobody else sees them so."""
    reason = why_not()
    if reason is not None:
        raise LabUnavailable(reason)
    outermost = [str(path) for path in _outermost(paths)]
    return subprocess.run(
        [*_enter(), "sh", "-ec", HIDE, "sh", *outermost, "--", *argv],
        env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="surrogateescape",
        timeout=timeout,
    )  # fmt: skip


def elsewhere(
    argv: Sequence[str | os.PathLike[str]], paths: Iterable[Path], *, timeout: float = DEADLINE
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end on another machine: its root has the libraries of this system, sh, env, mkdir, sed,
    tar and zstd, and these paths. There is no other file, and no python.
    """
    reason = why_not() or (None if os.path.islink("/lib") else "/lib is not in /usr")
    if reason is not None:
        raise LabUnavailable(reason)
    with tempfile.TemporaryDirectory() as root:
        return subprocess.run(
            [*_enter(), "sh", "-ec", ELSEWHERE, "sh", root, *map(str, paths), "--", *argv],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}, cwd="/", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip


def _outermost(paths: Iterable[Path]) -> list[Path]:
    real = sorted({Path(os.path.realpath(path)) for path in paths})
    return [path for path in real if not any(other in path.parents for other in real)]


def traced(
    argv: Sequence[str | os.PathLike[str]],
    paths: Iterable[Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = DEADLINE,
) -> list[str]:
    """Run a program to its end and return every system call, as strace writes it, that reached one of these paths.

    By its name, through a link on the way, or by what is open. Processes that it starts count as well.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise LabUnavailable("strace is not installed")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "calls")
        done = subprocess.run(
            [strace, "-f", "-y", "-e", f"trace={CALLS}", "-o", output, "--", *argv],
            env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        lines = output.read_text(errors="surrogateescape").splitlines()
    calls = [line for line in lines if CALL.match(line)]
    if not calls:
        raise RuntimeError(f"strace saw nothing of {argv}")
    roots = tuple({str(place) for path in paths for place in (path, os.path.realpath(path))})
    return [line for line in calls if any(_below(place, roots) for place in _places(line))]


def _below(place: str, roots: tuple[str, ...]) -> bool:
    return any(place == root or place.startswith(f"{root}/") for root in roots)


def _places(line: str) -> Iterator[str]:
    """Every place that a call reached: what was open, the paths that it named, and where links on the way led."""
    follow = LAST_AS_IT_IS.match(line) is None
    for opened in OPENED.finditer(line):
        yield _unquoted(opened["path"])
    for text in _named(line):
        begin = BEGIN.search(line[: text.start()])
        base = _unquoted(begin["place"]) if begin else "/"
        yield from _way(os.path.join(base, _unquoted(text["text"])), follow)


def _named(line: str) -> Iterator[re.Match[str]]:
    """The arguments that are paths: of execve only the program, of readlink not what it answered."""
    call = CALL.match(line)
    if call is None or call["resumed"] or call["name"] == "getcwd":  # what is written there is an answer
        return
    texts = TEXT.finditer(line)
    yield from itertools.islice(texts, 1) if call["name"] in ONE_PATH else texts


def _unquoted(text: str) -> str:
    return re.sub(rb"\\(\d{1,3})", lambda octal: bytes([int(octal[1], 8)]), os.fsencode(text)).decode(
        errors="surrogateescape"
    )


@functools.lru_cache(maxsize=65536)
def _way(path: str, follow: bool) -> tuple[str, ...]:  # noqa: FBT001 - what is cached is found by position
    """The places that the kernel passes when it looks for a path, which may end with a link that is not followed."""
    passed: list[str] = []
    waiting, here = [part for part in reversed(path.split("/")) if part], "/"
    followed = 0
    while waiting:
        part = waiting.pop()
        here = os.path.normpath(os.path.join(here, part))
        passed.append(here)
        last = not waiting and not follow
        if last or part in (".", "..") or followed == LINKS or not os.path.islink(here):
            continue
        followed += 1
        target = os.readlink(here)
        waiting.extend(piece for piece in reversed(target.split("/")) if piece)
        here = "/" if target.startswith("/") else os.path.dirname(here)
    return tuple(passed)
