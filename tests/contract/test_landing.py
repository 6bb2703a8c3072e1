"""A landing keeps its promises through both doors: imported here, and as the real agent under every Python we find."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common import layout, tree_version
from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.manifest import manifest_digest
from ezpz.agent.common.messages.receipt import FORMAT
from ezpz.yeet.pipeline.replay import feed_tree
from ezpz.yeet.transfer.entry_tee import EntryTee
from tests.contract.doors import IMPORTED, SYSTEM, VERSIONS, Door, Imported, Piped, Refused, interpreter, open_door
from tests.contract.support import NOBODY, as_ordinary_user, needs_root, on_small_disk, photograph
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALL_DOORS = (IMPORTED, SYSTEM, *VERSIONS)
SOME_DOORS = (IMPORTED, "3.6", SYSTEM)
SOURCE = "/shared/envs/env"
RECEIPT = os.fsdecode(layout.RECEIPT)
FAILED = os.fsdecode(layout.FAILED_NODES)

every_door = pytest.mark.parametrize("name", ALL_DOORS)
some_doors = pytest.mark.parametrize("name", SOME_DOORS)


def asked(dst: Path | str, run: str = "run-1", **other: Any) -> dict[str, Any]:
    """What a run asks of a landing."""
    usual = {"avoid": None, "source": SOURCE, "files": 3, "executable": False, "replace": False}
    usual |= {"bytes": 100, "allocated": other.get("bytes", 100)}
    return {"dst": os.fspath(dst), "run": run_id(run), **usual, **other}


def run_id(word: str) -> str:
    """An id of the form that runs have, the same for the same word; one that has it already stays."""
    return word if re.fullmatch(r"[\d-]{16}[0-9a-f]{8}", word) else f"20240101-000000-{zlib.crc32(word.encode()):08x}"


def write(staging: str | Path, word: str, files: int = 2) -> tree_version.Survey:
    """Put a small version into a staging directory, as rsync would."""
    root = Path(staging)
    (root / "folder").mkdir()
    for number in range(files):
        (root / "folder" / f"file{number}").write_text(word)
    (root / word).write_text(word)
    return tree_version.summarize(os.fsencode(staging))


def with_manifest(staging: str | Path) -> dict[str, str]:
    """Put a manifest beside a version in a staging directory, as a stream would; what its receipt says of it."""
    with contextlib.closing(EntryTee()) as intake:
        feed_tree(os.fsencode(staging), intake, CancelToken())
        taken = intake.end()
    (Path(staging) / os.fsdecode(layout.MANIFEST)).write_bytes(taken.manifest)
    return {"contents": taken.contents, "manifest": manifest_digest(taken.manifest)}


def expect(found: tree_version.Survey) -> dict[str, Any]:
    return {"version": found.version, "files": found.files, "bytes": found.bytes}


def land(door: Door, dst: Path | str, word: str, run: str = "run-1", **other: Any) -> dict[str, Any]:
    """A whole run: prepare, write, publish."""
    staging = door.prepare(**asked(dst, run, **other))["staging"]
    found = write(staging, word)
    receipt = {"source": SOURCE, "inputs": word, **with_manifest(staging)}
    return door.publish(expected=expect(found), receipt=receipt, executable=False)


def code_of(act: Callable[[], object]) -> str:
    """The code that an action is refused with, "done" if it is not."""
    try:
        act()
    except Refused as e:
        return e.code
    return "done"


def stands(dst: Path) -> str:
    """The word of the version at `dst`, after a look at all of it."""
    receipt = json.loads((dst / RECEIPT).read_text())
    found = tree_version.summarize(os.fsencode(dst))
    assert (found.version, found.files, found.bytes) == (receipt["version"], receipt["files"], receipt["bytes"])
    words = {path.read_text() for path in dst.glob("folder/*")}
    assert len(words) == 1
    return words.pop()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Door]]:
    """Opens doors, and closes all of them in the end."""
    doors: list[Door] = []

    def another(name: str) -> Door:
        doors.append(open_door(name))
        return doors[-1]

    yield another
    for door in doors:
        door.close()


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    return tmp_path / "local" / "env"


@pytest.fixture
def local(dst: Path) -> Path:
    dst.parent.mkdir()
    return dst.parent


class TestARun:
    """From nothing to a version, and to the next one."""

    @every_door
    def test_first_second_and_the_same_again(self, name: str, local: Path, dst: Path) -> None:
        first = open_door(name)
        answer = first.prepare(**asked(dst, tools=["sh"]))
        assert answer["receipt"] is None
        assert answer["tools"] == {"sh": shutil.which("sh")}
        assert answer["free_bytes"] > 0
        assert Path(answer["staging"]).parent.parent == local
        found = write(answer["staging"], "first")
        made_of = {"source": SOURCE, "kind": "data", "inputs": "1"}
        about = with_manifest(answer["staging"])
        before = int(time.time())
        done = first.publish(expected=expect(found), receipt={**made_of, **about}, executable=True)
        assert (done["removed"], done["replaced"]) == (0, "")
        assert stands(dst) == "first"
        receipt = json.loads((dst / RECEIPT).read_text())
        assert (
            receipt.items()
            >= {"source": SOURCE, "kind": "data", "destination": str(dst), "run": run_id("run-1")}.items()
        )
        assert before <= receipt["created"] <= time.time()
        (dst / f"{FAILED}.part").symlink_to(local / "victim")
        assert first.note(["n003", "n007.domain"]) == str(dst / FAILED)
        (dst / f"{FAILED}.part").unlink()
        assert not (local / "victim").exists()
        assert (dst / FAILED).read_text() == "n003\nn007.domain\n"
        first.close()
        assert list(local.iterdir()) == [dst]

        second = open_door(name)
        answer = second.prepare(**asked(dst, "run-2"))
        assert answer["receipt"] == receipt
        assert not (dst / FAILED).exists()
        assert not second.same(**{**made_of, "inputs": "2"})
        assert not second.same(**{**made_of, "source": "/elsewhere"})
        assert second.same(**made_of)
        found = write(answer["staging"], "second")
        made_of = {"source": SOURCE, **with_manifest(answer["staging"])}
        done = second.publish(expected=expect(found), receipt=made_of, executable=False)
        assert (done["removed"], done["replaced"]) == (1, receipt["version"])
        assert stands(dst) == "second"
        assert not (dst / "first").exists()
        second.close()
        assert list(local.iterdir()) == [dst]

    @some_doors
    def test_what_is_verified_is_what_was_promised(self, name: str, local: Path, dst: Path) -> None:
        land(door := open_door(name), dst, "old")
        door.close()
        before = photograph(dst)
        for wrong in ({"files": 99}, {"bytes": 99}, {"version": "0" * 64}):
            door = open_door(name)
            found = write(door.prepare(**asked(dst, "run-2"))["staging"], "new")
            with pytest.raises(Refused) as caught:
                door.publish(expected={**expect(found), **wrong}, receipt={}, executable=False)
            assert caught.value.code == "verify-failed"
            door.close()
            assert list(local.iterdir()) == [dst]
        assert photograph(dst) == before

    @some_doors
    def test_a_version_that_was_tampered_with_is_not_kept(self, name: str, local: Path, dst: Path) -> None:
        land(door := open_door(name), dst, "old")
        door.close()
        door = open_door(name)
        door.prepare(**asked(dst, "run-2"))
        assert door.same(inputs="old")
        (dst / "old").chmod(0o600)
        assert not door.same(inputs="old")
        (dst / "old").chmod(0o644)
        assert door.same(inputs="old")
        times = (dst / "old").stat()
        (dst / "old").write_text("new")
        assert not door.same(inputs="old")
        (dst / "old").write_text("old")
        os.utime(dst / "old", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert door.same(inputs="old")
        (dst / "extra").touch()
        assert not door.same(inputs="old")
        (dst / "extra").unlink()
        manifest = dst / os.fsdecode(layout.MANIFEST)
        whole = manifest.read_bytes()
        for damaged in (whole[:-9], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], b"", whole * 2):
            manifest.write_bytes(damaged)
            assert not door.same(inputs="old")
        manifest.unlink()
        assert not door.same(inputs="old")
        door.close()

    @some_doors
    def test_parents_are_made_and_go_again_if_nothing_was_published(self, name: str, tmp_path: Path) -> None:
        deep = tmp_path / "a" / "b" / "env"
        door = open_door(name)
        door.prepare(**asked(deep))
        assert deep.parent.is_dir()
        door.close()
        assert list(tmp_path.iterdir()) == []
        land(door := open_door(name), deep, "here")
        door.close()
        assert stands(deep) == "here"

    @some_doors
    def test_a_parent_that_is_a_link_is_the_place_it_leads_to(self, name: str, local: Path, dst: Path) -> None:
        (local.parent / "link").symlink_to(local)
        land(door := open_door(name), local.parent / "link" / "env", "here")
        door.close()
        assert stands(dst) == "here"
        door = open_door(name)
        assert door.prepare(**asked(dst))["receipt"]["destination"] == str(dst)
        door.close()

    @some_doors
    def test_a_missing_tool_is_named(self, name: str, local: Path, dst: Path) -> None:
        door = open_door(name)
        with pytest.raises(Refused, match="no-such-tool") as caught:
            door.prepare(**asked(dst, tools=["sh", "no-such-tool"]))
        assert caught.value.code == "tool-missing"
        door.close()
        assert list(local.iterdir()) == []

    @some_doors
    def test_a_name_that_is_not_utf8(self, name: str, local: Path) -> None:
        odd = Path(os.fsdecode(os.fsencode(local) + b"/caf\xff\n"))
        land(door := open_door(name), odd, "here")
        door.close()
        assert stands(odd) == "here"
        assert list(local.iterdir()) == [odd]


def mount_points() -> list[str]:
    """Mount points that are not top-level directories."""
    return [
        path for path in ("/dev/shm", "/dev/pts", "/sys/fs/cgroup", "/proc/sys/fs/binfmt_misc") if os.path.ismount(path)
    ]


class TestRefusedPaths:
    """What must never be replaced is refused before anything is made."""

    def refused(self, door: Door, dst: Path | str, **other: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            door.prepare(**asked(dst, replace=True, **other))
        assert caught.value.code == "destination-refused"
        return caught.value

    @some_doors
    @pytest.mark.parametrize("path", ["/", "/tmp", "/no-such-top-level", "/usr", "/tmp/../usr", "relative/path", ""])
    def test_top_level_and_relative(self, name: str, path: str, opened: Callable[[str], Door]) -> None:
        self.refused(opened(name), path)

    @some_doors
    def test_a_home_and_what_holds_it(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = tmp_path / "homes" / "me"
        home.mkdir(parents=True)
        (tmp_path / "link-home").symlink_to(home)
        for given in (home, tmp_path / "link-home"):
            monkeypatch.setenv("HOME", str(given))
            door = Imported() if name == IMPORTED else Piped(interpreter(name))
            assert "home directory" in self.refused(door, home).message
            self.refused(door, home.parent)
            self.refused(door, home.parent / "me" / ".." / "me")
            door.prepare(**asked(home / "env"))
            door.close()
            assert list(home.iterdir()) == []

    @some_doors
    def test_the_home_of_the_password_database(
        self, name: str, opened: Callable[[str], Door], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = Path("~").expanduser()
        monkeypatch.setenv("HOME", "/nowhere")
        self.refused(opened(name), home)

    @some_doors
    def test_case_57_a_link(self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]) -> None:
        (local / "target").mkdir()
        for target in (local / "target", "no-such-file"):
            dst.symlink_to(target)
            assert "is a link to" in self.refused(opened(name), dst).message
            dst.unlink()

    @some_doors
    def test_case_62_the_source_inside_it_and_around_it(
        self, name: str, local: Path, opened: Callable[[str], Door]
    ) -> None:
        source = local / "project" / "env"
        (source / "lib").mkdir(parents=True)
        (local / "alias").symlink_to(source)
        (local / "project" / "env-2").mkdir()
        before = photograph(local)
        door = opened(name)
        for avoid in (source, local / "alias"):
            for dst in (source, source / "lib", source / "new", local / "alias" / "new", source.parent):
                self.refused(door, dst, avoid=str(avoid))
        assert photograph(local) == before
        opened(name).prepare(**asked(source.parent / "env-3", avoid=str(source)))
        opened(name).prepare(**asked(source.parent / "env-2", avoid=str(source), replace=True))

    @some_doors
    @pytest.mark.parametrize("path", mount_points())
    def test_a_mount_point(self, name: str, path: str, opened: Callable[[str], Door]) -> None:
        assert "mount point" in self.refused(opened(name), path).message

    @some_doors
    @pytest.mark.parametrize(("last", "means"), [(".", "a/b"), ("..", "a")])
    def test_a_path_that_ends_in_dots_is_refused_or_understood(
        self, name: str, last: str, means: str, local: Path
    ) -> None:
        (local / "a" / "b").mkdir(parents=True)
        (local / "a" / "b" / "mine").touch()
        door = open_door(name)
        code = code_of(lambda: land(door, f"{local}/a/b/{last}", "here", replace=True))
        door.close()
        assert code in ("done", "destination-refused")
        assert code == "done" or (local / "a" / "b" / "mine").exists()
        assert code != "done" or stands(local / means) == "here"


class TestWhoseItIs:
    """Only what our receipt proves is ours is replaced."""

    @some_doors
    def test_a_directory_without_a_receipt(self, name: str, local: Path, dst: Path) -> None:
        dst.mkdir()
        (dst / "mine").touch()
        before = photograph(local)
        door = open_door(name)
        with pytest.raises(Refused, match="no receipt") as caught:
            door.prepare(**asked(dst))
        assert (caught.value.code, "--replace" in caught.value.hint) == ("destination-not-ours", True)
        door.close()
        assert photograph(dst) == {path[4:] or b".": facts for path, facts in before.items() if path.startswith(b"env")}
        land(door := open_door(name), dst, "ours", replace=True)
        door.close()
        assert stands(dst) == "ours"
        assert not (dst / "mine").exists()
        assert list(local.iterdir()) == [dst]

    @some_doors
    def test_a_file_in_its_place(self, name: str, local: Path, dst: Path) -> None:
        dst.write_text("a file")
        door = open_door(name)
        with pytest.raises(Refused) as caught:
            door.prepare(**asked(dst))
        assert caught.value.code == "destination-not-ours"
        door.close()
        assert dst.read_text() == "a file"
        land(door := open_door(name), dst, "ours", replace=True)
        door.close()
        assert list(local.iterdir()) == [dst]

    @needs_root
    @some_doors
    @pytest.mark.parametrize("replace", [False, True], ids=["", "--replace"])
    def test_case_57_a_directory_of_another_user(
        self, name: str, *, replace: bool, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        land(door := open_door(name), dst, "ours")
        door.close()
        os.chown(dst, NOBODY, NOBODY)
        with pytest.raises(Refused, match="belongs to nobody") as caught:
            opened(name).prepare(**asked(dst, replace=replace))
        assert caught.value.code == "destination-not-ours"
        assert stands(dst) == "ours"

    def receipt(self, dst: Path, **other: Any) -> str:
        return json.dumps({"format": FORMAT, "destination": str(dst), "source": SOURCE, **other})

    @some_doors
    @pytest.mark.parametrize("forgery", ["elsewhere", "format", "link", "stranger", "folder", "FIFO", "text", "list"])
    def test_a_receipt_that_proves_nothing(
        self, name: str, forgery: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        dst.mkdir()
        path = dst / RECEIPT
        path.write_text(self.receipt(dst))
        if forgery == "elsewhere":
            path.write_text(self.receipt(local / "other"))
        elif forgery == "format":
            path.write_text(self.receipt(dst, format="ezpz/receipt/99"))
        elif forgery == "link":
            path.rename(local / "receipt")
            path.symlink_to(local / "receipt")
        elif forgery == "stranger":
            if os.geteuid() != 0:
                pytest.skip("needs root to give a file away")
            os.chown(path, NOBODY, NOBODY)
        elif forgery in ("folder", "FIFO"):
            path.unlink()
            if forgery == "folder":
                path.mkdir()
            else:
                os.mkfifo(path)
        else:
            path.write_text("not JSON" if forgery == "text" else "[1, 2]")
        with pytest.raises(Refused) as caught:
            opened(name).prepare(**asked(dst))
        assert caught.value.code == "destination-not-ours"

    @some_doors
    @pytest.mark.parametrize(
        "odd",
        [{"bytes": "many"}, {"bytes": None}, {"bytes": [1]}, {"files": "x"}, {"version": 7}, {"bytes": -5}],
        ids=str,
    )
    def test_a_receipt_with_odd_values_is_no_bug(
        self, name: str, odd: dict[str, object], local: Path, dst: Path
    ) -> None:
        dst.mkdir()
        (dst / RECEIPT).write_text(self.receipt(dst, **odd))
        door = open_door(name)
        land(door, dst, "new")
        door.close()
        assert stands(dst) == "new"

    @some_doors
    @pytest.mark.parametrize(
        "text", ['{"format": "ezpz/receipt/1", "destination": "a\\u0000b"}', "[" * 100_000], ids=len
    )
    def test_a_receipt_that_is_rubbish_is_no_bug(
        self, name: str, text: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        dst.mkdir()
        (dst / RECEIPT).write_text(text)
        with pytest.raises(Refused) as caught:
            opened(name).prepare(**asked(dst))
        assert caught.value.code == "destination-not-ours"

    @some_doors
    def test_a_list_of_failed_nodes_that_cannot_go_fails_the_run(
        self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        land(door := open_door(name), dst, "old")
        door.close()
        (dst / FAILED).mkdir()
        with pytest.raises(Refused) as caught:
            opened(name).prepare(**asked(dst, "run-2"))
        assert caught.value.code == "stale-list"


class TestTheLock:
    """One run at a time, and whoever comes second is told who was first."""

    @some_doors
    @pytest.mark.parametrize("second", [IMPORTED, SYSTEM])
    def test_the_second_is_told_who_was_first(
        self, name: str, second: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        first = opened(name)
        staging = Path(first.prepare(**asked(dst, "run-1"))["staging"])
        with pytest.raises(Refused) as caught:
            opened(second).prepare(**asked(dst, "run-2"))
        assert caught.value.code == "destination-busy"
        pid = first.process.pid if isinstance(first, Piped) else os.getpid()
        for fact in (run_id("run-1"), socket.gethostname(), str(pid)):
            assert fact in caught.value.message
        assert staging.is_dir()
        write(staging, "first")
        first.publish(expected={}, receipt={}, executable=False)
        first.close()
        land(opened(second), dst, "second", "run-3")

    @some_doors
    def test_names_side_by_side_do_not_meet(self, name: str, local: Path, opened: Callable[[str], Door]) -> None:
        for number, other in enumerate(("env", "env-2", ".env", "env.ezpz-2", "env.ezpz-lock")):
            opened(name).prepare(**asked(local / other, f"run-{number}"))
        stagings = [path for path in local.iterdir() if path.is_dir()]
        assert len(stagings) == 5

    @some_doors
    def test_the_lock_of_the_same_run_on_another_host_means_a_shared_disk(
        self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        (local / ".env.ezpz-lock").write_text(
            json.dumps({"run": run_id("run-1"), "host": "n042", "pid": 1, "user": "me"})
        )
        with pytest.raises(Refused, match="shared with node n042") as caught:
            opened(name).prepare(**asked(dst, "run-1"))
        assert caught.value.code == "destination-refused"

    @some_doors
    def test_a_lock_that_nobody_holds_is_taken_over(self, name: str, local: Path, dst: Path) -> None:
        lock = local / ".env.ezpz-lock"
        for left in ("", "{", "[]", json.dumps({"run": "dead", "host": "n042"})):
            lock.write_text(left)
            land(door := open_door(name), dst, "new")
            door.close()
        assert list(local.iterdir()) == [dst]

    @pytest.mark.parametrize("name", [SYSTEM])
    def test_a_run_comes_back_to_a_host_on_which_its_agent_was_killed(
        self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        first = Piped(interpreter(name))
        first.prepare(**asked(dst, "run-1"))
        first.kill()
        first.close()
        land(opened(name), dst, "second attempt", "run-1")
        assert stands(dst) == "second attempt"

    def test_of_many_at_once_one_wins(self, local: Path, dst: Path) -> None:
        agents = [Piped(interpreter(SYSTEM)) for _ in range(6)]
        for number, agent in enumerate(agents):
            agent.send("prepare", **asked(dst, f"run-{number}"))
        codes = [code_of(agent.answer) for agent in agents]
        for agent in agents:
            agent.close()
        assert sorted(codes) == ["destination-busy"] * 5 + ["done"]
        assert list(local.iterdir()) == []

    @pytest.mark.parametrize("kind", ["link", "FIFO", "folder"])
    def test_a_lock_that_is_no_file_is_refused(
        self, kind: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        lock = local / ".env.ezpz-lock"
        victim = local / "victim"
        victim.write_text("keep me")
        if kind == "link":
            lock.symlink_to(victim)
        elif kind == "FIFO":
            os.mkfifo(lock)
        else:
            lock.mkdir()
        with pytest.raises(Refused) as caught:
            opened(SYSTEM).prepare(**asked(dst))
        assert caught.value.code in ("destination-unwritable", "destination-not-ours")
        assert victim.read_text() == "keep me"


@pytest.fixture
def sticky() -> Iterator[Path]:
    """A directory like /tmp, where every user may write."""
    with tempfile.TemporaryDirectory(prefix="ezpz-sticky-") as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv to be another user")
class TestOtherUsers:
    """Several users of one node's /tmp."""

    def agent(self, uid: int, **settings: Any) -> Piped:
        return Piped(
            interpreter(SYSTEM), under=["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"], **settings
        )

    def test_somebody_elses_lock_is_told_from_a_full_or_forbidden_disk(self, sticky: Path) -> None:
        mine, theirs = Piped(interpreter(SYSTEM)), self.agent(NOBODY)
        mine.prepare(**asked(sticky / "env"))
        with pytest.raises(Refused, match="root") as caught:
            theirs.prepare(**asked(sticky / "env", "run-2"))
        assert caught.value.code in ("destination-not-ours", "destination-busy")
        theirs.close()
        mine.close()

    def test_somebody_elses_version_stays(self, sticky: Path) -> None:
        land(door := Imported(), sticky / "env", "roots")
        door.close()
        before = photograph(sticky)
        theirs = self.agent(NOBODY)
        with pytest.raises(Refused, match="belongs to root") as caught:
            theirs.prepare(**asked(sticky / "env", "run-2", replace=True))
        assert caught.value.code == "destination-not-ours"
        theirs.close()
        assert {path: facts for path, facts in photograph(sticky).items() if path != b"."} == {
            path: facts for path, facts in before.items() if path != b"."
        }

    def test_a_user_without_a_name(self, sticky: Path) -> None:
        agent = self.agent(54_321, environment={"PATH": os.environ["PATH"]})
        land(agent, sticky / "env", "here")
        agent.close()
        assert stands(sticky / "env") == "here"
        assert (sticky / "env").stat().st_uid == 54_321


