"""Links: what leads out of the source comes along, what leads nowhere is told, and nothing leads back."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.contract.support import photograph
from tests.lab.creators import make
from tests.lab.pythons import python
from tests.relocation.trees import STRATEGIES, names, powerless, refusal, warnings, yeet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.relocation.trees import Document

Targets: TypeAlias = "dict[str, str | Path]"


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Moved:
    """A tree full of links, copied by one strategy, and its source gone."""

    def __init__(self, folder: Path, strategy: str) -> None:
        shared = folder / "shared"
        self.root = shared / "S"
        self._make(shared)
        before = photograph(shared, inode=False)
        self.path = folder / "node" / "D"
        self.document: Document = yeet(shared / "S", self.path, "--strategy", strategy)
        assert photograph(shared, inode=False) == before
        self.shared = str(shared)
        shutil.rmtree(shared)

    def _make(self, shared: Path) -> None:
        root, out = shared / "S", shared / "out"
        write(root / "file", "inside")
        write(root / "sub" / "deep" / "file", "deeper")
        write(out / "cache" / "pkg" / "mod.py", "cached")
        write(out / "other" / "file", "other")
        write(out / "more" / "file", "more")
        link(shared / "alias", "S")
        inside: Targets = {
            "relative": "../file", "absolute": root / "file", "folder": root / "sub" / "deep", "top": root,
            "aliased": shared / "alias" / "file", "long-way": "../../S/./sub/../file",
        }  # fmt: skip
        outward: Targets = {
            "escapes": "../out/cache/pkg/mod.py", "absolute-out": out / "other" / "file", "chain": out / "chain",
            "cached": "../out/cache", "twice": "../out/cache", "dangling": "../out/nothing", "gone": "/no/such/place",
            "self": "self", "up": "..", "around": shared, "program": "/usr/bin/env", "system": "/usr/lib",
            "device": "/dev/null",
        }  # fmt: skip
        link(out / "chain", "second")
        link(out / "second", "cache/pkg/mod.py")
        outside: Targets = {
            "near": "pkg/mod.py", "away": "../other/file", "back": "../../S/sub/deep/file", "back-whole": root / "file",
            "program": "/usr/bin/env", "itself": "../cache", "further": "../more", "lost": "../nothing",
        }  # fmt: skip
        for folder, targets in ((root / "sub", inside), (root, outward), (out / "cache", outside)):
            for name, target in targets.items():
                link(folder / name, target)
        link(out / "more" / "again", "../cache")

    def says(self, name: str) -> str:
        return (self.path / name).read_text()

    def target(self, name: str) -> str:
        return os.readlink(self.path / name)


@pytest.fixture(scope="module", params=STRATEGIES)
def moved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    return Moved(tmp_path_factory.mktemp("links"), request.param)


def test_case_34_what_links_lead_to_elsewhere_is_in_the_copy(moved: Moved) -> None:
    for name in ("escapes", "absolute-out", "chain"):
        assert not (moved.path / name).is_symlink()
    assert [moved.says(name) for name in ("escapes", "absolute-out", "chain")] == ["cached", "other", "cached"]


def test_case_35_absolute_links_into_the_source_become_relative(moved: Moved) -> None:
    found = {name: moved.target(f"sub/{name}") for name in ("absolute", "folder", "top", "aliased")}
    assert found == {"absolute": "../file", "folder": "deep", "top": "..", "aliased": "../file"}
    assert moved.says("sub/aliased") == "inside"


def test_case_35_relative_links_stay(moved: Moved) -> None:
    assert moved.target("sub/relative") == "../file"
    assert moved.says("sub/long-way") == "inside"


def test_case_36_a_folder_outside_comes_along(moved: Moved) -> None:
    for name in ("cached", "twice"):
        assert (moved.path / name).is_dir()
        assert not (moved.path / name).is_symlink()
        assert moved.says(f"{name}/pkg/mod.py") == "cached"


def test_case_36_links_in_a_folder_that_came_along_lead_where_they_did(moved: Moved) -> None:
    assert moved.target("cached/near") == "pkg/mod.py"
    assert moved.target("cached/itself") == "."  # it was called `cache` there
    assert moved.says("cached/away") == "other"
    assert not (moved.path / "cached" / "away").is_symlink()
    assert (moved.target("cached/back"), moved.says("cached/back")) == ("../sub/deep/file", "deeper")
    assert (moved.target("cached/back-whole"), moved.says("cached/back-whole")) == ("../file", "inside")
    assert moved.target("cached/program") == "/usr/bin/env"
    assert moved.says("cached/further/file") == "more"


def test_case_36_what_leads_nowhere_is_carried_and_told(moved: Moved) -> None:
    count, paths = warnings(moved.document)["dangling-link"]
    assert count == 5
    assert set(paths) == {"dangling", "gone", "self", "cached/lost", "twice/lost"}
    for path in paths:
        assert (moved.path / path).is_symlink()
        assert not (moved.path / path).exists()


def test_case_36_a_folder_around_a_link_is_never_followed(moved: Moved) -> None:
    _, paths = warnings(moved.document)["link-loop"]
    further = {f"{top}/further/again" for top in ("cached", "twice")}
    assert set(paths) == {"up", "around", *further}
    assert all((moved.path / path).is_symlink() for path in paths)


def test_links_into_the_image_of_every_node_stay(moved: Moved) -> None:
    found = {name: moved.target(name) for name in ("program", "system", "device")}
    assert found == {"program": "/usr/bin/env", "system": "/usr/lib", "device": "/dev/null"}


def test_nothing_leads_back_but_what_was_told(moved: Moved) -> None:
    told = {path for _, paths in warnings(moved.document).values() for path in paths}
    back = {
        name
        for name in names(moved.path)
        if (moved.path / name).is_symlink() and os.path.realpath(moved.path / name).startswith(moved.shared)
    }
    assert back <= told


def test_what_was_done_is_in_the_report(moved: Moved) -> None:
    done = moved.document["relocation"]
    assert done["links_followed"] == 3 + 2 * 3  # pkg/mod.py, other/file and more/file of each `cache`
    assert done["followed_bytes"] == len("cachedothercached") + 2 * len("cachedothermore")
    assert done["files_patched"] == 0


SNAPSHOT = "models--lab--model/snapshots/0123456789abcdef"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A model as the Hugging Face hub keeps it: files are links to content by its hash."""
    model = tmp_path / "hub" / "models--lab--model"
    for name, blob in {"config.json": "aa11", "weights/part-1.bin": "bb22", "weights/part-2.bin": "bb22"}.items():
        write(model / "blobs" / blob, f"content of {blob}")
        up = "../" * (2 + name.count("/"))
        link(tmp_path / "hub" / SNAPSHOT / name, f"{up}blobs/{blob}")
    write(model / "refs" / "main", "0123456789abcdef")
    return tmp_path / "hub"


