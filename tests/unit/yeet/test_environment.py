"""Relocation of an environment: its old names are found, what names them follows, and the base never does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.relocate.environment import TEXT_LIMIT, Relocation, relocation_of
from ezpz.yeet.relocate.folder import relocate_folder, relocation_of_folder
from ezpz.yeet.source import Kind
from tests.contract.doors import interpreter

NEW = b"/tmp/env"
VENV_VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def found(files: dict[bytes, bytes], *known: bytes, kind: Kind = Kind.VENV) -> tuple[bytes, ...]:
    """The aliases of an environment that holds these files."""
    scripts = tuple(sorted(path for path in files if path.startswith(b"bin/")))
    return relocation_of(kind, known, NEW, read=files.get, scripts=scripts).prefixes.old


class TestAliases:
    """An environment goes by more names than the one it was given by."""

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (b"bin/activate", b'VIRTUAL_ENV="/was/here"\nexport VIRTUAL_ENV\n'),
            (b"bin/activate", b"VIRTUAL_ENV='/was/here'\n"),
            (b"bin/activate", b"VIRTUAL_ENV=/was/here\n"),
            (b"bin/activate", b"    export VIRTUAL_ENV=/was/here\n"),
            (b"bin/activate", b"    VIRTUAL_ENV=$(cygpath '/was/here')\nVIRTUAL_ENV='/was/here'\n"),
            (b"bin/activate.csh", b'setenv VIRTUAL_ENV "/was/here"\n'),
            (b"bin/activate.csh", b"setenv VIRTUAL_ENV /was/here\n"),
            (b"bin/activate.fish", b'set -gx VIRTUAL_ENV "/was/here"\n'),
            (b"bin/activate.fish", b"set -gx VIRTUAL_ENV /was/here\n"),
            (b"pyvenv.cfg", b"home = /usr/bin\ncommand = /usr/bin/python3 -m venv /was/here\n"),
            (b"pyvenv.cfg", b"home = /usr/bin\ncommand = /usr/bin/python3 -m venv --copies /was/here\n"),
        ],
    )
    def test_what_the_files_say_is_an_alias(self, path: bytes, text: bytes) -> None:
        assert b"/was/here" in found({path: text}, b"/is/here")

    def test_shebangs_are_asked_and_the_most_common_counts(self) -> None:
        scripts = {b"bin/a%d" % number: b"#!/was/here/bin/python3\n" for number in range(3)}
        scripts[b"bin/b"] = b"#!/usr/bin/python3\n"
        scripts[b"bin/c"] = b"#!/bin/sh\n"
        assert found(scripts, b"/is/here") == (b"/was/here", b"/is/here")

    def test_one_script_of_another_environment_does_not_make_that_an_alias(self) -> None:
        files = {b"bin/activate": b'VIRTUAL_ENV="/was/here"\n', b"bin/x": b"#!/another/env/bin/python3\n"}
        assert found(files, b"/is/here") == (b"/was/here", b"/is/here")

    def test_as_given_and_resolved(self) -> None:
        assert found({}, b"/link/env", b"/real/env") == (b"/link/env", b"/real/env")

    @pytest.mark.parametrize("line", [b"home = /opt/py/bin", b"base-prefix = /opt/py", b"base-exec-prefix = /opt/py"])
    def test_the_base_is_never_an_alias(self, line: bytes) -> None:
        files = {b"pyvenv.cfg": line + b"\n", b"bin/x": b"#!/opt/py/bin/python3\n"}
        assert found(files, b"/is/here") == (b"/is/here",)

    def test_a_tree_that_is_no_environment_has_none(self) -> None:
        files = {b"bin/activate": b"VIRTUAL_ENV=/was/here\n"}
        for kind in (Kind.TOOL, Kind.DATA):
            assert found(files, b"/is/here", kind=kind) == ()

    def test_an_environment_at_the_top_of_the_filesystem_has_one(self) -> None:
        """As in many a container."""
        assert found({b"bin/activate": b"VIRTUAL_ENV=/venv\n"}, b"/venv") == (b"/venv",)

    @pytest.mark.parametrize("top", [b"/usr", b"/opt", b"/"])
    def test_a_shebang_of_the_system_is_no_alias(self, top: bytes) -> None:
        assert found({b"bin/x": b"#!" + top.rstrip(b"/") + b"/bin/python3\n"}, b"/is/here") == (b"/is/here",)

    def test_a_conda_environment_is_known_by_its_shebangs(self) -> None:
        files = {b"bin/x": b"#!/conda/envs/a/bin/python3.11\n"}
        assert found(files, b"/is/here", kind=Kind.CONDA) == (b"/conda/envs/a", b"/is/here")


class TestLinks:
    """What points into the environment by its full path becomes relative; all else stays."""

    @pytest.mark.parametrize(
        ("path", "target", "after"),
        [
            (b"bin/python", b"/p/venv/bin/python3", b"python3"),
            (b"lib64", b"/p/venv/lib", b"lib"),
            (b"a/b/up", b"/p/venv/lib/x", b"../../lib/x"),
            (b"a/b/top", b"/p/venv", b"../.."),
            (b"top", b"/p/venv/", b"."),
            (b"odd", b"/p/venv/lib/../bin//x", b"bin/x"),
            (b"bin/python", b"/usr/bin/python3", b"/usr/bin/python3"),
            (b"bin/x", b"/p/venv-2/bin/x", b"/p/venv-2/bin/x"),
            (b"bin/x", b"/p/venv/../other", b"/p/venv/../other"),
            (b"bin/x", b"python3", b"python3"),
            (b"bin/x", b"../lib/x", b"../lib/x"),
            (b"bin/x", b"p/venv/x", b"p/venv/x"),
            (b"bin/x", b"/p/venv/\xff\n", b"../\xff\n"),
        ],
    )
    def test_targets(self, path: bytes, target: bytes, after: bytes) -> None:
        assert Relocation((b"/p/venv",), NEW).link(path, target) == after

    @given(
        st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4),
        st.lists(st.sampled_from([b"a", b"b"]), max_size=4),
    )
    def test_the_relative_link_leads_to_the_same_place(self, path: list[bytes], inside: list[bytes]) -> None:
        link = Relocation((b"/p/venv",), NEW).link(b"/".join(path), b"/".join([b"/p/venv", *inside]))
        there = os.path.normpath(os.path.join(b"/new", *path[:-1], link))
        assert there == os.path.normpath(os.path.join(b"/new", *inside))


class TestContent:
    """Which files pass through, and what becomes of them."""

    @pytest.mark.parametrize(
        ("path", "wanted"),
        [
            (b"pyvenv.cfg", True), (b"bin/pip", True), (b"bin/activate.fish", True), (b"etc/profile.d/x.sh", True),
            (b"etc/conda/activate.d/x.sh", True), (b"lib/python3.11/site-packages/x.py", False), (b"bin/sub/x", False),
            (b"lib/bin/x", False), (b"lib/pyvenv.cfg", False), (b"README", False),
        ],
    )  # fmt: skip
    def test_which_files_are_wanted(self, path: bytes, *, wanted: bool) -> None:
        assert Relocation((b"/p/venv",), NEW).wants(path, 100) is wanted
        assert not Relocation((), NEW).wants(path, 100)
        assert not Relocation((b"/p/venv",), NEW).wants(path, TEXT_LIMIT + 1)

    def test_text_follows_and_binaries_do_not(self) -> None:
        relocation = Relocation((b"/p/venv",), NEW)
        assert relocation.content(b"#!/p/venv/bin/python\n") == b"#!/tmp/env/bin/python\n"
        assert relocation.content(b"\x7fELF\0/p/venv\0") == b"\x7fELF\0/p/venv\0"
        assert Relocation((), NEW).content(b"/p/venv") == b"/p/venv"
        assert not Relocation((), NEW).is_needed
        assert not Relocation((NEW,), NEW).is_needed


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("venvs")


@pytest.mark.parametrize("version", VENV_VERSIONS)
class TestRealVenvs:
    """What `python -m venv` of each version writes works from its new place."""

    @pytest.fixture
    def moved(self, version: str, cache: Path) -> Path:
        """A venv that was copied elsewhere and relocated, and whose first place is gone."""
        new = cache / f"new-{version}" / "env"
        if new.exists():
            return new
        old = cache / f"old {version}" / "env"
        subprocess.run([interpreter(version), "-m", "venv", "--without-pip", str(old)], check=True)
        for name, first in (
            ("tool", f"#!{old}/bin/python3"),
            ("more", f"#!{old}/bin/python3"),
            ("other", f"#!{old}-other/bin/python3"),
        ):
            (old / "bin" / name).write_text(f"{first}\nimport sys\nprint(sys.prefix)\n")
            (old / "bin" / name).chmod(0o755)
        (old / "bin" / "absolute").symlink_to(old / "bin" / "tool")
        shutil.copytree(old, new, symlinks=True)
        root = os.fsencode(new)
        relocation = relocation_of_folder(root, Kind.VENV, (os.fsencode(old),), root)
        assert relocate_folder(root, relocation) >= 4
        assert relocate_folder(root, relocation) == 0
        shutil.rmtree(old)
        return new

    @pytest.mark.parametrize("shell", ["bash", "zsh", "sh", "fish", "csh", "tcsh"])
    def test_it_is_activated_in_every_shell(self, version: str, shell: str, moved: Path, tmp_path: Path) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not here")
        script = {"fish": "activate.fish", "csh": "activate.csh", "tcsh": "activate.csh"}.get(shell, "activate")
        source = 'set prompt = "% "\nsource' if shell.endswith("csh") else "."  # activate.csh wants a prompt
        show = 'echo "$VIRTUAL_ENV"\npython -c "import sys; print(sys.prefix)"\ndeactivate\n'
        (tmp_path / "script").write_text(f"{source} '{moved}/bin/{script}'\n{show}")
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        done = subprocess.run([shell, tmp_path / "script"], capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{moved}\n{moved}\n", "")

    def test_nothing_names_the_old_place(self, version: str, moved: Path) -> None:
        old = f"old {version}/env"
        naming = [
            path.name for path in moved.rglob("*")
            if path.is_file() and not path.is_symlink() and old in path.read_text(errors="replace")
        ]  # fmt: skip
        assert naming == ["other"]
        assert (moved / "bin" / "other").read_text().startswith(f"#!{moved.parents[1]}/{old}-other/bin/python3\n")
        assert (moved / "bin" / "absolute").readlink() == Path("tool")

    def test_the_base_python_stays_what_it_was(self, version: str, moved: Path) -> None:
        settings = dict(line.split(" = ", 1) for line in (moved / "pyvenv.cfg").read_text().splitlines())
        assert settings["home"] == str(Path(interpreter(version)).parent)

    def test_its_scripts_run(self, version: str, moved: Path) -> None:
        done = subprocess.run([moved / "bin" / "tool"], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == (f"{moved}\n", "")


def test_a_file_that_has_our_working_name_does_no_harm(tmp_path: Path) -> None:
    for name, text in (("tool", "#!/p/venv/bin/python\n"), ("tool.ezpz", "mine\n")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
    relocate_folder(os.fsencode(tmp_path), Relocation((b"/p/venv",), NEW))
    assert (tmp_path / "bin" / "tool").read_text() == "#!/tmp/env/bin/python\n"
    assert (tmp_path / "bin" / "tool.ezpz").read_text() == "mine\n"


def test_the_longest_possible_names_are_relocated_too(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script, link = tmp_path / "bin" / ("s" * 255), tmp_path / "bin" / ("l" * 255)
    script.write_text("#!/p/venv/bin/python\n")
    link.symlink_to("/p/venv/bin/python")
    assert relocate_folder(os.fsencode(tmp_path), Relocation((b"/p/venv",), NEW)) == 2
    assert script.read_text() == "#!/tmp/env/bin/python\n"
    assert link.readlink() == Path("python")


def test_modes_and_times_stay_when_content_changes(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "tool"
    script.write_text("#!/p/venv/bin/python\n")
    script.chmod(0o555)
    for path in (script, tmp_path / "bin"):
        os.utime(path, ns=(10**18 + 1, 10**18 + 2))
    (tmp_path / "bin").chmod(0o555)
    assert relocate_folder(os.fsencode(tmp_path), Relocation((b"/p/venv",), NEW)) == 1
    for path in (script, tmp_path / "bin"):
        assert path.stat().st_mtime_ns == 10**18 + 2
        assert path.stat().st_mode & 0o777 == 0o555
