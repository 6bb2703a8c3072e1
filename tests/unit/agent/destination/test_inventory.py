"""What an agent says of its host: the state of versions, staging and locks, and what is nothing of ours."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common.cancel import NEVER
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.layout import RECEIPT
from ezpz.agent.common.messages.parts import ExpectedTree
from ezpz.agent.common.messages.queries import ClearRequest, InventoryRequest, LockHolder
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.agent.common.messages.requests import PrepareRequest
from ezpz.agent.destination import inventory, places, removal
from ezpz.agent.destination.deployment import Deployment
from ezpz.agent.destination.lock_holder import lock_holder
from tests.contract.support import on_btrfs

if TYPE_CHECKING:
    from pathlib import Path

RUN = "20261120-164754-252269f7"
OLD_RUN = "20251120-164754-252269f7"
REQUEST = {
    "avoid": None, "source": "/lus/me/data", "bytes": 10, "allocated": 10, "files": 1, "executable": False,
    "replace": False, "tools": (),
}  # fmt: skip


def prepare(landing: Deployment, **request: Any) -> None:
    asked = {**REQUEST, "dst": os.fsdecode(landing.given), "run": landing.run, **request}
    landing.prepare(PrepareRequest.from_json(asked))


def publish(dst: Path, content: str = "content", run: str = RUN, source: str = "/lus/me/data") -> dict[str, Any]:
    """A version as an ezpz without manifests put it there; its receipt."""
    landing = Deployment(os.fsencode(dst), run)
    try:
        prepare(landing, source=source)
        (dst.parent / f".{dst.name}.ezpz-{run}" / "tree" / "file").write_text(content)
        landing.publish(landing.verify(ExpectedTree()), Receipt(source=source, kind="data"), executable=False)
    finally:
        landing.close()
    found: dict[str, Any] = json.loads((dst / os.fsdecode(RECEIPT)).read_text())
    return found


def judged(dst: Path, **request: Any) -> dict[str, Any]:
    asked = InventoryRequest(wanted=[str(dst)], places=[], **request)
    found: list[dict[str, Any]] = inventory.survey(asked, NEVER).to_json()["found"]
    assert len(found) == 1
    assert found[0]["place"] == str(dst)
    return found[0]


class TestTheStateOfADestination:
    def test_nothing(self, tmp_path: Path) -> None:
        assert judged(tmp_path / "dst")["state"] == "absent"
        assert judged(tmp_path / "no" / "folder" / "dst")["state"] == "absent"

    @pytest.mark.processes
    def test_as_it_was_published(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst")
        found = judged(tmp_path / "dst")
        assert (found["state"], found["why"], found["lock"], found["staging"]) == ("whole", "", None, [])
        assert found["receipt"]["version"] == receipt["version"]

    @pytest.mark.processes
    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ("echo more >dst/other", "the number of its files differs: 2 instead of 1"),
            ("rm dst/file", "the number of its files differs: 0 instead of 1"),
            ("echo longer than before >dst/file", "its size differs: 19 instead of 7"),
            ("touch dst/file -d @1000000000", "times, permissions or names differ"),
            ("chmod 600 dst/file", "times, permissions or names differ"),
        ],
    )
    def test_a_version_without_a_manifest_is_held_against_its_receipt(
        self, tmp_path: Path, script: str, why: str
    ) -> None:
        publish(tmp_path / "dst")
        assert os.system(f"cd '{tmp_path}' && {script}") == 0
        assert (judged(tmp_path / "dst")["state"], judged(tmp_path / "dst")["why"]) == ("modified", why)

    @pytest.mark.processes
    def test_a_quick_look_does_not_compare(self, tmp_path: Path) -> None:
        publish(tmp_path / "dst")
        (tmp_path / "dst" / "file").unlink()
        assert judged(tmp_path / "dst", quick=True)["state"] == "whole"

    @pytest.mark.processes
    def test_a_manifest_that_is_not_the_receipts_is_no_proof(self, tmp_path: Path) -> None:
        publish(tmp_path / "dst")
        path = tmp_path / "dst" / os.fsdecode(RECEIPT)
        path.write_text(json.dumps({**json.loads(path.read_text()), "contents": "f" * 64}))
        found = judged(tmp_path / "dst")
        assert found["state"] == "modified"
        assert "manifest" in found["why"]

    @pytest.mark.processes
    def test_what_is_not_ours(self, tmp_path: Path) -> None:
        dst = tmp_path / "dst"
        dst.mkdir()
        assert judged(dst)["why"] == "it has no receipt of a yeet"
        publish(tmp_path / "real")
        os.rename(tmp_path / "real", tmp_path / "moved")
        assert judged(tmp_path / "moved")["why"] == "its receipt is not of this place, or not yours"
        (tmp_path / "link").symlink_to("moved\x1b[2J")
        assert judged(tmp_path / "link")["why"] == r"it is a link to 'moved\x1b[2J'"
        (tmp_path / "file").write_text("")
        assert judged(tmp_path / "file")["why"] == "it is no directory"
        assert {judged(tmp_path / name)["state"] for name in ("dst", "moved", "link", "file")} == {"foreign"}

    @pytest.mark.processes
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_what_is_somebody_elses(self, tmp_path: Path) -> None:
        publish(tmp_path / "dst")
        os.chown(tmp_path / "dst" / os.fsdecode(RECEIPT), 12345, -1)
        assert judged(tmp_path / "dst")["why"] == "its receipt is not of this place, or not yours"
        os.chown(tmp_path / "dst", 12345, -1)
        assert judged(tmp_path / "dst")["why"] == "it belongs to user 12345"

    def test_staging_of_a_run_that_is_going_on_and_of_one_that_died(self, tmp_path: Path) -> None:
        landing = Deployment(os.fsencode(tmp_path / "dst"), RUN)
        prepare(landing)
        (tmp_path / f".dst.ezpz-{RUN}" / "tree" / "part").write_text("so far")
        found = judged(tmp_path / "dst")
        assert (found["state"], found["lock"]["run"], found["lock"]["pid"]) == ("partial", RUN, os.getpid())
        [staging] = found["staging"]
        assert (staging["live"], staging["files"], staging["bytes"], staging["spent"]) == (True, 1, 6, False)
        os.close(landing.lock.fd)  # as when its process dies
        found = judged(tmp_path / "dst")
        assert (found["state"], found["lock"], found["staging"][0]["live"]) == ("partial", None, False)

    def test_to_look_at_a_lock_does_not_take_it(self, tmp_path: Path) -> None:
        """Else a run that begins right then would be turned away."""
        path = tmp_path / ".dst.ezpz-lock"
        path.write_text("{}")
        with path.open() as first, path.open() as second:
            fcntl.flock(first, fcntl.LOCK_SH)
            assert lock_holder(os.fsencode(path)) == LockHolder(run="", user="", host="", pid=0)
            fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)

    @pytest.mark.parametrize("content", ["", "no json", "[]", '{"pid": "x", "since": null}', "[" * 3000, "\xff"])
    def test_a_lock_that_says_nothing_sensible(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / ".dst.ezpz-lock"
        path.write_text(content)
        assert lock_holder(os.fsencode(path)) is None
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert lock_holder(os.fsencode(path)) is not None

    def test_a_lock_that_is_a_pipe_or_a_link_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / ".pipe.ezpz-lock")
        (tmp_path / ".link.ezpz-lock").symlink_to("/etc/passwd")
        assert lock_holder(os.fsencode(tmp_path / ".pipe.ezpz-lock")) is None
        assert lock_holder(os.fsencode(tmp_path / ".link.ezpz-lock")) is None


class TestWhatIsFound:
    @pytest.mark.processes
    def test_versions_staging_and_locks_and_nothing_else(self, tmp_path: Path) -> None:
        publish(tmp_path / "version")
        publish(tmp_path / "moved")
        os.rename(tmp_path / "moved", tmp_path / "moved-by-hand")
        for name in ("plain", f".staged.ezpz-{RUN}", ".almost.ezpz-20261120", f"visible.ezpz-{RUN}"):
            (tmp_path / name).mkdir()
        (tmp_path / f".file.ezpz-{RUN}").write_text("")
        (tmp_path / f".link.ezpz-{RUN}").symlink_to("plain")
        (tmp_path / ".locked.ezpz-lock").write_text("{}")
        (tmp_path / "alias").symlink_to("version")
        names = [os.path.basename(path) for path in places.destinations_in(os.fsencode(tmp_path), NEVER)]
        assert names == [b"locked", b"staged", b"version"]

    @pytest.mark.processes
    def test_under_the_usual_places_and_those_that_are_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "job").mkdir()
        (tmp_path / "alias").symlink_to("job")
        publish(tmp_path / "job" / "dst")
        monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
        told = [str(tmp_path / "alias"), "relative", "/no/such/place"]
        found = inventory.survey(InventoryRequest(wanted=[], places=told), NEVER).found
        assert [each.place for each in found if str(tmp_path) in each.place] == [str(tmp_path / "job" / "dst")]

    def test_a_folder_that_cannot_be_read_holds_nothing(self, tmp_path: Path) -> None:
        assert places.destinations_in(os.fsencode(tmp_path / "none"), NEVER) == []

    def test_names_that_are_too_long_or_no_text(self, tmp_path: Path) -> None:
        for name in ("n" * 240, "b\udcff\n"):
            landing = Deployment(os.fsencode(tmp_path / name), RUN)
            prepare(landing)
            os.close(landing.lock.fd)
            assert judged(tmp_path / name)["state"] == "partial", name
            found = [os.fsdecode(path) for path in places.destinations_in(os.fsencode(tmp_path), NEVER)]
            assert str(tmp_path / name) in found

    def test_links_to_one_file_count_once_and_those_from_elsewhere_not_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "one").write_bytes(b"x" * 8192)
        one = inventory.disk_usage(os.fsencode(tmp_path / "tree"), NEVER).disk
        os.link(tmp_path / "tree" / "one", tmp_path / "tree" / "two")
        assert inventory.disk_usage(os.fsencode(tmp_path / "tree"), NEVER)[:3] == (2, 16384, one)
        os.link(tmp_path / "tree" / "one", tmp_path / "three")
        assert inventory.disk_usage(os.fsencode(tmp_path / "tree"), NEVER).disk == 0


class TestClearing:
    def clear(self, dst: Path, receipt: dict[str, Any] | None = None, staging: tuple[str, ...] = ()) -> dict[str, Any]:
        version = None if receipt is None else {name: receipt[name] for name in ("run", "version", "created")}
        request = {"dst": str(dst), "run": RUN, "version": version, "staging": list(staging)}
        return removal.clear(ClearRequest.from_json(request), NEVER).to_json()

    @pytest.mark.processes
    def test_a_version_goes_whole_and_tells_what_it_freed(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst", "x" * 100_000)
        told = judged(tmp_path / "dst", weigh=True)["disk"]
        done = self.clear(tmp_path / "dst", receipt)
        assert (done["removed"], list(tmp_path.iterdir())) == ([str(tmp_path / f".dst.ezpz-{RUN}")], [])
        assert done["freed"] == told >= 100_000

    @pytest.mark.processes
    def test_read_only_folders_go_too(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst")
        (tmp_path / "dst" / "deep").mkdir()
        (tmp_path / "dst" / "deep" / "file").write_text("")
        os.chmod(tmp_path / "dst" / "deep", 0o500)
        os.chmod(tmp_path / "dst", 0o500)
        self.clear(tmp_path / "dst", receipt)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.processes
    def test_what_lies_behind_links_stays(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").write_text("precious")
        receipt = publish(tmp_path / "dst")
        (tmp_path / "dst" / "link").symlink_to(tmp_path / "mine")
        self.clear(tmp_path / "dst", receipt)
        assert (tmp_path / "mine" / "file").read_text() == "precious"

    @pytest.mark.processes
    def test_another_version_than_the_one_that_was_looked_at_stays(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst")
        publish(tmp_path / "dst", "newer", run="20261121-164754-252269f7")
        with pytest.raises(AgentError, match="another version than the one that was looked at") as caught:
            self.clear(tmp_path / "dst", receipt)
        assert caught.value.code == "destination-not-ours"
        assert (tmp_path / "dst" / "file").read_text() == "newer"

    @pytest.mark.processes
    def test_what_has_gone_or_is_no_longer_ours(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst")
        os.rename(tmp_path / "dst", tmp_path / "other")
        assert self.clear(tmp_path / "dst", receipt)["removed"] == []
        (tmp_path / "dst").symlink_to("other")
        with pytest.raises(AgentError):
            self.clear(tmp_path / "dst", receipt)
        os.unlink(tmp_path / "dst")
        (tmp_path / "dst").mkdir()
        with pytest.raises(AgentError):
            self.clear(tmp_path / "dst", receipt)
        assert sorted(os.listdir(tmp_path)) == ["dst", "other"]

    @pytest.mark.processes
    def test_a_run_that_holds_the_lock_is_left_alone(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst")
        running = Deployment(os.fsencode(tmp_path / "dst"), OLD_RUN)
        prepare(running)
        with pytest.raises(AgentError, match="another run holds the destination") as caught:
            self.clear(tmp_path / "dst", receipt, (OLD_RUN,))
        assert caught.value.code == "destination-busy"
        assert (tmp_path / f".dst.ezpz-{OLD_RUN}").exists()
        running.close()

    def test_staging_goes_when_it_is_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        staging = tmp_path / f".dst.ezpz-{OLD_RUN}"
        (staging / "tree").mkdir(parents=True)
        assert self.clear(tmp_path / "dst", staging=(OLD_RUN,))["removed"] == []
        assert staging.exists()
        later = time.time() + removal.STALE + 1
        monkeypatch.setattr(time, "time", lambda: later)
        assert self.clear(tmp_path / "dst", staging=(OLD_RUN,))["removed"] == [str(staging)]
        assert list(tmp_path.iterdir()) == []

    def test_what_a_dead_clean_left_goes_at_once(self, tmp_path: Path) -> None:
        staging = tmp_path / f".dst.ezpz-{OLD_RUN}"
        (staging / "gone" / "half").mkdir(parents=True)
        found = judged(tmp_path / "dst")
        assert (found["state"], found["staging"][0]["spent"]) == ("absent", True)
        assert self.clear(tmp_path / "dst", staging=(OLD_RUN,))["removed"] == [str(staging)]

    @pytest.mark.parametrize("run", ["../../etc", "x", f"{RUN}/..", ""])
    def test_a_name_that_is_no_run_removes_nothing(self, tmp_path: Path, run: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(AgentError, match="no name of a staging directory"):
            self.clear(tmp_path / "dst", staging=(run,))

    def test_staging_that_is_a_link_stays(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / f".dst.ezpz-{OLD_RUN}").symlink_to("mine")
        with pytest.raises(AgentError, match="not a directory of yours"):
            self.clear(tmp_path / "dst", staging=(OLD_RUN,))
        assert (tmp_path / "mine").exists()

    @pytest.mark.processes
    def test_where_somebody_else_could_swap_things(self, tmp_path: Path) -> None:
        receipt = publish(tmp_path / "dst")
        os.chmod(tmp_path, 0o777)
        with pytest.raises(AgentError, match="everybody may write"):
            self.clear(tmp_path / "dst", receipt)
        assert (tmp_path / "dst").exists()


ON_BTRFS = """
import os, sys
from ezpz.agent.destination.lock import Lock
from ezpz.agent.destination.lock_holder import lock_holder
lock = Lock(os.path.join(os.fsencode(sys.argv[1]), b"env"), "RUN")
print(lock_holder(lock.path))
lock.acquire()
held = lock_holder(lock.path)
print(held.run, held.pid == os.getpid())
os.close(lock.fd)
print(lock_holder(lock.path))
"""


@pytest.mark.processes
def test_who_holds_a_lock_where_devices_have_other_numbers_than_files(tmp_path: Path) -> None:
    done = on_btrfs(ON_BTRFS.replace("RUN", RUN), tmp_path / "disk")
    assert (done.stdout, done.stderr) == (f"None\n{RUN} True\nNone\n", "")