class TestLeftovers:
    """What dead runs left goes; nothing else does."""

    @some_doors
    def test_staging_of_dead_runs_goes(self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]) -> None:
        dead = local / ".env.ezpz-20240101-000000-deadbeef"
        (dead / "tree" / "read-only").mkdir(parents=True)
        (dead / "tree" / "read-only" / "file").touch()
        (dead / "tree" / "read-only").chmod(0o500)
        (dead / "tree").chmod(0)
        for kept in ("env-2", ".env.ezpz", ".environment.ezpz-20240101-000000-deadbeef", "env.ezpz-x"):
            (local / kept).mkdir()
        opened(name).prepare(**asked(dst))
        left = {path.name for path in local.iterdir()}
        assert dead.name not in left
        assert left >= {"env-2", ".env.ezpz", ".environment.ezpz-20240101-000000-deadbeef", "env.ezpz-x"}

    @some_doors
    def test_a_link_is_not_followed(self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]) -> None:
        (local / "precious").mkdir()
        (local / "precious" / "file").touch()
        dead = local / ".env.ezpz-20240101-000000-deadbeef"
        dead.mkdir()
        (dead / "tree").symlink_to(local / "precious")
        (local / ".env.ezpz-20240101-000000-0badcafe").symlink_to(local / "precious")
        opened(name).prepare(**asked(dst))
        assert (local / "precious" / "file").exists()

    @needs_root
    @some_doors
    def test_what_looks_alike_but_is_another_users_stays(
        self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        theirs = local / ".env.ezpz-20240101-000000-deadbeef"
        theirs.mkdir()
        (theirs / "file").touch()
        os.chown(theirs, NOBODY, NOBODY)
        land(opened(name), dst, "new")
        assert (theirs / "file").exists()

    @some_doors
    def test_the_staging_of_a_live_run_to_a_longer_name_stays(
        self, name: str, local: Path, opened: Callable[[str], Door]
    ) -> None:
        staging = Path(opened(IMPORTED).prepare(**asked(local / "env.ezpz-2", "20240101-000000-deadbeef"))["staging"])
        opened(name).prepare(**asked(local / "env", "20240101-000000-0badcafe"))
        assert staging.is_dir()

    @some_doors
    def test_a_file_of_the_users_that_has_our_prefix_stays(
        self, name: str, local: Path, dst: Path, opened: Callable[[str], Door]
    ) -> None:
        (local / ".env.ezpz-notes.txt").write_text("what I want to remember")
        opened(name).prepare(**asked(dst))
        assert (local / ".env.ezpz-notes.txt").exists()


@pytest.mark.parametrize(("public", "top"), [(False, 0o700), (True, 0o2775)])
@every_door
def test_the_top_is_closed_to_others_unless_it_is_public(
    opened: Callable[[str], Door],
    name: str,
    local: Path,
    public: bool,  # noqa: FBT001 - pytest names it
    top: int,
) -> None:
    door = opened(name)
    staging = Path(door.prepare(**asked(local / "env", public=public))["staging"])
    found = write(staging, "word")
    staging.chmod(0o2775)
    door.publish(expected=expect(found), receipt={}, executable=False)
    noted = Path(door.note(["n001"]))
    modes = [path.stat().st_mode & 0o7777 for path in (local / "env", noted, local / "env" / RECEIPT)]
    assert modes == [top, 0o600, 0o600]
    assert json.loads((local / "env" / RECEIPT).read_text())["mode"] == f"{top:o}"


@every_door
def test_a_list_of_failed_nodes_goes_through_no_link(opened: Callable[[str], Door], name: str, local: Path) -> None:
    door = opened(name)
    land(door, local / "env", "word")
    (local / "victim").write_text("keep me")
    (local / "env" / ".ezpz-yeet-failed-nodes.txt.part").symlink_to(local / "victim")
    assert Path(door.note(["n001"])).read_text() == "n001\n"
    assert (local / "victim").read_text() == "keep me"


READ_ONLY = """
import os, sys
from pathlib import Path
from tests.contract.doors import open_door
from tests.contract.test_landing import asked, expect, stands, write
local, name = Path(sys.argv[1]), sys.argv[2]
dst = local / "env"
for word in ("first", "second", "third"):
    door = open_door(name)
    staging = Path(door.prepare(**asked(dst, word))["staging"])
    write(staging, word)
    for path in (staging / "folder", staging):
        path.chmod(0o555)
    door.publish(expected={}, receipt={}, executable=False)
    assert stands(dst) == word
    assert (dst.stat().st_mode & 0o777, (dst / "folder").stat().st_mode & 0o777) == (0o500, 0o555)
    door.close()
    print(sorted(os.listdir(local)))
"""


@some_doors
def test_a_read_only_tree_is_published_and_replaced_by_an_ordinary_user(name: str, local: Path) -> None:
    done = as_ordinary_user(READ_ONLY, local, name)
    assert (done.stdout, done.stderr) == ("['env']\n" * 3, "")


class TestAtomicity:
    """A reader sees the old version or the new one, whatever happens to the run."""

    def test_case_58_a_reader_never_sees_none_nor_half(self, local: Path, dst: Path) -> None:
        land(door := Imported(), dst, "version0", "run-0")
        door.close()
        wrong: list[str] = []
        seen: list[str] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                try:
                    fd = os.open(dst, os.O_RDONLY | os.O_DIRECTORY)
                except OSError as e:
                    wrong.append(str(e))
                    continue
                names = sorted(os.listdir(fd))
                if os.path.samestat(os.fstat(fd), os.stat(dst)):  # nobody had begun to remove it
                    seen.extend(names[3:])
                    if len(names) != 4:
                        wrong.append(str(names))
                os.close(fd)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(1, 60):
                land(door := Imported(), dst, f"version{number}", f"run-{number}")
                door.close()
        finally:
            over.set()
            reader.join()
        assert wrong == []
        assert len(set(seen)) > 1
        assert seen == sorted(seen, key=lambda word: int(word.removeprefix("version")))

    @pytest.mark.parametrize("name", [SYSTEM])
    def test_killed_at_any_moment_it_leaves_the_old_version_or_the_new(self, name: str, local: Path, dst: Path) -> None:
        rng = random.Random(20_240_101)
        python = interpreter(name)
        land(door := Imported(), dst, "round0", "run-0")
        door.close()
        for number in range(1, 15):
            agent = Piped(python)
            staging = agent.prepare(**asked(dst, f"run-{number}"))["staging"]
            found = write(staging, f"round{number}", files=150)
            before = stands(dst)
            agent.send("publish", expected=expect(found), receipt={}, executable=False)
            time.sleep(rng.uniform(0, 0.03))
            agent.kill()
            agent.close()
            after = stands(dst)
            assert after in (before, f"round{number}")
        last = open_door(SYSTEM)
        land(last, dst, "last", "run-last")
        last.close()
        assert stands(dst) == "last"
        assert list(local.iterdir()) == [dst]


PRELOAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int renameat2(int a, const char *b, int c, const char *d, unsigned e) { errno = ENOSYS; return -1; }
int rename(const char *from, const char *to) {
    static int count;
    const char *fail = getenv("FAIL_RENAME"), *die = getenv("KILL_RENAME");
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    count++;
    if (fail && atoi(fail) == count) { errno = EIO; return -1; }
    if (die && atoi(die) == count) kill(getpid(), SIGKILL);
    return real(from, to);
}
"""


@pytest.fixture(scope="session")
def old_kernel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process to which this kernel has no renameat2(2)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("preload")
    (folder / "old.c").write_text(PRELOAD)
    flags = ["-shared", "-fPIC", "-w", "-o", str(folder / "old.so"), str(folder / "old.c"), "-ldl"]
    subprocess.run([compiler, *flags], check=True)
    return {**os.environ, "LD_PRELOAD": str(folder / "old.so")}


@pytest.mark.parametrize("name", [SYSTEM, "3.6"])
class TestWithoutRenameExchange:
    """On a kernel or filesystem that cannot exchange two names, two renames take its place."""

    @pytest.fixture(autouse=True)
    def old(self, local: Path, dst: Path) -> None:
        land(door := Imported(), dst, "old", "run-0")
        door.close()

    def test_a_new_version_replaces_the_old_one(
        self, name: str, local: Path, dst: Path, old_kernel: dict[str, str]
    ) -> None:
        agent = Piped(interpreter(name), environment=old_kernel)
        assert land(agent, dst, "new")["removed"] == 1
        agent.close()
        assert stands(dst) == "new"
        assert list(local.iterdir()) == [dst]

    def test_the_first_version_of_all(self, name: str, local: Path, old_kernel: dict[str, str]) -> None:
        agent = Piped(interpreter(name), environment=old_kernel)
        land(agent, local / "first", "new")
        agent.close()
        assert stands(local / "first") == "new"

    def test_if_the_second_rename_fails_the_first_is_undone(
        self, name: str, local: Path, dst: Path, old_kernel: dict[str, str]
    ) -> None:
        agent = Piped(interpreter(name), environment={**old_kernel, "FAIL_RENAME": "2"})
        with pytest.raises(Refused) as caught:
            land(agent, dst, "new")
        assert caught.value.code == "destination-unwritable"
        agent.close()
        assert stands(dst) == "old"
        assert list(local.iterdir()) == [dst]

    def test_killed_between_the_two_the_next_run_finds_the_old_version(
        self, name: str, local: Path, dst: Path, old_kernel: dict[str, str]
    ) -> None:
        agent = Piped(interpreter(name), environment={**old_kernel, "KILL_RENAME": "2"})
        staging = agent.prepare(**asked(dst))["staging"]
        agent.send("publish", expected=expect(write(staging, "new")), receipt={}, executable=False)
        assert agent.process.wait(DEADLINE) == -signal.SIGKILL
        agent.close()
        second = open_door(name)
        second.prepare(**asked(dst, "run-2"))
        second.close()
        assert stands(dst) in ("old", "new")


@pytest.mark.parametrize("name", [SYSTEM, "3.6"])
class TestTheEndOfTheLine:
    """When whoever asked is gone, the agent goes too and takes along what it made."""

    def test_staging_and_lock_go(self, name: str, local: Path, dst: Path) -> None:
        land(door := Imported(), dst, "old", "run-0")
        door.close()
        agent = Piped(interpreter(name))
        write(agent.prepare(**asked(dst))["staging"], "never published")
        assert len(list(local.iterdir())) == 3
        assert agent.hang_up() == 0
        agent.close()
        assert stands(dst) == "old"
        assert list(local.iterdir()) == [dst]

    @pytest.mark.parametrize("how", ["stdin ends", "SIGTERM", "SIGHUP"])
    def test_a_running_rsync_is_ended_with_all_it_started(
        self, name: str, how: str, local: Path, dst: Path, tmp_path: Path
    ) -> None:
        agent = Piped(interpreter(name))
        agent.prepare(**asked(dst))
        script = f"sleep 300 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/leader; wait"
        agent.send("pull", argv=["sh", "-c", script], seconds=0)
        pids = [int(wait_for(tmp_path / part)) for part in ("child", "leader")]
        if how == "stdin ends":
            agent.hang_up()
        else:
            agent.process.send_signal(signal.Signals[how])
            agent.process.wait(DEADLINE)
        agent.close()
        assert [pid for pid in pids if running(pid)] == []
        assert list(local.iterdir()) == []

    def test_a_pull_that_takes_too_long_is_ended(self, name: str, local: Path, dst: Path) -> None:
        agent = Piped(interpreter(name))
        agent.prepare(**asked(dst))
        with pytest.raises(Refused, match=r"within 0\.3 s") as caught:
            agent.ask("pull", argv=["sh", "-c", "trap '' TERM; sleep 300 & wait; sleep 300"], seconds=0.3)
        assert caught.value.code == "timed-out"
        agent.close()
        assert list(local.iterdir()) == []

    def test_what_a_pull_says(self, name: str, local: Path, dst: Path) -> None:
        agent = Piped(interpreter(name))
        agent.prepare(**asked(dst))
        said = "Number of regular files transferred: 12\\nTotal transferred file size: 3456 bytes\\n"
        moved = "  1000  50%%  1.0MB/s\\r  2000 100%%  1.0MB/s\\r"
        script = f"printf '{moved}'; sleep 0.5; printf '{said}'; echo oops >&2; exit 3"
        answer = agent.ask("pull", argv=["sh", "-c", script], seconds=20)
        assert (answer["returncode"], answer["stderr"]) == (3, "oops")
        assert (answer["sent_files"], answer["sent_bytes"]) == (12, 3456)
        assert agent.events[-1] == {"bytes": 2000}
        with pytest.raises(Refused) as caught:
            agent.ask("pull", argv=["/no/such/rsync"], seconds=20)
        assert caught.value.code == "tool-missing"
        agent.close()

    def test_a_chatty_shell_before_the_ready_line_does_no_harm(self, name: str, local: Path, dst: Path) -> None:
        agent = Piped(interpreter(name), first="echo Welcome; printf 'your quota is \\377 used up: '")
        agent.close()
        agent = Piped(interpreter(name), first="echo Welcome to n001; printf 'no newline at the end'")
        assert [line for line in agent.chatter if line] == ["Welcome to n001", "no newline at the end"]
        land(agent, dst, "here")
        agent.close()
        assert stands(dst) == "here"

    def test_what_is_attached_is_read_with_its_request(self, name: str, local: Path, dst: Path) -> None:
        agent = Piped(interpreter(name))
        agent.prepare(**asked(dst))
        agent.send("capabilities", attached=3_000_000)
        agent.write(bytes(3_000_000))
        assert isinstance(agent.answer()["zstd"], bool)
        assert agent.ask("look", dst=str(dst)) == {"standing": None}
        agent.send("capabilities", attached=3_000_000)
        agent.write(bytes(1000))  # and then the line ends
        agent.close()
        assert list(local.iterdir()) == []

    def test_it_says_who_and_what_it_is(self, name: str) -> None:
        agent = Piped(interpreter(name))
        agent.close()
        assert agent.hello["host"] == socket.gethostname()
        assert agent.hello["python"].startswith("3." if name == SYSTEM else f"{name}.")

    def test_a_request_that_nobody_knows_is_an_answer(self, name: str, dst: Path) -> None:
        agent = Piped(interpreter(name))
        with pytest.raises(Refused):
            agent.ask("no-such-thing")
        with pytest.raises(Refused, match="nothing was prepared"):
            agent.ask("publish", expected={}, receipt={}, executable=False)
        assert agent.ask("look", dst=str(dst)) == {"standing": None}
        agent.close()


def wait_for(path: Path) -> str:
    """The line that somebody writes to this file."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"a line in {path}")
    return path.read_text()


def running(pid: int) -> bool:
    """Whether a process is alive, and not a zombie that nobody has waited for."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


FULL = """
import os, sys
from pathlib import Path
from tests.contract.doors import Refused, open_door
from tests.contract.test_landing import asked, expect, land, stands, write
disk, name = Path(sys.argv[1]), sys.argv[2]
dst = disk / "env"
def refused(act, *arguments, **keywords):
    try:
        act(*arguments, **keywords)
    except Refused as e:
        print(e.code)
    else:
        print("accepted")
land(door := open_door(name), dst, "old", "run-0")
door.close()
for wish in ({"bytes": 1 << 20}, {"files": 200}):
    door = open_door(name)
    refused(door.prepare, **asked(dst, **{**wish, "source": "/another"}))
    door.close()
door = open_door(name)
staging = Path(door.prepare(**asked(dst))["staging"])
found = write(staging, "new")
with open(staging / "big", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        print("full")
refused(door.publish, expected={}, receipt={}, executable=False)
door.close()
print(stands(dst), sorted(os.listdir(disk)))
"""

NOEXEC = """
import subprocess, sys
from pathlib import Path
from tests.contract.doors import Refused, open_door
from tests.contract.test_landing import asked, land
disk, name = Path(sys.argv[1]), sys.argv[2]
subprocess.run(["mount", "-o", "remount,noexec", str(disk)], check=True)
door = open_door(name)
try:
    door.prepare(**asked(disk / "env", executable=True))
except Refused as e:
    print(e.code)
door.close()
land(door := open_door(name), disk / "env", "data")
door.close()
"""


class TestSmallDisks:
    """What does not fit is refused first; what turns out not to fit leaves nothing."""

    @some_doors
    def test_case_56_a_disk_that_is_full_or_fills_up(self, name: str, tmp_path: Path) -> None:
        done = on_small_disk(FULL, tmp_path / "disk", "512k", name)
        assert (done.stdout, done.stderr) == ("no-space\nno-space\nfull\nno-space\nold ['env']\n", "")

    @some_doors
    def test_case_55_a_disk_that_lets_nothing_run(self, name: str, tmp_path: Path) -> None:
        done = on_small_disk(NOEXEC, tmp_path / "disk", "512k", name)
        assert (done.stdout, done.stderr) == ("noexec\n", "")

    def test_case_56_a_disk_that_lives_in_memory_and_promises_more_than_there_is(self, tmp_path: Path) -> None:
        code = (
            "import sys\nfrom pathlib import Path\nfrom tests.contract.doors import Refused, open_door\n"
            "from tests.contract.test_landing import asked\n"
            "try:\n    open_door('imported').prepare(**asked(Path(sys.argv[1]) / 'env', bytes=10**14))\n"
            "except Refused as e:\n    print(e.code, 'lives in memory' in e.message)\n"
        )
        done = on_small_disk(code, tmp_path / "disk", "500t")
        assert (done.stdout, done.stderr) == ("no-space True\n", "")
