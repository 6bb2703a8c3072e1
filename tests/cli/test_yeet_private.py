"""Who may read a copy, and an archive: this user alone, unless all may and it was asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.yeet.strategies.base import STRATEGIES
from tests.cli.support import ezpz

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("tar.zst", "tar.gz", "tar", "squashfs")
STRANGER = ("setpriv", "--reuid=20001", "--regid=20001", "--clear-groups")
needs_stranger = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv to be another user"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in /tmp that everybody may enter, with a source of mode 0755 in it."""
    with tempfile.TemporaryDirectory(prefix="ezpz-private-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "source" / "sub").mkdir(parents=True)
        (root / "source" / "weights").write_text("secret")
        for path in (root / "source", root / "source" / "sub"):
            path.chmod(0o755)
        (root / "source" / "weights").chmod(0o644)
        yield root


def yeet(place: Path, *arguments: str | Path, source: Path | None = None) -> dict[str, Any]:
    """Yeet the source to `copy` on this host, and return the report."""
    options = ("--hosts", "localhost", "--dst", str(place / "copy"), "--json", *map(str, arguments))
    done = ezpz("yeet", str(source or place / "source"), *options)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def stranger_reads(path: Path) -> str:
    """What another user finds in a file, or why it cannot be read."""
    done = subprocess.run([*STRANGER, "cat", path], capture_output=True, text=True, check=False)
    return done.stdout or done.stderr.rpartition(": ")[2].strip()


def ways(place: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """Each strategy, a source for it, and its options."""
    for name in STRATEGIES.names():
        strategy = STRATEGIES.load(name)
        if not strategy.reads_archives and all(shutil.which(tool) for tool in strategy.tools):
            yield name, place / "source", ("--strategy", name)
    for kind in FORMATS:
        if kind != "squashfs" or shutil.which("mksquashfs"):
            archive = place / f"x.{kind}"
            done = ezpz("yeet", "tar", str(place / "source"), "-o", str(archive))
            assert done.returncode == 0, done.stderr
            yield kind, archive, ()


@needs_stranger
def test_another_user_reads_no_copy_however_it_was_made(place: Path) -> None:
    for name, source, options in ways(place):
        yeet(place, *options, source=source)
        found = (mode(place / "copy"), mode(place / "copy" / "sub"), stranger_reads(place / "copy" / "weights"))
        assert found == (0o700, 0o755, "Permission denied"), name
        shutil.rmtree(place / "copy")


@needs_stranger
def test_another_user_reads_a_public_copy_however_it_was_made(place: Path) -> None:
    for name, source, options in ways(place):
        yeet(place, *options, "--public", source=source)
        assert (mode(place / "copy"), stranger_reads(place / "copy" / "weights")) == (0o755, "secret"), name
        assert stranger_reads(place / "copy" / ".ezpz-yeet-receipt.json") == "Permission denied", name
        shutil.rmtree(place / "copy")


@pytest.mark.parametrize("tops", [(), (".",)])
def test_a_public_archive_that_does_not_tell_of_its_top_is_open(place: Path, tops: tuple[str, ...]) -> None:
    (place / "source").chmod(0o750)
    names = tops or ("weights", "sub")
    subprocess.run(["tar", "czf", place / "x.tar.gz", "-C", place / "source", *names], check=True)
    yeet(place, "--public", source=place / "x.tar.gz")
    assert mode(place / "copy") == (0o750 if tops else 0o755)


def test_a_copy_is_closed_and_opened_by_the_next_yeet(place: Path) -> None:
    (place / "source").chmod(0o2775)
    for options, top in (((), 0o700), (("--public",), 0o2775), ((), 0o700)):
        nodes = yeet(place, *options)["nodes"]
        assert (mode(place / "copy"), nodes[0]["unchanged"]) == (top, False)
        version = json.loads((place / "copy" / ".ezpz-yeet-receipt.json").read_text())["version"]
        assert nodes[0]["replaced"] in ("", version)
        assert yeet(place, *options)["nodes"][0]["unchanged"]
        assert mode(place / "copy") == top


@pytest.mark.parametrize(("options", "top"), [((), 0o700), (("--public",), 0o755)])
def test_a_mode_that_was_changed_by_hand_is_put_right(place: Path, options: tuple[str, ...], top: int) -> None:
    yeet(place, *options)
    (place / "copy").chmod(0o711)
    assert not yeet(place, *options)["nodes"][0]["unchanged"]
    assert mode(place / "copy") == top


def test_a_copy_of_an_earlier_ezpz_is_closed(place: Path) -> None:
    """Its receipt has no word about it."""
    yeet(place, "--public")
    receipt = place / "copy" / ".ezpz-yeet-receipt.json"
    told = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({name: value for name, value in told.items() if name not in ("public", "mode")}))
    assert not yeet(place)["nodes"][0]["unchanged"]
    assert mode(place / "copy") == 0o700


def test_the_plan_tells_who_may_read_it(place: Path) -> None:
    for options, said in (
        ((), "access       private to you"),
        (("--public",), "access       readable as the source is"),
    ):
        done = ezpz("yeet", str(place / "source"), "--hosts", "localhost", "--dry-run", *options)
        assert said in done.stdout
    assert [yeet(place, *options)["plan"]["public"] for options in ((), ("--public",))] == [False, True]


class TestWhatIsExposed:
    """What fewer may read where it is than in a public copy."""

    @pytest.fixture
    def home(self, place: Path) -> Path:
        """A directory that only its owner may enter, with files that everybody may read by their mode."""
        home = place / "home"
        (home / "project").mkdir(parents=True)
        home.chmod(0o700)
        for path in (home / "notes", home / "project" / "module.py"):
            path.write_text("private = 1")
        (place / "source" / "notes").symlink_to(home / "notes")
        (place / "source" / "project").symlink_to(home / "project")
        (place / "source" / "open").symlink_to(place / "open")
        (place / "open").write_text("open")
        return home

    def exposed(self, report: dict[str, Any]) -> list[str]:
        found = [each for each in report["relocation"]["warnings"] if each["case"] == "exposed"]
        return sorted(path for each in found for path in each["paths"])

    @pytest.mark.usefixtures("home")
    def test_links_are_named_once_each_and_only_with_public(self, place: Path) -> None:
        assert self.exposed(yeet(place)) == []
        assert self.exposed(yeet(place, "--public")) == ["notes", "project"]

    @pytest.mark.usefixtures("home")
    def test_a_dry_run_says_so(self, place: Path) -> None:
        done = ezpz("yeet", str(place / "source"), "--hosts", "localhost", "--dry-run", "--public")
        assert "fewer may read this where it is than may read the copies (--public)" in done.stderr

    def test_nothing_is_when_the_top_is_closed_anyway(self, place: Path, home: Path) -> None:
        (place / "source").chmod(home.stat().st_mode & 0o777)
        assert self.exposed(yeet(place, "--public")) == []


class TestArchives:
    """An archive can be read by those who may read all that is in it."""

    @pytest.mark.parametrize("kind", ["tar.zst", "squashfs"])
    @pytest.mark.parametrize(
        ("what", "mode_there", "expected"),
        [
            (".", 0o755, 0o644),
            (".", 0o700, 0o600),
            ("source", 0o750, 0o640),
            ("source/sub", 0o700, 0o600),
            ("source/weights", 0o640, 0o640),
        ],
    )
    def test_its_mode(self, place: Path, kind: str, what: str, mode_there: int, expected: int) -> None:
        if kind == "squashfs" and shutil.which("mksquashfs") is None:
            pytest.skip("mksquashfs is not here")
        (place / what).chmod(mode_there)
        done = ezpz("yeet", "tar", str(place / "source"), "-o", str(place / f"x.{kind}"))
        assert done.returncode == 0, done.stderr
        assert mode(place / f"x.{kind}") == expected

    def test_what_a_link_brings_from_a_private_place_closes_it(self, place: Path) -> None:
        (place / "home").mkdir(mode=0o700)
        (place / "home" / "notes").write_text("private")
        (place / "source" / "notes").symlink_to(place / "home" / "notes")
        ezpz("yeet", "tar", str(place / "source"), "-o", str(place / "x.tar.gz"))
        assert mode(place / "x.tar.gz") == 0o600