def test_case_34_a_snapshot_of_a_model_is_its_files(hub: Path, tmp_path: Path) -> None:
    done = yeet(hub / SNAPSHOT, tmp_path / "D")
    shutil.rmtree(hub)
    assert (tmp_path / "D" / "weights" / "part-2.bin").read_text() == "content of bb22"
    assert [path for path in (tmp_path / "D").rglob("*") if path.is_symlink()] == []
    assert done["relocation"]["links_followed"] == 3
    assert warnings(done) == {}


def test_case_36_a_whole_model_keeps_its_links(hub: Path, tmp_path: Path) -> None:
    done = yeet(hub / "models--lab--model", tmp_path / "D")
    shutil.rmtree(hub)
    file = tmp_path / "D" / "snapshots" / "0123456789abcdef" / "config.json"
    assert (file.is_symlink(), file.read_text()) == (True, "content of aa11")
    assert done["relocation"]["links_followed"] == 0


def test_case_34_a_link_to_a_snapshot_is_its_files(hub: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    link(project / "model", hub / SNAPSHOT)
    yeet(project, tmp_path / "D")
    shutil.rmtree(hub)
    assert (tmp_path / "D" / "model" / "weights" / "part-1.bin").read_text() == "content of bb22"


def test_case_34_packages_that_are_links_into_uvs_cache_come_along(tmp_path: Path) -> None:
    source, cache = tmp_path / "shared" / "venv", tmp_path / "shared" / "uv-cache"
    make("uv --link-mode=symlink", source, python=python("3.11"), packages=())
    linked = [path for path in source.rglob("*") if path.is_symlink() and path.resolve().is_relative_to(cache)]
    assert len(linked) > 500
    before = photograph(cache)
    done = yeet(source, tmp_path / "D", "--base", "keep", "--compile", "never")
    assert photograph(cache) == before
    assert done["relocation"]["links_followed"] >= len(linked)
    own = os.fsencode(tmp_path / "shared")
    copied = [path for path in (tmp_path / "D").rglob("*") if path.is_symlink()]
    assert [path for path in copied if os.path.realpath(os.fsencode(path)).startswith(own)] == []


def test_a_link_that_is_excluded_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "huge" / "file", "a dataset")
    write(tmp_path / "S" / "file", "content")
    link(tmp_path / "S" / "data", tmp_path / "huge")
    done = yeet(tmp_path / "S", tmp_path / "D", "--exclude", "data")
    assert names(tmp_path / "D") == {"file"}
    assert done["relocation"]["links_followed"] == 0


