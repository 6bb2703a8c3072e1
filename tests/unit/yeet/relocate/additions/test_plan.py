"""What an environment is given for its way: a relocation to one place, what comes along, and what is made anew."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common import filesystem
from ezpz.errors import EditableRefused
from ezpz.yeet.model.source import Kind
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.relocate.additions import plan
from ezpz.yeet.relocate.additions.env_script import render_env_script
from ezpz.yeet.relocate.additions.plan import (
    Snapshot,
    describe_relocation,
    generate_files,
    plan_relocation,
    take_snapshot,
)
from ezpz.yeet.relocate.inspect.base_python import BasePython
from ezpz.yeet.relocate.inspect.editable_installs import Editable
from ezpz.yeet.relocate.inspect.environment import Environment, inspect_environment
from ezpz.yeet.relocate.inspect.interpreter import Interpreter
from ezpz.yeet.relocate.options import RelocationOptions
from ezpz.yeet.source.scan import Scan

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW, TOP = b"/p/venv", b"/tmp/env", b"/opt/py"
PYTHON = Interpreter(
    version="3.11.7 (main)", prefix=OLD, base_prefix=TOP, base_executable=TOP + b"/bin/python3.11",
    stdlib=TOP + b"/lib/python3.11", platstdlib=TOP + b"/lib/python3.11", tag=b"cpython-311", magic=b"abcd",
    imports=(), user_site=b"", site_packages=(), base_site_packages=(), dynload=(),
)  # fmt: skip
EMPTY = Scan(b"/")
EMPTY.close()
BASE = BasePython(PYTHON, (TOP, b"/link/py"), b"python3.11", EMPTY, libraries=(b"/module/lib",))
VENV = Environment(Kind.VENV, (OLD, b"/alias/venv"), PYTHON, has_base=True, base=BASE)


def entries(scanned: Scan) -> dict[str, bytes | None]:
    return {os.fsdecode(entry.path): entry.content for batch in scanned.batches() for entry in batch}


class TestRelocation:
    """Which old places become which new ones."""

    def test_every_name_of_the_environment_becomes_the_destination(self) -> None:
        made = plan_relocation(NEW, VENV, OLD, None, Snapshot())
        assert dict(made.text.moves) == dict(made.links.moves) == {OLD: NEW, b"/alias/venv": NEW}
        assert (made.python, made.run_path, made.configuration) == (b"", b"", {})

    def test_case_06_every_name_of_an_embedded_base_becomes_its_folder(self) -> None:
        made = plan_relocation(NEW, VENV, OLD, BASE, Snapshot())
        top = NEW + b"/.python"
        assert dict(made.text.moves) == {
            OLD: NEW, b"/alias/venv": NEW, TOP: top, b"/link/py": top, b"/module/lib": top + b"/lib",
        }  # fmt: skip
        assert made.python == b".python/bin/python3.11"

    def test_case_07_the_name_of_one_that_is_everybodys_stays_in_texts(self) -> None:
        usr = replace(BASE, prefixes=(b"/usr",), libraries=())
        made = plan_relocation(NEW, VENV, OLD, usr, Snapshot())
        assert dict(made.text.moves) == {OLD: NEW, b"/alias/venv": NEW}
        assert made.links.map_path(b"/usr/bin/python3.11") == NEW + b"/.python/bin/python3.11"

    def test_case_05_every_key_that_may_name_the_base(self) -> None:
        made = plan_relocation(NEW, VENV, OLD, BASE, Snapshot())
        top = NEW + b"/.python"
        assert made.configuration == {
            b"home": top + b"/bin", b"base-prefix": top, b"base-exec-prefix": top,
            b"executable": top + b"/bin/python3.11", b"base-executable": top + b"/bin/python3.11",
        }  # fmt: skip

    def test_case_08_it_is_led_to_its_libraries_when_only_a_variable_did(self) -> None:
        assert plan_relocation(NEW, VENV, OLD, BASE, Snapshot()).run_path == b""
        needy = replace(BASE, needs_library_path=True)
        assert plan_relocation(NEW, VENV, OLD, needy, Snapshot()).run_path == b"$ORIGIN/../lib"

    def test_a_base_within_the_environments_folder_is_told_apart(self) -> None:
        within = replace(BASE, prefixes=(OLD + b"/py",), libraries=())
        made = plan_relocation(NEW, VENV, OLD, within, Snapshot())
        assert made.text.substitute(b"/p/venv/py/bin /p/venv/bin") == (b"/tmp/env/.python/bin /tmp/env/bin", 2)

    @pytest.mark.parametrize("kind", [Kind.TOOL, Kind.DATA])
    def test_of_what_is_no_environment_only_links_change(self, kind: Kind) -> None:
        made = plan_relocation(NEW, Environment(kind, (OLD,)), OLD, None, Snapshot())
        assert not made.is_needed
        assert made.relocate_link(b"x", OLD + b"/y") == b"y"


class TestAdditions:
    """What is made anew, beside what the source has."""

    def test_case_30_a_script_that_activates_and_moves_caches(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "activate").touch()
        made = entries(generate_files(VENV, os.fsencode(tmp_path), NEW, SourceWarnings()))
        assert list(made) == ["env.sh"]
        assert b". /tmp/env/bin/activate\n" in (made["env.sh"] or b"")

    def test_case_30_none_where_nothing_can_be_activated(self, tmp_path: Path) -> None:
        assert entries(generate_files(VENV, os.fsencode(tmp_path), NEW, SourceWarnings())) == {}

    def test_case_30_none_in_place_of_the_sources_own(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "activate").touch()
        (tmp_path / "env.sh").write_text("export MINE=1\n")
        notices = SourceWarnings()
        assert entries(generate_files(VENV, os.fsencode(tmp_path), NEW, notices)) == {}
        assert [warning.case for warning in notices.warnings()] == ["env-script-taken"]

    def test_case_30_one_of_an_earlier_yeet_is_text_as_any_other(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "activate").touch()
        (tmp_path / "env.sh").write_bytes(render_env_script(OLD))
        notices = SourceWarnings()
        assert entries(generate_files(VENV, os.fsencode(tmp_path), NEW, notices)) == {}
        assert notices.warnings() == ()

    def test_case_52_a_conda_environment_can_be_activated(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        made = entries(generate_files(Environment(Kind.CONDA, (OLD,)), os.fsencode(tmp_path), NEW, SourceWarnings()))
        assert {"bin/activate", "env.sh"} <= set(made)
        (tmp_path / "bin" / "activate").touch()  # as conda-pack puts one there
        assert list(
            entries(generate_files(Environment(Kind.CONDA, (OLD,)), os.fsencode(tmp_path), NEW, SourceWarnings()))
        ) == ["env.sh"]

    @pytest.mark.parametrize("kind", [Kind.TOOL, Kind.DATA])
    def test_nothing_for_what_is_no_environment(self, tmp_path: Path, kind: Kind) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "activate").touch()
        assert entries(generate_files(Environment(kind, (OLD,)), os.fsencode(tmp_path), NEW, SourceWarnings())) == {}


class TestSnapshot:
    """The code of editable installs comes along."""

    def editable(self, path: Path) -> Editable:
        at = os.fsencode(path)
        return Editable(
            "lab", at, on_sys_path=True, loader="pth", rebuilds=False, declared_by=b"lib/site/lab.pth", project=at
        )

    def test_case_26_packages_and_not_what_lies_beside_them(self, tmp_path: Path) -> None:
        for name in ("lab/__init__.py", "lab/data.txt", ".git/HEAD", "tests/big.bin", ".venv/pyvenv.cfg"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        snapshot = take_snapshot(replace(VENV, editables=(self.editable(tmp_path),)), NEW)
        names = {name.split("/", 2)[-1] for name in entries(snapshot.scan)}
        assert {"lab/__init__.py", "lab/data.txt"} <= names
        assert not [name for name in names if ".git" in name or ".venv" in name]

    def test_case_26_over_a_limit_it_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "lab").mkdir()
        (tmp_path / "lab" / "__init__.py").write_text("x" * 100)
        environment = replace(VENV, editables=(self.editable(tmp_path),))
        monkeypatch.setattr(plan, "SIZE_LIMIT", 100)
        take_snapshot(environment, NEW)
        monkeypatch.setattr(plan, "SIZE_LIMIT", 99)
        with pytest.raises(EditableRefused, match="lab"):
            take_snapshot(environment, NEW)

    def test_nothing_of_an_environment_without_any(self) -> None:
        assert entries(take_snapshot(VENV, NEW).scan) == {}


class TestWords:
    """What the plan says of it."""

    @pytest.mark.parametrize(
        ("mode", "said"), [("embed", "embedded"), ("keep", "kept"), ("auto", "embedded unless every node has it")]
    )
    def test_the_base(self, mode: str, said: str) -> None:
        assert describe_relocation(VENV, "/tmp/env", mode) == (
            f"/p/venv, /alias/venv becomes /tmp/env; Python 3.11.7 of /opt/py {said}"
        )

    def test_data(self) -> None:
        assert (
            describe_relocation(Environment(Kind.DATA, (OLD,)), "/tmp/env", "auto") == "links only: not an environment"
        )


class TestSearchPath:
    """What the session adds to every import is noted when it is on a filesystem that hosts share."""

    @pytest.fixture
    def shared(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A folder on what is said to be Lustre; the working directory is below it."""
        shared = tmp_path / "shared"
        (shared / "work").mkdir(parents=True)
        real = filesystem.filesystem
        lustre = os.fsencode(shared)
        monkeypatch.setattr(filesystem, "filesystem", lambda path: "lustre" if path.startswith(lustre) else real(path))
        monkeypatch.chdir(shared / "work")
        return shared

    def noted(
        self, tmp_path: Path, environ: dict[str, str], configuration: str = "home = /usr/bin\n"
    ) -> dict[str, int]:
        root = tmp_path / "env"
        (root / "bin").mkdir(parents=True, exist_ok=True)
        (root / "pyvenv.cfg").write_text(configuration)
        python = root / "bin" / "python"
        if not python.is_symlink():
            python.symlink_to("/nowhere/python")
        known = (os.fsencode(root),)
        notices = SourceWarnings()
        inspect_environment(known[0], Kind.VENV, known, RelocationOptions(base="keep"), environ, notices)
        return {warning.case: warning.count for warning in notices.warnings()}

    def test_case_29_with_counts(self, tmp_path: Path, shared: Path) -> None:
        lines = f"{shared}/a:{shared}/b:/usr/lib:{tmp_path}/env/lib"
        assert self.noted(tmp_path, {"PYTHONPATH": lines}) == {
            "python-path": 2, "working-directory": 1, "no-interpreter": 1,
        }  # fmt: skip

    def test_case_29_nothing_of_what_is_switched_off(self, tmp_path: Path, shared: Path) -> None:
        assert self.noted(tmp_path, {"PYTHONSAFEPATH": "1"}) == {"no-interpreter": 1}

    def test_case_29_nor_of_a_nodes_own_disk(self, tmp_path: Path) -> None:
        assert self.noted(tmp_path, {"PYTHONPATH": str(tmp_path)}) == {"no-interpreter": 1}
