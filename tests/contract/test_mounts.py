"""Neither a yeet nor a clean removes anything of a filesystem that is mounted below a destination."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common import filesystem, mounts
from tests.contract.doors import IMPORTED, open_door
from tests.contract.support import in_mount_namespace
from tests.contract.test_landing import asked, land
from tests.unit.agent.destination.test_remove_tree import make_deep

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = {
    "bind": "mount --bind home DST/home",
    "tmpfs": "mount -t tmpfs none DST/home && echo precious >DST/home/thesis",
}
COMMANDS = {
    "yeet": ["yeet", "source", "--dst", "DST"],
    "clean": ["yeet", "clean", "DST", "--yes"],
    "dry": ["yeet", "clean", "DST", "--dry-run"],
    "status": ["yeet", "status", "DST"],
}
EZPZ = """
import json, os, subprocess, sys
os.chdir(sys.argv[1])
done = []
for command in json.loads(sys.argv[2].rpartition("/")[2].replace("|", "/")):
    ran = subprocess.run([sys.executable, "-m", "ezpz", *command], capture_output=True, text=True)
    done.append([ran.returncode, ran.stdout + ran.stderr])
print(json.dumps({"done": done, "left": os.listdir("DST/home"), "beside": sorted(os.listdir("."))}))
"""


def run(folder: Path, mount: str, *commands: list[str]) -> dict[str, Any]:
    """Run `ezpz` in a folder where something is mounted; how each command ended, and what is left."""
    real = [[str(folder / each) if each == "DST" else each for each in command] for command in commands]
    done = in_mount_namespace(folder, mount, EZPZ, ".", json.dumps(real).replace("/", "|"))
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source, a version of it with a directory of somebody's own in it, and a home."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("precious")
    door = open_door(IMPORTED)
    land(door, tmp_path / "DST", "word")
    door.close()
    (tmp_path / "DST" / "home").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", MOUNTS)
def test_it_is_told_and_refused(folder: Path, kind: str) -> None:
    found = run(folder, MOUNTS[kind], *COMMANDS.values())
    told = f"'{folder}/DST/home' is mounted in '{folder}/DST'"
    for name, (code, said) in zip(COMMANDS, found["done"], strict=True):
        assert told in said, name
        assert code == (1 if name == "status" else 20), (name, said)
        assert name == "status" or f"unmount it first: `umount {folder}/DST/home`" in said, said
    assert found["left"] == ["thesis"]
    assert found["beside"] == ["DST", "home", "source"]
    assert (folder / "home" / "thesis").read_text() == "precious"
    assert {"folder", "home", "word"} < set(os.listdir(folder / "DST"))


@pytest.mark.parametrize("name", [IMPORTED, "3.6"])
def test_a_deep_tree_is_replaced_again_and_again(deep_path: Path, name: str) -> None:
    for number in range(3):
        door = open_door(name)
        prepared = door.prepare(**asked(deep_path / "dst", f"run-{number}"))
        make_deep(deep_path / f"deep{number}", 1100)
        (deep_path / f"deep{number}").rename(f"{prepared['staging']}/deep")
        door.publish(expected={}, receipt={"source": "/lus/deep"}, executable=False)
        door.close()
        assert os.listdir(deep_path) == ["dst"]


LATE = """
import os, subprocess, sys
from ezpz.agent.destination.deployment import Deployment
from ezpz.agent.common.errors import AgentError
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.agent.common.messages.requests import PrepareRequest
from tests.contract.test_landing import asked, write
dst = sys.argv[1]
landing = Deployment(os.fsencode(dst), asked(dst)["run"])
landing.prepare(PrepareRequest(**asked(dst)))
found = write(os.fsdecode(landing.tree), "new")
subprocess.run(["mount", "--bind", os.path.join(os.path.dirname(dst), "home"), dst + "/home"], check=True)
try:
    landing.publish(found, Receipt(source="/lus/env"), executable=False)
except AgentError as e:
    print(e.code, e.message)
landing.close()
print(os.listdir(dst + "/home"), "word" in os.listdir(dst), sorted(os.listdir(os.path.dirname(dst))))
"""


def test_a_mount_that_comes_before_the_rename_is_refused(folder: Path) -> None:
    done = in_mount_namespace(folder, "true", LATE, "DST")
    told = f"destination-refused '{folder}/DST/home' is mounted in '{folder}/DST'"
    assert done.stdout.splitlines() == [told, "['thesis'] True ['DST', 'home', 'source']"], done.stderr


def test_a_bind_mount_of_the_same_disk_is_a_mount_point(folder: Path) -> None:
    found = run(folder, "mkdir other && cp -a DST/. other && mount --bind other DST", COMMANDS["yeet"], COMMANDS["dry"])
    assert [code for code, _ in found["done"]] == [20, 20], found["done"]
    assert f"destination '{folder}/DST' is a mount point" in found["done"][0][1]


@pytest.mark.parametrize("kind", ["fuse.sshfs", "ext4"])
def test_the_hint_is_the_command_for_that_kind(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    found = [mounts.Mount(point, "0:1", kind) for point in (b"/tmp/t/a b", b"/tmp/t/c")]
    monkeypatch.setattr(mounts, "table", lambda: iter(found))
    refusal = filesystem.refusal_of_mounts(b"/tmp/t")
    assert refusal is not None
    assert refusal.message == "'/tmp/t/a b' (and 1 more) is mounted in '/tmp/t'"
    command = "umount" if kind == "ext4" else "fusermount -u"
    assert refusal.hint == f"unmount it first: `{command} '/tmp/t/a b'`"