def test_case_40_a_link_to_what_may_not_be_looked_at_is_refused_as_unreadable(tmp_path: Path) -> None:
    write(tmp_path / "secret" / "file", "private")
    write(tmp_path / "S" / "file", "content")
    link(tmp_path / "S" / "data", tmp_path / "secret" / "file")
    (tmp_path / "secret").chmod(0)
    try:
        code, message = refusal(yeet(tmp_path / "S", tmp_path / "D", exit_code=11, under=powerless()))
        assert (code, f"'{tmp_path}/S/data'" in message) == ("source-unreadable", True)
        done = yeet(tmp_path / "S", tmp_path / "D", "--skip-unreadable", under=powerless())
        assert warnings(done) == {"unreadable": (1, ["data"])}
        assert names(tmp_path / "D") == {"file"}
    finally:
        (tmp_path / "secret").chmod(0o755)


def test_hostile_links_are_carried_and_never_followed_for_ever(tmp_path: Path) -> None:
    root, out = tmp_path / "S", tmp_path / "out"
    write(root / "folder" / "file", "content")
    out.mkdir()
    for number in range(60):  # more than the kernel follows
        link(out / str(number), str(number + 1))
    for number in range(4):  # each holds a link to each
        for other in range(4):
            link(out / f"knot-{number}" / str(other), out / f"knot-{other}")
    targets: Targets = {
        "slash": "/", "process": "/proc/self/root", "steps": "../" * 60, "long": "x/" * 2000 + "y", "chain": out / "0",
        "below-itself": "below-itself/x", "not-a-folder": "folder/file/", "odd": "a\nb\x1b[1m", "knot": out / "knot-0",
        "dots": ".", "folder/deep": "..//.//../S/.", "colon": ":", "space": " ",
    }  # fmt: skip
    for name, target in targets.items():
        link(root / name, target)
    yeet(root, tmp_path / "D")
    copied = {name: os.readlink(tmp_path / "D" / name) for name in targets if name != "knot"}
    kept = {"slash": "/", "steps": "/", "folder/deep": ".."}  # by a name of the source, or in full
    assert copied == {**{name: str(target) for name, target in targets.items() if name != "knot"}, **kept}
    assert len([path for path in (tmp_path / "D" / "knot").rglob("*") if path.is_dir() and not path.is_symlink()]) < 70
